"""Uncertain queries to triplets: ClusterLLM (Zhang et al., 2023), section 3.1.

Everything here works on vectors alone; texts and labels are not needed.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from perspective.artifacts import Triplet
from perspective.errors import DataError, NothingToSample
from perspective.options import OverwriteOptions, option
from perspective.vectors import normalize_rows

if TYPE_CHECKING:
    from perspective.triplets.uncertainty import Uncertainty

logger = logging.getLogger(__name__)

N_CLOSEST = 5  # members of a cluster that "nearest" chooses among


@dataclass(frozen=True)
class SampledOptions(OverwriteOptions):
    """Where sampled triplets are written."""

    out_dir: str | None = option("folder; default sampled_triplet_results", default=None, group="output")


@dataclass(frozen=True)
class SampleSettings:
    """How triplets are drawn; the defaults are those of the published run."""

    max_query: int = option("number of triplets", default=1024)
    seed: int = option("of every random draw", default=100)
    large_ent_prop: float = option("fraction of the texts, the most uncertain ones, that become queries", default=0.2)
    filter_first_prop: float = option("fraction of the texts to leave out at the uncertain end", default=0.0)
    close_cluster_prop: float = option(
        "fraction of the clusters that count as near (at least two clusters)", default=0.02
    )
    max_distance: float | None = option(
        "distance threshold of the agglomerative clustering; default 77 * sqrt(dim / 1024)", default=None
    )
    shuffle_inds: bool = option("visit the queries in random order", default=True)
    choices: Literal["random", "nearest"] = option(
        "random members of near clusters (published), or nearest: those most like the query in its two "
        "nearest clusters, so that more questions have a right answer",
        default="random",
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        check_max_query(self.max_query)
        if not 0 <= self.filter_first_prop < self.large_ent_prop <= 1:
            raise DataError(
                f"--filter_first_prop {self.filter_first_prop} and --large_ent_prop {self.large_ent_prop}: "
                "need 0 <= first < large <= 1"
            )
        if not 0 < self.close_cluster_prop <= 1:
            raise DataError(f"--close_cluster_prop {self.close_cluster_prop}: must be above 0, at most 1")
        if self.choices not in ("random", "nearest"):  # from Python; the command line refuses it itself
            raise DataError(f"choices={self.choices!r}: expected random or nearest")
        if self.max_distance is not None and not self.max_distance > 0:
            raise DataError(f"--max_distance {self.max_distance}: must be above 0")


def check_max_query(max_query: int) -> None:
    """Refuse a number of triplets that is not positive."""
    if max_query < 1:
        raise DataError(f"--max_query {max_query}: must be at least 1")


def sample_triplets(
    vectors: np.ndarray, settings: SampleSettings, scale: str = "small"
) -> tuple[list[Triplet], Uncertainty]:
    """Draw triplets where the embedder is most uncertain.

    Args:
        vectors: Array `(n_texts, dim)`, n_texts at least 3.
        settings: How many and how.
        scale: As in `measure_uncertainty`.

    Returns:
        At most `max_query` triplets without a repeated question, and the clustering's uncertainty.

    Raises:
        NothingToSample: There are too few texts, or all fall into one cluster.
    """
    from perspective.triplets.uncertainty import measure_uncertainty, select_uncertain_queries

    uncertainty = measure_uncertainty(vectors, settings.max_distance, settings.close_cluster_prop, settings.seed, scale)
    queries = select_uncertain_queries(uncertainty.entropy, settings.filter_first_prop, settings.large_ent_prop)
    rng = np.random.default_rng(settings.seed)
    if settings.shuffle_inds:
        queries = rng.permutation(queries)
    members = _Members(uncertainty.clusters)
    near = uncertainty.near_clusters[queries]
    if settings.choices == "nearest":
        queries, near, members = _keep_closest(vectors, queries, near[:, :2], members)
    rows = _draw_from_clusters(queries, near, members, settings.max_query, rng)
    return _order_choices(rows, rng), uncertainty


def sample_random_triplets(n_texts: int, max_query: int, seed: int) -> list[Triplet]:
    """Draw triplets uniformly, the control: no text and no question is repeated within them.

    Raises:
        DataError: There are fewer than three texts.
    """
    check_max_query(max_query)
    if n_texts < 3:
        raise DataError(f"{n_texts} texts: a triplet needs three")
    rng = np.random.default_rng(seed)
    if n_texts * math.comb(n_texts - 1, 2) < 2 * max_query:
        pairs = itertools.combinations(range(n_texts), 2)
        rows = [(query, *pair) for pair in pairs for query in range(n_texts) if query not in pair]
        return _order_choices(_cut(rng.permutation(rows), max_query), rng)
    return _order_choices(_draw_distinct(lambda: rng.integers(n_texts, size=(max_query, 3)), max_query), rng)


class _Members:
    """The rows of each cluster, laid out so that many can be drawn at once."""

    def __init__(self, clusters: np.ndarray) -> None:
        self.clusters = clusters
        self.rows = np.argsort(clusters, kind="stable")
        self.counts = np.bincount(clusters)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def of(self, cluster: int) -> np.ndarray:
        return self.rows[self.starts[cluster] : self.starts[cluster] + self.counts[cluster]]

    def draw(self, clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.rows[self.starts[clusters] + rng.integers(self.counts[clusters])]

    def count_triplets(self, queries: np.ndarray, near: np.ndarray) -> int:
        """Count the pairs of other texts from two different near clusters, over all queries."""
        sizes = self.counts[near] - (near == self.clusters[queries][:, None])  # (n_queries, n_near)
        return int((sizes.sum(axis=1) ** 2 - (sizes**2).sum(axis=1)).sum() // 2)


class _Closest(_Members):
    """A group of rows for each query and near cluster: the members most like the query."""

    def __init__(self, groups: Sequence[np.ndarray]) -> None:
        self.rows = np.concatenate(groups)
        self.counts = np.array([len(group) for group in groups])
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def count_triplets(self, queries: np.ndarray, near: np.ndarray) -> int:
        """Count the pairs over all queries; no group holds its own query."""
        return int(self.counts[near].prod(axis=1).sum())


def _keep_closest(
    vectors: np.ndarray, queries: np.ndarray, near: np.ndarray, members: _Members
) -> tuple[np.ndarray, np.ndarray, _Members]:
    """Make a group of each query's closest members in either cluster.

    Returns:
        The queries that have a choice in both, their groups' numbers `(n_queries, 2)`, the groups.
    """
    unit = normalize_rows(vectors)
    groups = []
    for query, clusters in zip(queries.tolist(), near.tolist(), strict=True):
        for cluster in clusters:
            others = members.of(cluster)
            others = others[others != query]
            closest = np.argsort(-(unit[others] @ unit[query]), kind="stable")[:N_CLOSEST]
            groups.append(others[closest])
    numbers = np.arange(len(groups)).reshape(-1, 2)
    kept = np.array([len(groups[one]) > 0 and len(groups[two]) > 0 for one, two in numbers], dtype=bool)
    return queries[kept], numbers[kept], _Closest(groups)


def _draw_from_clusters(
    queries: np.ndarray, near: np.ndarray, members: _Members, max_query: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw rows (query, choice, choice), round after round over the queries.

    Where nearly all that exist are asked for, they are listed instead, so that this always ends.
    """
    n_existing = members.count_triplets(queries, near)
    if n_existing == 0:
        raise NothingToSample("no triplet exists: every near cluster holds the query alone")
    if n_existing < 2 * max_query:
        return _list_triplets(queries, near, members, max_query, rng)
    n_near = near.shape[1]

    def draw_round() -> np.ndarray:
        # Two different near clusters for each query: the second skips over the first.
        first = rng.integers(n_near, size=len(queries))
        second = (first + rng.integers(1, n_near, size=len(queries))) % n_near
        rows = np.arange(len(queries))
        choices = [members.draw(near[rows, which], rng) for which in (first, second)]
        return np.stack([queries, *choices], axis=1)

    return _draw_distinct(draw_round, max_query)


