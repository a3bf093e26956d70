"""Estimate the number of clusters without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import silhouette_score
from tqdm import tqdm

from perspective.clustering.kmeans import SEEDS

SILHOUETTE_SAMPLE = 2000


def score_without_labels(vectors: np.ndarray, scale: str = "small") -> dict[str, Any]:
    """Estimate the number of clusters by the silhouette of k-means over a grid.

    Args:
        vectors: Array `(n_texts, dim)`.
        scale: As in `cluster_vectors`.

    Returns:
        `n_clusters_estimated`, its `silhouette` (-1 to 1; mean over at most `SILHOUETTE_SAMPLE`
        texts) and `silhouette_by_n_clusters` for the whole grid.
    """
    largest = min(200, len(vectors) // 2)
    grid = sorted({int(round(n)) for n in np.geomspace(2, max(2, largest), 14)})
    scores: dict[int, float] = {}
    for n_clusters in tqdm(grid, desc="silhouette", unit="clustering"):
        kind = MiniBatchKMeans if scale == "large" else KMeans
        clusters = kind(n_clusters=n_clusters, n_init=1, random_state=SEEDS[0]).fit_predict(vectors)
        scores[n_clusters] = _silhouette(vectors, clusters)
    best = max(scores, key=lambda n_clusters: scores[n_clusters])
    return {
        "n_clusters_estimated": best,
        "silhouette": scores[best],
        "silhouette_by_n_clusters": {str(n_clusters): score for n_clusters, score in scores.items()},
        "note": "no labels: ACC, NMI and ARI need them",
    }


def _silhouette(vectors: np.ndarray, clusters: np.ndarray) -> float:
    sample = np.random.default_rng(SEEDS[0]).permutation(len(vectors))[:SILHOUETTE_SAMPLE]
    n_found = len(np.unique(clusters[sample]))
    # The silhouette needs at least two clusters and more texts than clusters.
    return float(silhouette_score(vectors[sample], clusters[sample])) if 2 <= n_found < len(sample) else -1.0
