"""k-means with the settings of the published measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from joblib import Parallel, delayed
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

from perspective.clustering.kmeans_init import CachedKMeansPlusPlus
from perspective.errors import DataError

SEEDS = (100, 13, 21, 36, 42)  # seeds of the published measures
N_INIT = 10  # stated: scikit-learn's default is now 1, worth 2 ACC points on banking77


def cluster_vectors(
    vectors: np.ndarray, n_clusters: int, seed: int, scale: str = "small", init: CachedKMeansPlusPlus | None = None
) -> np.ndarray:
    """Cluster by k-means.

    Args:
        vectors: Array `(n_texts, dim)`.
        n_clusters: Number of clusters.
        seed: Random seed of the initialisations.
        scale: "small" for k-means, "large" for mini-batch k-means.
        init: Initialisation of these vectors, to share its distances between several clusterings.

    Returns:
        Integer array `(n_texts,)` of cluster numbers.

    Raises:
        DataError: There are fewer texts than clusters.
    """
    if n_clusters > len(vectors):
        raise DataError(f"{len(vectors)} texts cannot form {n_clusters} clusters; give more texts")
    options = {"n_clusters": n_clusters, "n_init": N_INIT, "random_state": seed}
    # One thread: k-means synchronises its threads many times a second; with another job on the
    # machine, two threads were measured 16 times slower than one.
    with threadpool_limits(1, "openmp"):
        if scale == "large":
            return MiniBatchKMeans(**options).fit_predict(vectors)
        return KMeans(init=init or CachedKMeansPlusPlus(vectors), **options).fit_predict(vectors)


def cluster_by_seed(
    vectors: np.ndarray, n_clusters: int, scale: str = "small", seeds: Sequence[int] = SEEDS
) -> Iterator[np.ndarray]:
    """Yield one clustering per seed, in order; they run in parallel on all cores."""
    # scikit-learn limits BLAS threads during each k-means and then removes the limit for all threads.
    # With a limit here too, it is not removed while another k-means is running.
    init = None if scale == "large" else CachedKMeansPlusPlus(vectors)
    with threadpool_limits(1, "blas"):
        yield from Parallel(n_jobs=-1, prefer="threads", return_as="generator")(
            delayed(cluster_vectors)(vectors, n_clusters, seed, scale, init) for seed in seeds
        )
