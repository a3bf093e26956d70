"""Distances by matrix products."""

from __future__ import annotations

import numpy as np


def square_distances(rows: np.ndarray, others: np.ndarray, squares: np.ndarray | None = None) -> np.ndarray:
    """Return the squared Euclidean distances `(len(rows), len(others))`, in the vectors' precision.

    Args:
        rows: Array `(n, dim)`.
        others: Array `(m, dim)`.
        squares: The squared lengths of the others, `(m,)`, where they are known.
    """
    distances = rows @ others.T
    distances *= -2
    distances += square_lengths(others) if squares is None else squares
    distances += square_lengths(rows)[:, None]
    return np.maximum(distances, 0, out=distances)  # rounding can leave less than nothing


def square_lengths(rows: np.ndarray) -> np.ndarray:
    """Return the squared length of each row, `(n,)`."""
    return np.einsum("ij,ij->i", rows, rows)
