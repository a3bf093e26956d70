"""Vector operations without labels: centring, whitening, blending, principal directions, margins of triplets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from perspective.artifacts import Triplet, stack_rows
from perspective.artifacts.reading import forget_pages

MAX_COPIES = 0.02  # of all rows, up to which nothing changes that can be measured
MIN_DISTINCT = 9  # rows, fewer of which make no teacher
ROWS_AT_A_TIME = 2**16  # bounds memory beyond arguments and results; fewer rows are one chunk


def sample_rows(n_rows: int, n_kept: int, seed: int = 0) -> np.ndarray:
    """Return row numbers in ascending order: all, or a random sample without repetition.

    >>> sample_rows(3, 10).tolist(), sample_rows(6, 3).tolist()
    ([0, 1, 2], [3, 4, 5])
    """
    if n_rows <= n_kept:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_kept, replace=False))


def find_distinct(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray] | tuple[slice, slice]:
    """Return the first row of each of the distinct rows, and for every row the position of its own among these.

    Copies of a text are one another's nearest neighbours, and say nothing about other texts. Slices of all rows are
    returned where so few are copies that it makes no difference, or nearly all.

    >>> rows = np.repeat(np.eye(12), 2, axis=0)
    >>> first, position = find_distinct(rows)
    >>> first[:3], position[:6], find_distinct(rows[::2])
    (array([0, 2, 4]), array([0, 0, 1, 1, 2, 2]), (slice(None, None, None), slice(None, None, None)))
    """
    hashes = np.empty(len(vectors), dtype=np.int64)
    for rows in _chunks(len(vectors)):
        hashes[rows] = [hash(row.tobytes()) for row in np.asarray(vectors[rows])]
        forget_pages(vectors)
    _, found, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    if not MIN_DISTINCT <= len(found) < (1 - MAX_COPIES) * len(vectors):
        return slice(None), slice(None)
    order = np.argsort(found)
    return found[order], np.argsort(order)[inverse]


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; a row of zeros is unchanged."""
    result = np.empty(vectors.shape, dtype=np.result_type(vectors.dtype, np.float32))
    for rows in _chunks(len(vectors)):
        lengths = np.linalg.norm(vectors[rows], axis=1, keepdims=True)
        np.divide(vectors[rows], np.maximum(lengths, np.finfo(np.float32).tiny), out=result[rows])
    return result


def center_rows(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean row, then scale each row to length 1."""
    vectors = np.asarray(vectors, dtype=np.float32)
    mean, result = vectors.mean(axis=0), np.empty_like(vectors)
    for rows in _chunks(len(vectors)):
        result[rows] = normalize_rows(vectors[rows] - mean)
        forget_pages(vectors)
    return result


def average_by_cluster(vectors: np.ndarray, clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return the mean row of each cluster, `(n_clusters, dim)`; no cluster may be empty."""
    order = np.argsort(clusters, kind="stable")
    starts = np.searchsorted(clusters[order], np.arange(n_clusters))
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    return sums / np.bincount(clusters, minlength=n_clusters)[:, None].astype(vectors.dtype)


def half_whiten(vectors: np.ndarray) -> np.ndarray:
    """Whiten by half: divide each principal direction by the square root of its standard deviation.

    Hidden states of LLMs are anisotropic: a few directions hold most of the variance and carry
    little information about single texts (Ethayarajh, 2019). Full whitening (Su et al., 2021)
    divides by the standard deviation itself and scales up the noise of the last directions as much;
    half the exponent does not.

    Args:
        vectors: Array `(n, dim)`.

    Returns:
        float32 array `(n, dim)` of unit rows, in the basis of the principal directions.
    """
    centered = center_rows(vectors)
    mean = centered.mean(axis=0)
    products = np.zeros((centered.shape[1],) * 2)
    for rows in _chunks(len(centered)):
        part = centered[rows] - mean
        products += part.T.astype(np.float64) @ part
    variance, directions = np.linalg.eigh(products / len(centered))
    # Directions without variance are rounding noise: left out, not scaled up.
    kept = variance > variance[-1] * 1e-7
    scale = variance[kept] ** -0.25
    result = centered[:, : kept.sum()]  # written over, chunk by chunk
    for rows in _chunks(len(centered)):
        result[rows] = normalize_rows(((centered[rows] - mean) @ directions[:, kept]) * scale)
    return np.ascontiguousarray(result)


def blend(vectors: np.ndarray, states: np.ndarray, weight: float) -> np.ndarray:
    """Concatenate two spaces of unit rows; their cosines add up with weights 1 and `weight`.

    Returns:
        Array `(n, dim + state_dim)` of unit rows.
    """
    return normalize_rows(np.hstack([vectors, np.float32(weight) ** 0.5 * states]))


def keep_directions(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Centre rows and project them on their first principal directions.

    Args:
        vectors: Array `(n, any)`.
        dim: Number of directions; fewer if there are fewer.

    Returns:
        Array `(n, at most dim)`, the strongest direction first.
    """
    return _project(lambda rows: vectors[rows], len(vectors), dim)


def blend_directions(vectors: np.ndarray, states: np.ndarray, weight: float, dim: int) -> np.ndarray:
    """Return `keep_directions(blend(vectors, states, weight), dim)`, in memory for the result only."""
    return _project(lambda rows: blend(vectors[rows], states[rows], weight), len(vectors), dim)


def _project(read: Callable[[slice], np.ndarray], n_rows: int, dim: int) -> np.ndarray:
    chunks = _chunks(n_rows)
    mean = sum(read(rows).mean(axis=0) * ((rows.stop - rows.start) / n_rows) for rows in chunks)
    products = sum(part.T @ part for part in (read(rows) - mean for rows in chunks))
    directions = np.linalg.eigh(products)[1][:, ::-1][:, :dim]
    result = np.empty((n_rows, directions.shape[1]), dtype=directions.dtype)
    for rows in chunks:
        result[rows] = (read(rows) - mean) @ directions
    return result


def _chunks(n_rows: int) -> list[slice]:
    return [slice(start, min(start + ROWS_AT_A_TIME, n_rows)) for start in range(0, n_rows, ROWS_AT_A_TIME)]


def find_nearer_choices(vectors: np.ndarray, triplets: Sequence[Triplet]) -> np.ndarray:
    """Return whether choice 1 is nearer to the query than choice 2 by Euclidean distance, as published.

    Args:
        vectors: `(n_texts, dim)`.
        triplets: n triplets of row numbers.

    Returns:
        Boolean array `(n,)`; a tie goes to choice 2.
    """
    rows = stack_rows(triplets)
    to_choice1, to_choice2 = (((vectors[rows[:, 0]] - vectors[rows[:, i]]) ** 2).sum(axis=1) for i in (1, 2))
    return to_choice1 < to_choice2


def score_margins(vectors: np.ndarray, triplets: Sequence[Triplet]) -> np.ndarray:
    """Return how much nearer choice 1 is to the query than choice 2.

    Args:
        vectors: `(n_texts, dim)`, not necessarily of unit length; a zero vector has cosine 0 with all.
        triplets: n triplets of row numbers.

    Returns:
        `(n,)`: cos(query, choice 1) - cos(query, choice 2), -2 to 2.
    """
    rows = stack_rows(triplets)
    query, choice1, choice2 = (normalize_rows(np.asarray(vectors)[rows[:, i]].astype(np.float64)) for i in range(3))
    return (query * (choice1 - choice2)).sum(axis=1)
