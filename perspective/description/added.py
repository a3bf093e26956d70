"""Clusters that form among new texts, after the others were found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perspective.description.files import Assignment
from perspective.description.records import Cluster


@dataclass(frozen=True)
class AddedClusters:
    """Clusters that formed among new texts that belonged nowhere.

    Attributes:
        clusters: Their records; representatives are rows after those of the clustered texts.
        centers: `(n_added, dim)`, one a cluster.
        texts: Examples of their texts.
        assignment: The cluster of each example.
    """

    clusters: list[Cluster]
    centers: np.ndarray
    texts: list[str]
    assignment: Assignment


def join_added(one: AddedClusters | None, other: AddedClusters | None) -> AddedClusters | None:
    """Return the clusters of both; None where neither has any."""
    if one is None or other is None:
        return one or other
    columns = (
        np.concatenate([getattr(one.assignment, name), getattr(other.assignment, name)])
        for name in ("cluster", "confidence", "outlier")
    )
    return AddedClusters(
        one.clusters + other.clusters,
        np.vstack([one.centers, other.centers]),
        one.texts + other.texts,
        Assignment(*columns),
    )
