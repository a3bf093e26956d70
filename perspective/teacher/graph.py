"""Diffusion of vectors over a graph of neighbours on which the embedder and the LLM agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perspective.clustering.neighbors import find_neighbors
from perspective.vectors import normalize_rows

if TYPE_CHECKING:
    from scipy import sparse

# Chosen on the tuning sets; all are flat around these values.
MIN_NEIGHBORS, MAX_NEIGHBORS = 3, 10
TEXTS_PER_NEIGHBOR = 36  # of the square root: 3 neighbours for 300 texts, 10 for 3,600 and more
CANDIDATES_PER_NEIGHBOR = 6
SHARPNESS = 4  # power of the similarities: weaker neighbours count less
SHARE = 0.9  # of the neighbours against the vector itself
N_STEPS = 10

ROWS_AT_A_TIME = 2048
COLUMNS_AT_A_TIME = 64


def count_neighbors(n_texts: int) -> int:
    """Return the number of neighbours: few for few texts, whose classes are small.

    >>> [count_neighbors(n) for n in (9, 300, 1000, 10**6)]
    [3, 3, 5, 10]
    """
    return int(np.clip(round((n_texts / TEXTS_PER_NEIGHBOR) ** 0.5), MIN_NEIGHBORS, MAX_NEIGHBORS))


def connect_neighbors(
    candidates_by: np.ndarray, vectors: np.ndarray, states: np.ndarray | None, weight: float
) -> sparse.csr_matrix:
    """Connect each text with the candidates that embedder and LLM together rank highest.

    The nearest rows of `candidates_by` are the candidates of a text. An LLM whose states group the texts by
    something else can only choose among them, so the harm that it can do is bounded.

    Args:
        candidates_by: Unit rows `(n_texts, any)` in which candidates are searched.
        vectors: Unit rows of the embedder `(n_texts, dim)`.
        states: Unit rows of the LLM `(n_texts, state_dim)`; None for a graph without an LLM.
        weight: Weight of the LLM's cosines against the embedder's.

    Returns:
        Symmetric matrix `(n_texts, n_texts)` of similarities, normalised by the square roots of the degrees.
    """
    from scipy import sparse

    n_texts = len(vectors)
    n_neighbors = min(count_neighbors(n_texts), n_texts - 1)
    n_candidates = min(CANDIDATES_PER_NEIGHBOR * n_neighbors, n_texts - 1)
    candidates = find_neighbors(candidates_by, n_candidates + 1)
    weight = 0.0 if states is None else weight
    chosen = np.empty((n_texts, n_neighbors), dtype=np.int32)
    similarities = np.empty((n_texts, n_neighbors), dtype=np.float32)
    for start in range(0, n_texts, ROWS_AT_A_TIME):
        rows = np.arange(start, min(start + ROWS_AT_A_TIME, n_texts))
        found = candidates[rows]
        agreement = _compute_cosines(vectors, rows, found)
        if states is not None:
            agreement += weight * _compute_cosines(states, rows, found)
        agreement[found == rows[:, None]] = -np.inf  # not the text itself
        best = np.argpartition(-agreement, n_neighbors - 1, axis=1)[:, :n_neighbors]
        chosen[rows] = np.take_along_axis(found, best, axis=1)
        similarities[rows] = np.take_along_axis(agreement, best, axis=1) / (1 + weight)
    # Copies of a text can push the text itself out of its own candidates: then all entries are finite.
    values = np.clip(similarities, 1e-6, None) ** SHARPNESS
    pointers = np.arange(0, n_texts * n_neighbors + 1, n_neighbors)
    graph = sparse.csr_matrix((values.ravel(), chosen.ravel(), pointers), shape=(n_texts, n_texts))
    graph = graph.maximum(graph.T).tocsr()
    scale = sparse.diags_array(np.asarray(graph.sum(axis=1)).ravel().astype(np.float32) ** -0.5)
    return (scale @ graph @ scale).tocsr()


def _compute_cosines(vectors: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the products of each row with its others, `(n_rows, n_others)`."""
    return np.stack([vectors[of_row] @ vectors[row] for row, of_row in zip(rows, others, strict=True)])


def diffuse(vectors: np.ndarray, graph: sparse.csr_matrix) -> np.ndarray:
    """Replace each row by a mean of itself and of the texts that short walks over the graph reach.

    `N_STEPS` steps of z <- (1 - `SHARE`) x + `SHARE` A z: personalised PageRank as in Gasteiger et al., 2019,
    "Predict then Propagate" (arXiv:1810.05997). What neighbours have in common is kept; what is specific
    to one text (length, names, wording) is averaged out.

    Args:
        vectors: float32 array `(n_texts, dim)`.
        graph: From `connect_neighbors`.

    Returns:
        Unit rows, float32 `(n_texts, dim)`.
    """
    result = np.empty_like(vectors)
    for start in range(0, vectors.shape[1], COLUMNS_AT_A_TIME):  # bounds memory
        columns = slice(start, start + COLUMNS_AT_A_TIME)
        initial = np.ascontiguousarray(vectors[:, columns])
        rows = initial
        for _ in range(N_STEPS):
            rows = (1 - SHARE) * initial + SHARE * (graph @ rows)
        result[:, columns] = rows
    return normalize_rows(result)
