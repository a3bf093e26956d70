"""The published sampling as a plain loop over texts. ClusterLLM, section 3.1."""

from __future__ import annotations

import random

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.preprocessing import StandardScaler


def sample(
    vectors: np.ndarray,
    max_distance: float,
    max_query: int = 1024,
    large_ent_prop: float = 0.2,
    close_cluster_prop: float = 0.02,
    seed: int = 100,
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Return the queries in order of uncertainty, and triplets of (query, choice, choice)."""
    rng, shuffler = random.Random(seed), np.random.RandomState(seed)
    scaled = StandardScaler().fit_transform(vectors)
    labels = AgglomerativeClustering(n_clusters=None, distance_threshold=max_distance).fit(scaled).labels_
    n_clusters = len(set(labels))
    means, members = [], []
    for cluster in range(n_clusters):
        inside = labels == cluster
        means.append(scaled[inside].mean(axis=0))
        members.append(np.flatnonzero(inside))
    centers = np.stack(means)
    n_near = max(2, round(n_clusters * close_cluster_prop))
    near, entropies = [], []
    for row in scaled:
        mass = 1 / (1 + ((row - centers) ** 2).sum(axis=-1))
        mass /= mass.sum()
        closest = np.argsort(mass)[::-1][:n_near]
        kept = mass[closest] / mass[closest].sum()
        near.append(closest)
        entropies.append(-(kept * np.log(kept)).sum())
    queries = np.argsort(entropies)[::-1][: int(len(scaled) * large_ent_prop)]
    visited = queries.copy()
    shuffler.shuffle(visited)
    triplets: list[tuple[int, int, int]] = []
    while len(triplets) < max_query:
        for query in visited:
            one, two = rng.sample(near[query].tolist(), 2)
            triplet = (int(query), int(rng.choice(members[one])), int(rng.choice(members[two])))
            if triplet not in triplets and query not in triplet[1:]:
                triplets.append(triplet)
            if len(triplets) >= max_query:
                break
    return queries, triplets
