"""Ward's agglomerative clustering, and mini-batch k-means in its place for many texts."""

from __future__ import annotations

import logging

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import MiniBatchKMeans

from perspective.clustering.distances import square_distances
from perspective.errors import DataError
from perspective.vectors import average_by_cluster, sample_rows

logger = logging.getLogger(__name__)

N_CLUSTERS_LARGE = 100
# Agglomerative clustering needs the distances of all pairs. Above this number of texts, a random
# sample of this size is clustered and the others join the nearest cluster: at most 400 MB.
N_AGGLOMERATED = 10_000
SHARE_OF_HEIGHT = 0.7  # cut of the tree if max_distance joins everything: scipy's default for dendrograms
ROWS_AT_A_TIME = 4096  # rows of the distance matrix at a time, to bound memory


def cluster_in_batches(scaled: np.ndarray, seed: int) -> np.ndarray:
    """Cluster rows `(n, dim)` into `N_CLUSTERS_LARGE` by mini-batch k-means; return `(n,)` cluster numbers.

    Raises:
        DataError: There are fewer rows than clusters.
    """
    if len(scaled) < N_CLUSTERS_LARGE:
        raise DataError(
            f"--scale large makes {N_CLUSTERS_LARGE} clusters of only {len(scaled)} texts; use --scale small"
        )
    return MiniBatchKMeans(n_clusters=N_CLUSTERS_LARGE, n_init=3, random_state=seed).fit_predict(scaled)


def agglomerate(scaled: np.ndarray, max_distance: float, seed: int, adapt: bool = False) -> np.ndarray:
    """Cluster by Ward's criterion up to a distance; above `N_AGGLOMERATED` rows, cluster a sample.

    Args:
        scaled: Rows `(n, dim)`.
        max_distance: Distance up to which clusters are joined.
        seed: Random seed of the sample.
        adapt: Whether to cut at a share of the tree's height instead, if the distance would join
            all rows into one cluster, as it does for a few dozen texts.

    Returns:
        `(n,)` cluster numbers.
    """
    if len(scaled) <= N_AGGLOMERATED:
        return join_by_ward(scaled, max_distance, adapt)
    logger.info("%d texts: clustering a random sample of %d", len(scaled), N_AGGLOMERATED)
    sample = sample_rows(len(scaled), N_AGGLOMERATED, seed)
    sample_clusters = join_by_ward(scaled[sample], max_distance, adapt)
    centers = average_by_cluster(scaled[sample], sample_clusters, int(sample_clusters.max()) + 1)
    clusters = np.empty(len(scaled), dtype=np.int64)
    for start in range(0, len(scaled), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        clusters[rows] = square_distances(scaled[rows], centers).argmin(axis=1)
    return clusters


def join_by_ward(scaled: np.ndarray, max_distance: float, adapt: bool = False) -> np.ndarray:
    """Return the clusters of scikit-learn's `AgglomerativeClustering`, with distances by matrix products."""
    n = len(scaled)
    pairs = np.empty(n * (n - 1) // 2)  # the upper triangle, row after row
    filled = 0
    for start in range(0, n, ROWS_AT_A_TIME):
        block = np.sqrt(square_distances(scaled[start : start + ROWS_AT_A_TIME], scaled[start:]))
        for place, row in enumerate(block):
            rest = row[place + 1 :]
            pairs[filled : filled + len(rest)] = rest
            filled += len(rest)
    tree = linkage(pairs, "ward")
    height = float(tree[-1, 2])
    if adapt and height <= max_distance:
        logger.info(
            "a distance of %.1f would join all texts; cutting at %.1f instead", max_distance, height * SHARE_OF_HEIGHT
        )
        max_distance = height * SHARE_OF_HEIGHT
    return fcluster(tree, max_distance, "distance") - 1
