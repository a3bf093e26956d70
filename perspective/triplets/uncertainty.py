"""Uncertainty of an embedder about each text: ClusterLLM (Zhang et al., 2023), section 3.1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from perspective.clustering.distances import square_distances
from perspective.clustering.ward import (
    N_AGGLOMERATED,
    ROWS_AT_A_TIME,
    agglomerate,
    cluster_in_batches,
)
from perspective.errors import NothingToSample
from perspective.vectors import average_by_cluster

PUBLISHED_MAX_DISTANCE = 77.0  # at 1,024 dimensions
PUBLISHED_DIM = 1024


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of a clustering about each text.

    Attributes:
        clusters: `(n_texts,)` cluster of each text.
        near_clusters: `(n_texts, n_near)` nearest clusters, nearest first.
        entropy: `(n_texts,)` entropy, in nats, of the soft assignment over the near clusters.
    """

    clusters: np.ndarray
    near_clusters: np.ndarray
    entropy: np.ndarray

    @property
    def n_clusters(self) -> int:
        """Number of clusters found."""
        return int(self.clusters.max()) + 1


def measure_uncertainty(
    vectors: np.ndarray,
    max_distance: float | None = None,
    close_cluster_fraction: float = 0.02,
    seed: int = 100,
    scale: str = "small",
) -> Uncertainty:
    """Cluster the vectors and measure the entropy of each text over its nearest clusters.

    The soft assignment is Student's t with one degree of freedom, p_k ~ 1 / (1 + |x - c_k|^2)
    (ClusterLLM, equation 1), on standardised vectors.

    Args:
        vectors: Array `(n_texts, dim)`, n_texts at least 3.
        max_distance: Ward distance up to which clusters are joined; default `scale_max_distance`.
        close_cluster_fraction: Share of the clusters that count as near; at least two do.
        seed: Random seed of the sample or of mini-batch k-means.
        scale: "small" for agglomerative clustering, "large" for mini-batch k-means.

    Raises:
        NothingToSample: There are too few texts, or all fall into one cluster.
    """
    if len(vectors) < 3:
        raise NothingToSample(f"{len(vectors)} texts: a triplet needs three")
    # float64 as published; float32 for large corpora, to save memory.
    dtype = np.float64 if len(vectors) <= N_AGGLOMERATED else np.float32
    scaled = StandardScaler(copy=False).fit_transform(np.array(vectors, dtype=dtype))
    if scale == "large":
        clusters = cluster_in_batches(scaled, seed)
    else:
        threshold = max_distance if max_distance is not None else scale_max_distance(scaled.shape[1])
        clusters = agglomerate(scaled, threshold, seed, adapt=max_distance is None)
    # Renumber without gaps: some clusters may be empty.
    clusters = np.unique(clusters, return_inverse=True)[1]
    n_clusters = int(clusters.max()) + 1
    if n_clusters < 2:
        raise NothingToSample("all texts fall into one cluster: no two clusters to draw choices from")
    centers = average_by_cluster(scaled, clusters, n_clusters)
    n_near = max(2, round(n_clusters * close_cluster_fraction))
    near = np.empty((len(scaled), n_near), dtype=np.int64)
    entropy = np.empty(len(scaled))
    for start in range(0, len(scaled), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        near[rows], entropy[rows] = _assign(scaled[rows], centers, n_near)
    return Uncertainty(clusters, near, entropy)


def select_uncertain_queries(entropy: np.ndarray, first_fraction: float, last_fraction: float) -> np.ndarray:
    """Return the rows between two fractions of the order by entropy, highest first; at least one.

    >>> select_uncertain_queries(np.array([0.1, 0.9, 0.5, 0.2, 0.3]), 0.0, 0.4)
    array([1, 2])
    """
    first = int(len(entropy) * first_fraction)
    last = max(first + 1, int(len(entropy) * last_fraction))
    return np.argsort(entropy)[::-1][first:last]


def scale_max_distance(dim: int) -> float:
    """Return the published distance threshold, scaled to another dimension.

    Distances between standardised vectors grow with the square root of the dimension.

    >>> scale_max_distance(1024), round(scale_max_distance(384), 1)
    (77.0, 47.2)
    """
    return PUBLISHED_MAX_DISTANCE * math.sqrt(dim / PUBLISHED_DIM)


def _assign(vectors: np.ndarray, centers: np.ndarray, n_near: int) -> tuple[np.ndarray, np.ndarray]:
    probability = 1 / (1 + square_distances(vectors, centers))  # (n, n_clusters)
    near = np.argpartition(-probability, n_near - 1, axis=1)[:, :n_near]
    mass = np.take_along_axis(probability, near, axis=1)
    order = np.argsort(-mass, axis=1, kind="stable")
    near, mass = np.take_along_axis(near, order, axis=1), np.take_along_axis(mass, order, axis=1)
    mass /= mass.sum(axis=1, keepdims=True)
    return near, -(mass * np.log(mass)).sum(axis=1)