def _draw_distinct(draw_round: Callable[[], np.ndarray], max_query: int) -> np.ndarray:
    """Collect distinct rows; a question counts once however its choices are ordered."""
    seen: dict[tuple[int, int, int], list[int]] = {}
    while len(seen) < max_query:
        for row in draw_round().tolist():
            query, one, two = row
            if len({query, one, two}) == 3:
                seen.setdefault((query, min(one, two), max(one, two)), row)
            if len(seen) == max_query:
                break
    return np.array(list(seen.values()))


def _list_triplets(
    queries: np.ndarray, near: np.ndarray, members: _Members, max_query: int, rng: np.random.Generator
) -> np.ndarray:
    by_query = [
        rng.permutation(np.array(list(_iterate_triplets(query, clusters, members)), dtype=np.int64).reshape(-1, 3))
        for query, clusters in zip(queries.tolist(), near.tolist(), strict=True)
    ]
    # The first of every query, then the second, as drawing would.
    rounds = np.concatenate([np.arange(len(rows)) for rows in by_query])
    return _cut(np.concatenate(by_query)[np.argsort(rounds, kind="stable")], max_query)


def _iterate_triplets(query: int, near: Sequence[int], members: _Members) -> Iterator[tuple[int, int, int]]:
    groups = [[row for row in members.of(cluster).tolist() if row != query] for cluster in near]
    for one, two in itertools.combinations(groups, 2):
        yield from ((query, a, b) for a in one for b in two)


def _cut(rows: np.ndarray, max_query: int) -> np.ndarray:
    if len(rows) < max_query:
        logger.info("only %d distinct triplets exist, fewer than the %d asked for: all are taken", len(rows), max_query)
    return rows[:max_query]


def _order_choices(rows: np.ndarray, rng: np.random.Generator) -> list[Triplet]:
    # Which choice stands first must say nothing about which cluster is nearer.
    swap = rng.random(len(rows)) < 0.5
    rows[swap, 1], rows[swap, 2] = rows[swap, 2], rows[swap, 1].copy()
    return [Triplet(query, choice1, choice2) for query, choice1, choice2 in rows.tolist()]
