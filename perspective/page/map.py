"""A map of the texts in two dimensions, before and after the embedder was adapted.

The map is t-SNE (van der Maaten and Hinton, 2008) by openTSNE. The map after starts from the map before: a text
that did not change its neighbours stays where it was, so that the two can be compared by eye. Of many texts t-SNE
places a random sample, and each other text goes among its nearest of these, where Kobak and Berens (2019) let it start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perspective.clustering.neighbors import ROWS_AT_A_TIME, find_neighbors
from perspective.errors import DataError, require_least
from perspective.options import option
from perspective.vectors import center_rows, normalize_rows, sample_rows

if TYPE_CHECKING:
    from openTSNE.affinity import Affinities

SEED = 0
N_KEPT_DIM = 50  # principal components; as usual before t-SNE
PERPLEXITY = 30
N_NEIGHBORS = 10
MIN_TEXTS = 10  # with fewer there are no neighbourhoods to keep: the first two principal components
# Of the map before, openTSNE's own defaults: first with attraction exaggerated, then without. The map after starts from
# the map before and needs fewer of the first. From a start that is scaled down, as t-SNE usually begins, a text of
# stackexchange would move by 0.87 of the map's radius, not by 0.33, and 54% of its neighbours be kept, not 49%.
N_EXAGGERATED, N_EXAGGERATED_AFTER, N_ITERATIONS = 250, 50, 500
# By the tree (Barnes-Hut): for 4,500 texts in a sixth of the time of Fourier transforms, to a lower divergence.
MAX_OPTIMISED = 20_000
N_ANCHORS = 5  # whose median place another text gets
COLUMNS = 5


@dataclass(frozen=True)
class MapSettings:
    """How many texts the map shows."""

    map_texts: int = option("texts on the map at most; of more, a random sample is drawn", default=100_000)

    def __post_init__(self) -> None:
        """Check values."""
        require_least(self, map_texts=2)


@dataclass(frozen=True)
class TextMap:
    """Where texts are on the map.

    Attributes:
        rows: `(n_shown,)` rows of the texts that it shows, ascending.
        before: `(n_shown, 2)`.
        after: `(n_shown, 2)`; equal to `before` where the embedder did not change.
        kept: `(n_shown,)` share of a text's nearest neighbours before that are among them after, 0 to 1.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    kept: np.ndarray

    def to_array(self, n_texts: int) -> np.ndarray:
        """Return it as it is written: before, after, kept; NaN in the rows of texts that it does not show."""
        array = np.full((n_texts, COLUMNS), np.nan, dtype=np.float32)
        array[self.rows] = np.column_stack([self.before, self.after, self.kept])
        return array


def read_map(path: Path, n_texts: int) -> TextMap:
    """Read a map.

    Raises:
        DataError: The file is no map, or of other texts.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole .npy array ({str(error):.160}); run draw_map.sh --overwrite") from None
    if array.shape != (n_texts, COLUMNS) or array.dtype.kind != "f":
        found = f"{array.dtype} {array.shape}"
        raise DataError(
            f"{path}: a map of {n_texts} texts has shape ({n_texts}, {COLUMNS}), found {found}; "
            "run draw_map.sh --overwrite"
        )
    rows = np.flatnonzero(np.isfinite(array).all(axis=1))
    if not len(rows):
        raise DataError(f"{path}: shows no text; run draw_map.sh --overwrite")
    shown = array[rows]
    return TextMap(rows, shown[:, :2], shown[:, 2:4], shown[:, 4])


def draw_map(before: np.ndarray, after: np.ndarray, settings: MapSettings) -> TextMap:
    """Place the texts on a plane, twice.

    Args:
        before: Vectors of the embedder before fine-tuning, `(n_texts, dim)`.
        after: Vectors of the fine-tuned embedder, `(n_texts, any)`.
        settings: How many texts it shows.
    """
    rows = sample_rows(len(before), settings.map_texts)
    before, after = before[rows], after[rows]
    neighbors, positions = _place(before, None)
    if np.array_equal(before, after):
        return TextMap(rows, positions, positions.copy(), np.ones(len(rows)))
    neighbors_after, positions_after = _place(after, positions)
    return TextMap(rows, positions, positions_after, share_kept(neighbors, neighbors_after))


def share_kept(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the share of each row's neighbours that are in both arrays of neighbours, `(n_texts,)`.

    >>> share_kept(np.array([[1, 2]]), np.array([[2, 3]])).tolist()
    [0.5]
    """
    if before.shape[1] == 0:
        return np.ones(len(before))
    return (before[:, :, None] == after[:, None, :]).any(axis=2).mean(axis=1)


