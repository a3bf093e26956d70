"""Settings of counting and clustering, apart from what computes, so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from perspective.errors import DataError, require_least
from perspective.options import option

Criterion = Literal["views", "words", "llm", "silhouette", "stability", "eigengap", "hdbscan"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
DEFAULTS: tuple[Criterion, ...] = ("views", "words")  # the first that gives an estimate is taken
FALLBACK: Criterion = "silhouette"  # where none of them does


@dataclass(frozen=True)
class CountSettings:
    """How the number of clusters is chosen."""

    n_clusters: int | None = option("the number of clusters, if you know it", default=None)
    criterion: Criterion | None = option(
        "take the number of this criterion; default: views (embedder and LLM agree most), without answer states words "
        "(embedder and words agree most)",
        default=None,
    )
    all_criteria: bool = option("measure all criteria, for the page; otherwise those that may be taken", default=True)

    def __post_init__(self) -> None:
        """Check values."""
        require_least(self, n_clusters=1)


@dataclass(frozen=True)
class ClusterSettings:
    """How clusters are found."""

    method: Literal["kmeans", "hdbscan"] = option(
        "kmeans: each text has a cluster; hdbscan: some belong nowhere, and it finds the number itself",
        default="kmeans",
    )
    n_clusters: int | None = option(
        "number of clusters of kmeans; default: that of count_clusters, also when it changes",
        default=None,
    )
    min_cluster_size: int | None = option("smallest cluster of hdbscan; default: 5", default=None)

    def __post_init__(self) -> None:
        """Check values."""
        require_least(self, n_clusters=1, min_cluster_size=2)
        if self.method == "hdbscan" and self.n_clusters is not None:
            raise DataError("--n_clusters: hdbscan finds the number itself; leave it out")
