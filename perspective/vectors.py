"""Vector operations without labels: centring, whitening, blending, principal directions, margins of triplets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perspective.artifacts import Triplet, stack_rows


def normalize_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; a row of zeros is unchanged."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)


def center_rows(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean row, then scale each row to length 1."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return normalize_rows(vectors - vectors.mean(axis=0))


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
    rows = center_rows(vectors)
    rows = rows - rows.mean(axis=0)
    variance, directions = np.linalg.eigh(rows.T.astype(np.float64) @ rows / len(rows))
    # Directions without variance are rounding noise: left out, not scaled up.
    kept = variance > variance[-1] * 1e-7
    scale = variance[kept] ** -0.25
    return normalize_rows((rows @ directions[:, kept]) * scale).astype(np.float32)


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
    return (vectors - vectors.mean(axis=0)) @ find_directions(vectors, dim)


def find_directions(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Return the first principal directions as columns, `(any, at most dim)`, the strongest first."""
    rows = vectors - vectors.mean(axis=0)
    return np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :dim]


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
