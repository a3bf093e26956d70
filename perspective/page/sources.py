"""Gather what the page shows from the files of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import (
    Judgment,
    ResultRecord,
    load_judgments,
    read_facts,
    read_json,
    read_object,
    read_record,
)
from perspective.artifacts.sidecar import validate_record
from perspective.description.files import Clustering, read_all_texts, read_count
from perspective.description.records import NOWHERE, Names
from perspective.layout import ClusterFiles, Layout, measures_path
from perspective.page.content import METRICS, Description, place_clusters
from perspective.page.map import TextMap
from perspective.page.verdict import (
    MAX_ROWS,
    cluster_again,
    find_again,
    find_origins,
    make_verdict,
    score_choices,
)
from perspective.vectors import sample_rows


def list_sources(files: ClusterFiles, layout: Layout, before: Path, after: Path) -> dict[str, Path]:
    """Return the files that the page is made from, by role; those that are optional only where they exist.

    Args:
        files: The files of the clusters.
        layout: The run; where the vectors after are not its own, its training says nothing about them.
        before: Vectors before fine-tuning.
        after: Vectors after.
    """
    optional = {"names": files.names, "count": files.count, "added": files.added}
    optional |= {"measures_before": measures_path(before), "measures_after": measures_path(after)}
    if after.resolve() == layout.after_embeds.resolve():
        optional |= {"checkpoint": layout.checkpoint, "training_data": layout.train_file, "judgments": layout.judgments}
    needed = {"map": files.map, "clusters": files.clusters, "texts": files.texts}
    return needed | {role: path for role, path in optional.items() if path.exists()}


def describe_run(
    sources: Mapping[str, Path],
    files: ClusterFiles,
    title: str,
    clustering: Clustering,
    text_map: TextMap,
    before: np.ndarray,
    after: np.ndarray,
) -> Description:
    """Return what the page shows.

    Args:
        sources: Of `list_sources`.
        files: The files of the clusters.
        title: Name of the data set.
        clustering: Of `files`.
        text_map: The map.
        before: Vectors before fine-tuning, `(n_texts, dim)`.
        after: Vectors after, `(n_texts, any)`.
    """
    places, n_clusters = place_clusters(clustering), len(clustering.record.clusters)
    record = read_record(sources["checkpoint"]) if "checkpoint" in sources else ResultRecord()
    unchanged = before.shape == after.shape and np.array_equal(before, after)
    origins = places if unchanged else find_origins(before, after, places, n_clusters)
    rows = sample_rows(len(before), MAX_ROWS)
    n_found = len(np.unique(places[places >= 0]))  # without those that were added for other texts
    runs = tuple(cluster_again(vectors, rows, n_found) for vectors in (before, after))
    judgments: list[Judgment] = load_judgments(sources["judgments"], clustering.texts) if "judgments" in sources else []
    trust = read_facts(sources["training_data"]).get("trust") if "training_data" in sources else None
    verdict = make_verdict(
        record,
        trust if isinstance(trust, dict) else {},
        (runs[0], runs[1]),
        text_map,
        float((origins != places).mean()),
        score_choices(before, after, judgments),
    )
    names = validate_record(Names, read_json(files.names), files.names) if "names" in sources else None
    return Description(
        title=title,
        clustering=clustering,
        all_texts=read_all_texts(files),
        names=names,
        count=read_count(files) if "count" in sources else None,
        text_map=text_map,
        origins=origins,
        again=find_again(places[rows], n_clusters, runs[1]),
        verdict=verdict,
        measures=_read_measures(sources),
        run=_list_run(sources, record, names, clustering, int((places == NOWHERE).sum())),
        unchanged=unchanged,
    )


def _read_measures(sources: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the measures before and after; None where there are no labels, or none were measured."""
    roles = ("measures_before", "measures_after")
    if not all(role in sources for role in roles):
        return None
    before, after = (read_object(sources[role]) for role in roles)
    wanted = [f"{metric}_{part}" for metric in METRICS for part in ("mean", "std")]
    has_all = all(isinstance(found.get(name), int | float) for found in (before, after) for name in wanted)
    return (before, after) if has_all else None


def _list_run(
    sources: Mapping[str, Path], record: ResultRecord, names: Names | None, clustering: Clustering, n_nowhere: int
) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = [("clusters by", clustering.record.method)]
    if n_nowhere:
        rows.append(("texts without a cluster", f"{n_nowhere:,}"))
    if record.judge:
        rows.append(("judge", f"{record.judge.name} ({record.judge.kind})" if record.judge.kind else record.judge.name))
    if names:
        rows += [("perspective", names.perspective), ("names by", names.llm)]
    if "checkpoint" in sources:
        rows.append(("embedder", sources["checkpoint"].name))
    return rows
