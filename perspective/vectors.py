"""Spaces of vectors: whitened, side by side, smoothed, and how stably they cluster. No label is seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perspective.artifacts import Triplet, stack_rows

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
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=n_neighbors + 1, algorithm="brute").fit(vectors)
    moved = np.empty_like(vectors)
    for start in range(0, len(vectors), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        near = index.kneighbors(vectors[rows], return_distance=False)
        moved[rows] = (1 - share) * vectors[rows] + share * normalize_rows(vectors[near].mean(axis=1))
    return normalize_rows(moved)


def score_margins(vectors: np.ndarray, triplets: Sequence[Triplet]) -> np.ndarray:
    """Return by how much choice 1 is nearer to the query than choice 2.

    Args:
        vectors: `(n_texts, dim)` of any length; a zero vector is equally far from all.
        triplets: n triplets of its rows.

    Returns:
        `(n,)`: cos(query, choice 1) - cos(query, choice 2), -2 to 2.
    """
    rows = stack_rows(triplets)
    query, choice1, choice2 = (normalize_rows(np.asarray(vectors)[rows[:, i]].astype(np.float64)) for i in range(3))
    return (query * (choice1 - choice2)).sum(axis=1)
