"""Clusterings of vectors at many numbers of clusters, and how scores over these numbers are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perspective.vectors import average_by_cluster

DIM = 96  # principal components: a few times faster, with the same result
SMALLEST = 2
TEXTS_PER_CLUSTER = 4  # at the fine end of the grid
STEP = 1.18  # ratio of two numbers of the grid
MAX_ITER = 8  # of k-means, which begins with Ward's clusters
LEAST_SHARE = 0.5  # of the highest value that a peak must have
BANDWIDTH = 0.25  # of smoothing, in natural logarithms of the number: 1.5 steps of the grid


def make_grid(n_texts: int) -> list[int]:
    """Return the numbers of clusters that are tried, at equal ratios from `SMALLEST` to a quarter of the texts.

    >>> make_grid(60)
    [2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15]
    """
    grid = [SMALLEST]
    while (following := max(grid[-1] + 1, round(grid[-1] * STEP))) <= n_texts // TEXTS_PER_CLUSTER:
        grid.append(following)
    return grid if n_texts >= SMALLEST * TEXTS_PER_CLUSTER else []


def find_peak(scores: Mapping[int, float], smoothed: bool = True) -> int | None:
    """Return the number of clusters at the highest peak of a score; None if there is no peak.

    The ends of the grid are no peaks: a score that only rises or falls says nothing about the number, and where an
    end is far above every peak, the number may lie beyond it.

    Args:
        scores: A score by number of clusters, the higher the better.
        smoothed: Whether the score is averaged over neighbouring numbers first; single values are noisy.

    >>> find_peak({2: 0.1, 4: 0.4, 8: 0.9, 16: 0.5, 32: 0.2}), find_peak({2: 0.1, 4: 0.2, 8: 0.3})
    (8, None)
    """
    sizes, values = sorted(scores), np.array([scores[size] for size in sorted(scores)])
    if smoothed:
        logs = np.log(sizes)
        weights = np.exp(-0.5 * ((logs[:, None] - logs) / BANDWIDTH) ** 2)
        values = weights @ values / weights.sum(axis=1)
    inner = range(1, len(sizes) - 1)
    peaks = [place for place in inner if values[place - 1] < values[place] >= values[place + 1]]
    best = max(peaks, key=lambda place: values[place], default=None)
    return sizes[best] if best is not None and values[best] >= LEAST_SHARE * values.max() else None


@dataclass(frozen=True)
class Granularities:
    """One view of the texts, clustered into any number of clusters.

    Attributes:
        rows: Principal components of the vectors, float32 `(n_texts, at most DIM)`.
    """

    rows: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Granularities:
        """Reduce vectors `(n_texts, dim)` to their principal components."""
        rows = np.asarray(vectors, dtype=np.float32)
        rows = rows - rows.mean(axis=0)
        if rows.shape[1] > DIM:
            rows = rows @ np.linalg.eigh(rows.T @ rows)[1][:, : -DIM - 1 : -1]
        return cls(rows)

    @cached_property
    def tree(self) -> np.ndarray:
        """Ward's merges, as scipy's `linkage` gives them."""
        from scipy.cluster.hierarchy import linkage
        from scipy.spatial.distance import pdist

        return linkage(pdist(self.rows.astype(np.float64)), "ward")

    def cut(self, n_clusters: int) -> np.ndarray:
        """Return Ward's clusters, `(n_texts,)` numbers without gaps; fewer where heights are equal."""
        from scipy.cluster.hierarchy import fcluster

        return np.unique(fcluster(self.tree, n_clusters, "maxclust"), return_inverse=True)[1]

    def cluster(self, n_clusters: int) -> np.ndarray:
        """Return the clusters of a short k-means that begins with Ward's."""
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        begin = self.cut(n_clusters)
        centers = average_by_cluster(self.rows, begin, int(begin.max()) + 1)
        with threadpool_limits(1):  # see clustering.kmeans.cluster_vectors
            return KMeans(len(centers), init=centers, n_init=1, max_iter=MAX_ITER).fit(self.rows).labels_

    def cluster_all(self, grid: Sequence[int]) -> dict[int, np.ndarray]:
        """Return the clusters by their number."""
        return {size: self.cluster(size) for size in grid}


def list_merges(tree: np.ndarray, n_last: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows of both sides of the last merges of a tree, the last one at the end."""
    n_texts = len(tree) + 1
    members = [np.array([row]) for row in range(n_texts)]
    merges = []
    for one, other in tree[:, :2].astype(int):
        merges.append((members[one], members[other]))
        members.append(np.concatenate(merges[-1]))
    return merges[-n_last:]


def rule_of_thumb(n_texts: int) -> int:
    """Return the square root of half the texts, at least 1: what is left where no criterion says anything.

    >>> rule_of_thumb(2), rule_of_thumb(800)
    (1, 20)
    """
    return max(1, round(math.sqrt(n_texts / 2)))
