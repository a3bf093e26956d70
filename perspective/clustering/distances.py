"""Distances by matrix products."""

from __future__ import annotations

import numpy as np


def square_distances(rows: np.ndarray, others: np.ndarray, squares: np.ndarray | None = None) -> np.ndarray:
    """Return the squared Euclidean distances `(n, m)`, in the precision of the vectors.

    Args:
        rows: Array `(n, dim)`.
        others: Array `(m, dim)`.
        squares: Squared lengths of the others, `(m,)`, if already computed.
    """
    distances = rows @ others.T
    distances *= -2
    distances += square_lengths(others) if squares is None else squares
    distances += square_lengths(rows)[:, None]
    return np.maximum(distances, 0, out=distances)  # rounding can give small negative values


def square_lengths(rows: np.ndarray) -> np.ndarray:
    """Return the squared length of each row, `(n,)`."""
    return np.einsum("ij,ij->i", rows, rows)
