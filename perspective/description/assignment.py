"""Assign texts to clusters by the nearest centre; tell which texts belong to none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perspective.clustering.distances import square_distances, square_lengths
from perspective.description.files import Anchors, Assignment
from perspective.description.records import NOWHERE
from perspective.vectors import normalize_rows

ROWS_AT_A_TIME = 16_384  # with 150 clusters and 384 dimensions: 35 MB
# Interquartile ranges below the lower quartile. With 1.5, as in box plots, one in ten texts of a class that no cluster
# is about is recognised; with 0.5, a third to two thirds, at the price of one in eight texts of known classes.
FENCE = 0.5


def assign_vectors(vectors: np.ndarray, anchors: Anchors, own_clusters: np.ndarray | None = None) -> Assignment:
    """Assign each vector to the cluster of the nearest anchor, a block of rows at a time.

    The confidence is that of the simplified silhouette (Hruschka et al., 2004), 1 - a / b, where a is the
    distance to the nearest anchor of the text's cluster and b that to the nearest anchor of another one: 0 on
    the border, 1 in the centre, and 0 for a text that is nearer to another cluster than to its own.

    Args:
        vectors: Array `(n_texts, dim)`, of any length; may be memory-mapped.
        anchors: Centres with their cluster ids.
        own_clusters: Clusters of the texts, `(n_texts,)`, to compute only confidence and outliers.

    Returns:
        Clusters, confidence, and as outliers the texts whose cosine to the nearest anchor is too low.
    """
    n_texts = len(vectors)
    cluster, confidence = np.empty(n_texts, np.int64), np.empty(n_texts, np.float32)
    outlier = np.empty(n_texts, bool)
    squares, lengths = square_lengths(anchors.centers), np.linalg.norm(anchors.centers, axis=1)
    lengths = np.maximum(lengths, np.finfo(np.float32).tiny)
    for rows in _blocks(n_texts):
        unit = normalize_rows(np.asarray(vectors[rows], dtype=np.float32))
        distances = square_distances(unit, anchors.centers, squares)
        nearest = distances.argmin(axis=1)
        own = anchors.ids[nearest] if own_clusters is None else own_clusters[rows]
        cosines = np.einsum("ij,ij->i", unit, anchors.centers[nearest]) / lengths[nearest]
        is_own = anchors.ids == own[:, None]
        to_own = np.sqrt(np.where(is_own, distances, np.inf).min(axis=1))
        to_other = np.sqrt(np.where(is_own, np.inf, distances).min(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = 1 - to_own / to_other  # inf where there is no other cluster
        share[(to_own == 0) & (to_other == 0)] = 0  # two clusters with one centre
        share[own == NOWHERE] = 0
        cluster[rows], confidence[rows], outlier[rows] = own, np.clip(share, 0, 1), cosines < anchors.outlier_cosine
    return Assignment(cluster, confidence, outlier)


def find_outlier_cosine(unit: np.ndarray, centers: np.ndarray, place: np.ndarray) -> float:
    """Return the cosine to the nearest centre below which a text belongs nowhere.

    It lies below most of the texts' cosines to their centres, as the lower fence of a box plot does. A text takes
    part in its own centre, which a new text does not: it is left out of it.

    Args:
        unit: Unit rows `(n_texts, dim)`.
        centers: Means of the rows of each cluster.
        place: `(n_texts,)` row of each text's centre; negative for a text without one.
    """
    sizes = np.bincount(place[place >= 0], minlength=len(centers))
    cosines = []
    for rows in _blocks(len(unit)):
        own = place[rows]
        kept = (own >= 0) & (sizes[own] > 1)
        own, block = own[kept], unit[rows][kept]
        others = centers[own] * sizes[own][:, None] - block
        cosines.append(np.einsum("ij,ij->i", block, normalize_rows(others)))
    all_cosines = np.concatenate(cosines)
    if not len(all_cosines):
        return -1.0
    low, high = np.quantile(all_cosines, [0.25, 0.75])
    # Rounding must not make texts outliers that are all equal.
    return float(np.clip(low - FENCE * (high - low) - 1e-4, -1, 1))


def _blocks(n_texts: int) -> Iterator[slice]:
    for start in range(0, n_texts, ROWS_AT_A_TIME):
        yield slice(start, start + ROWS_AT_A_TIME)