def _place(vectors: np.ndarray, start: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the neighbours `(n_texts, at most N_NEIGHBORS)` and the positions `(n_texts, 2)` of texts."""
    from sklearn.decomposition import PCA

    rows = center_rows(vectors)
    if float(rows.var(axis=0).sum()) < 1e-8:  # all equal: every direction is rounding noise
        return np.zeros((len(rows), 0), dtype=np.int64), _spread_in_a_disc(len(rows))
    n_kept = min(N_KEPT_DIM, *rows.shape)
    rows = PCA(n_kept, svd_solver="covariance_eigh").fit_transform(rows.astype(np.float64))
    if len(rows) < MIN_TEXTS:
        plane = np.zeros((len(rows), 2))
        plane[:, : min(2, n_kept)] = rows[:, :2]
        return np.zeros((len(rows), 0), dtype=np.int64), plane if start is None else _turn_towards(plane, start)
    anchors = sample_rows(len(rows), MAX_OPTIMISED)
    neighbors, affinities = _find_neighbors(rows[anchors])
    placed = _optimise(affinities, rows[anchors], None if start is None else start[anchors])
    if len(anchors) == len(rows):
        return neighbors[:, :N_NEIGHBORS], placed
    unit = normalize_rows(rows).astype(np.float32)
    return find_neighbors(unit, N_NEIGHBORS + 1)[:, 1:], _place_among(unit, anchors, placed)


def _place_among(unit: np.ndarray, anchors: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """Return places `(n_texts, 2)`: of the anchors their own, of each other text the median of its nearest anchors'.

    Args:
        unit: Unit rows `(n_texts, dim)`.
        anchors: Rows of the texts that have places.
        placed: Their places `(n_anchors, 2)`.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=N_ANCHORS, algorithm="brute").fit(unit[anchors])
    places = np.empty((len(unit), 2))
    for start in range(0, len(unit), ROWS_AT_A_TIME):
        nearest = index.kneighbors(unit[start : start + ROWS_AT_A_TIME], return_distance=False)
        places[start : start + ROWS_AT_A_TIME] = np.median(placed[nearest], axis=1)
    places[anchors] = placed
    return places


def _find_neighbors(rows: np.ndarray) -> tuple[np.ndarray, Affinities]:
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import Annoy, PrecomputedNeighbors

    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    n_neighbors = min(len(rows) - 1, int(3 * perplexity))
    # One thread: with another number the index is another.
    neighbors, distances = Annoy(rows, k=n_neighbors, metric="euclidean", n_jobs=1, random_state=SEED).build()
    found = PrecomputedNeighbors(neighbors, distances)
    return neighbors, PerplexityBasedNN(knn_index=found, perplexity=perplexity, n_jobs=-1)


def _optimise(affinities: Affinities, rows: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    from openTSNE import TSNEEmbedding, initialization

    n_exaggerated = N_EXAGGERATED if start is None else N_EXAGGERATED_AFTER
    if start is None:
        first = rows[:, :2] if rows.shape[1] > 1 else np.column_stack([rows, np.zeros(len(rows))])
        start = initialization.rescale(first)
    start = initialization.jitter(start, random_state=SEED)  # equal texts need different places to part from
    embedding = TSNEEmbedding(start, affinities, n_jobs=-1, random_state=SEED, negative_gradient_method="bh")
    embedding = embedding.optimize(n_exaggerated, exaggeration=12, momentum=0.5)
    return np.asarray(embedding.optimize(N_ITERATIONS, momentum=0.8))


def _turn_towards(plane: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rotate or mirror positions so that they are as near to others as they can be."""
    from scipy.linalg import orthogonal_procrustes

    return plane @ orthogonal_procrustes(plane, other - other.mean(axis=0))[0]


def _spread_in_a_disc(n_texts: int) -> np.ndarray:
    """Return places for texts that nothing tells apart: evenly in a disc, as sunflower seeds are."""
    seeds = np.arange(n_texts) + 0.5
    angle = np.pi * (1 + 5**0.5) * seeds
    return np.sqrt(seeds / n_texts)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
