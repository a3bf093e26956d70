"""Spaces of vectors: whitened, side by side, smoothed, and how stably they cluster. No label is seen."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from perspective.clustering.kmeans_init import Seeding

N_STABILITY_SEEDS = 10
STABILITY_DIM = 96
ROWS_AT_A_TIME = 4096


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def center_rows(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean row, then scale each row to length 1."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return normalize_rows(vectors - vectors.mean(axis=0))


def half_whiten(vectors: np.ndarray) -> np.ndarray:
    """Flatten the spectrum half-way: each principal direction is divided by the root of its deviation.

    An LLM's states lie in a narrow cone: a few directions, common to all texts, hold most of the
    variance and say little about any one (Ethayarajh, 2019). Full whitening (Su et al., 2021)
    divides by the deviation itself and lifts the noise of the last directions as high as the first;
    half of it, in the exponent, does not.

    Args:
        vectors: Array `(n, dim)`.

    Returns:
        float32 array `(n, dim)` of unit rows, in the basis of the principal directions.
    """
    rows = center_rows(vectors)
    rows = rows - rows.mean(axis=0)
    variance, directions = np.linalg.eigh(rows.T.astype(np.float64) @ rows / len(rows))
    # Directions that no text varies in are rounding noise: left out, not divided by.
    kept = variance > variance[-1] * 1e-7
    scale = variance[kept] ** -0.25
    return normalize_rows((rows @ directions[:, kept]) * scale).astype(np.float32)


def blend(vectors: np.ndarray, states: np.ndarray, weight: float) -> np.ndarray:
    """Put two spaces of unit rows side by side, so that their cosines add up as 1 to `weight`.

    Returns:
        Array `(n, dim + state_dim)` of unit rows.
    """
    return normalize_rows(np.hstack([vectors, np.float32(weight) ** 0.5 * states]))


def smooth(vectors: np.ndarray, n_neighbors: int, share: float = 0.5) -> np.ndarray:
    """Move each row towards the mean of its nearest neighbours.

    One step of diffusion on the neighbour graph: what a text's neighbours agree on stays, what is
    its own (length, names, wording) averages out.

    Args:
        vectors: Array `(n, dim)` of unit rows.
        n_neighbors: How many; the row itself counts too, so that the mean is over one more.
        share: How far towards them, 0 to 1.

    Returns:
        Array `(n, dim)` of unit rows.
    """
    n_neighbors = min(n_neighbors, len(vectors) - 1)
    if n_neighbors < 1:
        return vectors
    index = NearestNeighbors(n_neighbors=n_neighbors + 1, algorithm="brute").fit(vectors)
    moved = np.empty_like(vectors)
    for start in range(0, len(vectors), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        near = index.kneighbors(vectors[rows], return_distance=False)
        moved[rows] = (1 - share) * vectors[rows] + share * normalize_rows(vectors[near].mean(axis=1))
    return normalize_rows(moved)


def measure_stability(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Measure how alike clusterings from different starts are: high where clusters really exist.

    k-means with one start each, at a third, once and twice the root of n clusters (the number of
    classes is not known here); NMI between each two of `N_STABILITY_SEEDS` starts. Source of the
    criterion: von Luxburg, 2010, "Clustering Stability: An Overview".

    Args:
        vectors: Array `(n, dim)`, n at least 9.
        seed: First of the seeds.

    Returns:
        One mean NMI, 0 to 1, a number of clusters: `(3,)`.
    """
    rows = vectors - vectors.mean(axis=0)
    if rows.shape[1] > STABILITY_DIM:  # a few times faster, and the same answer
        rows = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -STABILITY_DIM:]
    root = len(rows) ** 0.5
    seeding = Seeding(rows)
    return np.array(
        [_agree(rows, seeding, n_clusters, seed) for n_clusters in (max(2, int(root / 3)), int(root), int(2 * root))]
    )


def _agree(rows: np.ndarray, seeding: Seeding, n_clusters: int, seed: int) -> float:
    n_clusters = min(n_clusters, len(rows) - 1)
    with threadpool_limits(1):  # see clustering.cluster_vectors
        clusterings = [
            KMeans(n_clusters, init=seeding, n_init=1, max_iter=50, random_state=seed + i).fit_predict(rows)
            for i in range(N_STABILITY_SEEDS)
        ]
    pairs = [(one, other) for i, one in enumerate(clusterings) for other in clusterings[:i]]
    return float(np.mean([normalized_mutual_info_score(one, other) for one, other in pairs]))
