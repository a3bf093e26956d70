"""Clusterings of vectors and how well they match the labels."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.metrics.cluster import contingency_matrix
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from perspective.clustering.kmeans_init import Seeding
from perspective.errors import DataError

logger = logging.getLogger(__name__)

SEEDS = (100, 13, 21, 36, 42)  # those of the published measures
METRICS = ("ACC", "NMI", "ARI")
N_INIT = 10  # stated: scikit-learn's default is now 1, worth 2 ACC points on banking77
SILHOUETTE_SAMPLE = 2000


def cluster_vectors(
    vectors: np.ndarray, n_clusters: int, seed: int, scale: str = "small", seeding: Seeding | None = None
) -> np.ndarray:
    """Cluster by k-means.

    Args:
        vectors: Array `(n_texts, dim)`.
        n_clusters: Number of clusters.
        seed: Of the initialisations.
        scale: "small" for k-means, "large" for its mini-batch form.
        seeding: That of these vectors, where several clusterings share it.

    Returns:
        Integer array `(n_texts,)` of cluster numbers.

    Raises:
        DataError: There are fewer texts than clusters.
    """
    if n_clusters > len(vectors):
        raise DataError(f"{len(vectors)} texts cannot form {n_clusters} clusters; give more texts")
    options = {"n_clusters": n_clusters, "n_init": N_INIT, "random_state": seed}
    # One thread each: k-means waits for all its threads many times a second, so that two of them
    # beside another job were measured 16 times slower than one.
    with threadpool_limits(1, "openmp"):
        if scale == "large":
            return MiniBatchKMeans(**options).fit_predict(vectors)
        return KMeans(init=seeding or Seeding(vectors), **options).fit_predict(vectors)


def clustering_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Fraction of texts whose cluster is matched to their class, by the best one-to-one matching.

    The Hungarian assignment maximises the matched texts; there may be more classes than clusters
    or fewer.

    >>> clustering_accuracy(np.array([0, 0, 1, 1]), np.array([5, 5, 7, 5]))
    0.75
    """
    table = contingency_matrix(labels, clusters)  # (n_classes, n_clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))


def score_clustering(vectors: np.ndarray, labels: Sequence[str], scale: str = "small") -> dict[str, Any]:
    """Measure k-means against the labels: ACC, NMI and ARI in percent, over `SEEDS`.

    Args:
        vectors: Array `(n_texts, dim)`.
        labels: One a text. The number of classes is the number of clusters.
        scale: As in `cluster_vectors`.

    Returns:
        A list a metric, and its mean and (population) standard deviation.
    """
    classes, label_ids = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    measures: dict[str, Any] = {metric: [] for metric in METRICS}
    runs = cluster_by_seed(vectors, len(classes), scale)
    for clusters in tqdm(runs, desc="k-means", unit="seed", total=len(SEEDS)):
        measures["ACC"].append(100 * clustering_accuracy(label_ids, clusters))
        measures["NMI"].append(100 * float(normalized_mutual_info_score(label_ids, clusters)))
        measures["ARI"].append(100 * float(adjusted_rand_score(label_ids, clusters)))
    for metric in METRICS:
        measures[f"{metric}_mean"] = float(np.mean(measures[metric]))
        measures[f"{metric}_std"] = float(np.std(measures[metric]))
    return {**measures, "n_clusters": len(classes), "seeds": list(SEEDS)}


def cluster_by_seed(
    vectors: np.ndarray, n_clusters: int, scale: str = "small", seeds: Sequence[int] = SEEDS
) -> Iterator[np.ndarray]:
    """Give one clustering a seed, in order; as many at once as there are cores."""
    # scikit-learn limits the matrix library within each k-means and lifts the limit after it, for
    # all threads: limited here too, none is lifted while another still runs.
    seeding = None if scale == "large" else Seeding(vectors)
    with threadpool_limits(1, "blas"):
        yield from Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
            delayed(cluster_vectors)(vectors, n_clusters, seed, scale, seeding) for seed in seeds
        )


def score_without_labels(vectors: np.ndarray, scale: str = "small") -> dict[str, Any]:
    """Estimate the number of clusters by the silhouette of k-means over a grid of numbers.

    Args:
        vectors: Array `(n_texts, dim)`.
        scale: As in `cluster_vectors`.

    Returns:
        `n_clusters_estimated`, its `silhouette` (-1 to 1; mean over at most `SILHOUETTE_SAMPLE`
        texts) and the whole `silhouette_by_n_clusters`.
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
    found = len(np.unique(clusters[sample]))
    # The silhouette needs two clusters and one text more than clusters.
    return float(silhouette_score(vectors[sample], clusters[sample])) if 2 <= found < len(sample) else -1.0
