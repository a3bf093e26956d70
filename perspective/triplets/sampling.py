"""Sample triplets for uncertain queries: ClusterLLM (Zhang et al., 2023), section 3.1.

Only vectors are used, no texts or labels.
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

N_CLOSEST = 5  # members per cluster that choices="nearest" draws from


@dataclass(frozen=True)
class SampledOptions(OverwriteOptions):
    """Where sampled triplets are written."""

    out_dir: str | None = option("folder; default: sampled_triplet_results", default=None, group="output")


@dataclass(frozen=True)
class SampleSettings:
    """How triplets are sampled; the defaults are those of the published run."""

    max_query: int = option("number of triplets", default=1024)
    seed: int = option("random seed", default=100)
    large_ent_prop: float = option("fraction of the texts that become queries, the most uncertain ones", default=0.2)
    filter_first_prop: float = option("fraction of the most uncertain texts to leave out", default=0.0)
    close_cluster_prop: float = option(
        "fraction of the clusters that count as near (at least two clusters)", default=0.02
    )
    max_distance: float | None = option(
        "distance threshold of the agglomerative clustering; default: 77 * sqrt(dim / 1024)", default=None
    )
    shuffle_inds: bool = option("use the queries in random order", default=True)
    choices: Literal["random", "nearest"] = option(
        "random: members of near clusters (published); nearest: members most similar to the query, from its "
        "two nearest clusters, so that more triplets have a right answer",
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
        if self.choices not in ("random", "nearest"):  # for Python callers; the parser checks the command line
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
    """Sample triplets for the queries that the embedder is most uncertain about.

    Args:
        vectors: Array `(n_texts, dim)`, n_texts at least 3.
        settings: Settings of the sampling.
        scale: As in `measure_uncertainty`.

    Returns:
        At most `max_query` distinct triplets (in either order of choices), and the uncertainty.

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
    """Sample distinct triplets uniformly: the control.

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
        return _order_choices(_limit(rng.permutation(rows), max_query), rng)
    return _order_choices(_draw_distinct(lambda: rng.integers(n_texts, size=(max_query, 3)), max_query), rng)


class _Members:
    """The rows of each cluster, in one array for vectorised drawing."""

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
        """Count the pairs of texts other than the query from two near clusters, over all queries."""
        sizes = self.counts[near] - (near == self.clusters[queries][:, None])  # (n_queries, n_near)
        return int((sizes.sum(axis=1) ** 2 - (sizes**2).sum(axis=1)).sum() // 2)


class _Closest(_Members):
    """A group of rows for each query and near cluster: the members most similar to the query."""

    def __init__(self, groups: Sequence[np.ndarray]) -> None:
        self.rows = np.concatenate(groups)
        self.counts = np.array([len(group) for group in groups])
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def count_triplets(self, queries: np.ndarray, near: np.ndarray) -> int:
        """Count the pairs over all queries; groups do not contain their query."""
        return int(self.counts[near].prod(axis=1).sum())


def _keep_closest(
    vectors: np.ndarray, queries: np.ndarray, near: np.ndarray, members: _Members
) -> tuple[np.ndarray, np.ndarray, _Members]:
    """Group the members of its two near clusters that are closest to each query.

    Returns:
        The queries with nonempty groups, their group numbers `(n_queries, 2)`, the groups.
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
    """Draw rows (query, choice, choice), in rounds over all queries.

    If at least half of the existing triplets are requested, they are listed instead: drawing would
    take long or never end.
    """
    n_existing = members.count_triplets(queries, near)
    if n_existing == 0:
        raise NothingToSample("no triplet exists: every near cluster has only the query")
    if n_existing < 2 * max_query:
        return _list_triplets(queries, near, members, max_query, rng)
    n_near = near.shape[1]

    def draw_round() -> np.ndarray:
        # Two different near clusters for each query: the second is the first plus an offset.
        first = rng.integers(n_near, size=len(queries))
        second = (first + rng.integers(1, n_near, size=len(queries))) % n_near
        rows = np.arange(len(queries))
        choices = [members.draw(near[rows, which], rng) for which in (first, second)]
        return np.stack([queries, *choices], axis=1)

    return _draw_distinct(draw_round, max_query)


def _draw_distinct(draw_round: Callable[[], np.ndarray], max_query: int) -> np.ndarray:
    """Collect distinct rows; a triplet counts once in either order of its choices."""
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
    # The first triplet of every query, then the second, as in drawing.
    rounds = np.concatenate([np.arange(len(rows)) for rows in by_query])
    return _limit(np.concatenate(by_query)[np.argsort(rounds, kind="stable")], max_query)


def _iterate_triplets(query: int, near: Sequence[int], members: _Members) -> Iterator[tuple[int, int, int]]:
    groups = [[row for row in members.of(cluster).tolist() if row != query] for cluster in near]
    for one, two in itertools.combinations(groups, 2):
        yield from ((query, a, b) for a in one for b in two)


def _limit(rows: np.ndarray, max_query: int) -> np.ndarray:
    if len(rows) < max_query:
        logger.info("%d triplets requested, only %d distinct ones exist: using all", max_query, len(rows))
    return rows[:max_query]


def _order_choices(rows: np.ndarray, rng: np.random.Generator) -> list[Triplet]:
    # The order of the choices must not depend on which cluster is nearer.
    swap = rng.random(len(rows)) < 0.5
    rows[swap, 1], rows[swap, 2] = rows[swap, 2], rows[swap, 1].copy()
    return [Triplet(query, choice1, choice2) for query, choice1, choice2 in rows.tolist()]
