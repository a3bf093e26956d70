"""Find clusters in vectors: k-means, or HDBSCAN for texts of which some belong nowhere."""

from __future__ import annotations

import logging
import warnings

import numpy as np

from perspective.description.records import NOWHERE
from perspective.description.settings import ClusterSettings
from perspective.errors import DataError
from perspective.options import Scale

logger = logging.getLogger(__name__)

HDBSCAN_DIM = 15  # densities need few dimensions
MIN_DENSE = 5  # texts of a cluster
SAME_CLUSTER = 0.5  # texts in common among all texts of both: above a half, at most one other cluster fits


def find_clusters(unit: np.ndarray, settings: ClusterSettings, seed: int, scale: Scale = "small") -> np.ndarray:
    """Cluster; the numbers follow the sizes, the largest cluster is 0.

    Args:
        unit: Unit rows `(n_texts, dim)`.
        settings: Method and number; `n_clusters` is needed for k-means.
        seed: Random seed.
        scale: As in `cluster_vectors`.

    Returns:
        `(n_texts,)` cluster numbers; `NOWHERE` for texts without one.
    """
    if settings.method == "hdbscan":
        found = _find_by_density(unit, settings.min_cluster_size)
    else:
        from sklearn.exceptions import ConvergenceWarning

        from perspective.clustering.kmeans import cluster_vectors

        assert settings.n_clusters is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than clusters: said below
            found = cluster_vectors(unit, settings.n_clusters, seed, scale)
        n_found = len(np.unique(found))
        if n_found < settings.n_clusters:
            logger.warning("only %d of %d clusters: there are no more different vectors", n_found, settings.n_clusters)
    return _number_by_size(found)


def keep_ids(found: np.ndarray, texts: list[str], old_ids: np.ndarray, old_texts: list[str], free: int) -> np.ndarray:
    """Give clusters the ids of those of an earlier run that hold mostly the same texts.

    Args:
        found: `(n_texts,)` cluster numbers.
        texts: The texts.
        old_ids: Their ids in the earlier run.
        old_texts: The texts of the earlier run; others are allowed.
        free: First id that no cluster ever had; clusters that are new get ids from here.

    Returns:
        `(n_texts,)` ids.
    """
    old_of = dict(zip(old_texts, old_ids.tolist(), strict=True))
    before = np.array([old_of.get(text, NOWHERE) for text in texts])
    sizes, old_sizes = _sizes(found), _sizes(before)
    ids = {NOWHERE: NOWHERE}
    for number in sizes:
        rows = before[found == number]
        same, shared = max(_sizes(rows).items(), key=lambda item: item[1], default=(NOWHERE, 0))
        if same != NOWHERE and shared > SAME_CLUSTER * (sizes[number] + old_sizes[same] - shared):
            ids[number] = same
        else:
            ids[number], free = free, free + 1
    return np.array([ids[number] for number in found.tolist()])


def _find_by_density(unit: np.ndarray, min_cluster_size: int | None) -> np.ndarray:
    """Return HDBSCAN's clusters of the principal components (Campello et al., 2013)."""
    from sklearn.cluster import HDBSCAN
    from sklearn.decomposition import PCA

    size = min_cluster_size or MIN_DENSE
    if size > len(unit):
        raise DataError(f"--min_cluster_size {size}: there are only {len(unit)} texts")
    dim = min(HDBSCAN_DIM, *unit.shape)
    rows = PCA(dim, svd_solver="full").fit_transform(unit)
    # Leaves: by excess of mass, half of eight data sets collapse into one cluster and a few small ones.
    found = HDBSCAN(min_cluster_size=size, cluster_selection_method="leaf", copy=False).fit_predict(rows)
    if (found < 0).all():
        raise DataError(
            f"--method hdbscan finds no cluster of {size} texts or more; use kmeans, or a smaller --min_cluster_size"
        )
    return found


def _number_by_size(found: np.ndarray) -> np.ndarray:
    numbers, first, inverse, sizes = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes, numbers < 0))  # without a cluster last; ties by the first text
    places = np.empty(len(numbers), dtype=np.int64)
    places[order] = np.arange(len(numbers))
    places[numbers < 0] = NOWHERE
    return places[inverse]


def _sizes(clusters: np.ndarray) -> dict[int, int]:
    """Return the size of each cluster, without the texts that have none."""
    numbers, counts = np.unique(clusters[clusters != NOWHERE], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))
