"""Clustering measures as rows: runs before and after fine-tuning, and the quality study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import Sidecar, read_object, read_sidecar, sidecar_path
from perspective.errors import DataError
from perspective.evaluation.clustering_scores import METRICS, check_scores, pair_gains, read_measures
from perspective.evaluation.comparison import load_comparison
from perspective.layout import STUDY_BASE, Layout, measures_path, study_pair

CLUSTERING = (
    *("data set", "run", "embedder", "judge", "metric", "before", "before_std", "after", "after_std"),
    *("gain", "gain_std", "verdict", "published before", "published after", "file"),
)
STUDY_ROW = ("arm", "embedder-LLM", "data set", "metric", "mean", "gain", "gain_std", "n_seeds")

Rows = list[dict[str, Any]]


def read_pair(path: Path, root: Path) -> Rows:
    """Read the measures after fine-tuning, and by the names of `Layout` those before.

    Returns:
        A row a metric, with the columns `CLUSTERING`; none where the texts have no labels.

    Raises:
        DataError: One of the files is missing or damaged, or the sidecar names no embedder or a checkpoint
            outside of `root`.
    """
    embeds = path.with_name(f"{path.name.removesuffix('_measures.json')}.npy")
    made = _read_sidecar(embeds)
    corpus, separator, run = embeds.stem.partition("_embeds_")
    dataset, _, scale = corpus.rpartition("_")
    embedder = made.settings.get("embedder")
    if not separator or not isinstance(embedder, str):
        raise DataError(f"{path}: {sidecar_path(embeds).name} names no embedder; measure it again")
    before = root / "measures" / measures_path(Layout(dataset, scale, embedder).embeds).name
    if not before.exists():
        raise DataError(f"{path}: nothing to compare with ({before.name} is not in measures); measure {embedder} too")
    if read_measures(before) is None or read_measures(path) is None:
        return []  # without labels there is nothing to compare
    checkpoint = root / made.input_paths.get("checkpoint", "none")
    if not checkpoint.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{path}: {sidecar_path(embeds).name} names a checkpoint outside of {root}")
    one = load_comparison(before, [path], [checkpoint], dataset, embedder, scale)
    (after,) = one.runs
    rows = []
    for metric in METRICS:
        published = one.published.get(metric) if one.published else None
        rows.append(
            {
                "data set": dataset if scale == "small" else f"{dataset} ({scale})",
                "run": run,
                "embedder": embedder,
                "judge": one.judge,
                "metric": metric,
                "before": one.before[f"{metric}_mean"],
                "before_std": one.before[f"{metric}_std"],
                "after": after[f"{metric}_mean"],
                "after_std": after[f"{metric}_std"],
                "gain": one.difference(metric),
                "gain_std": one.spread(metric),
                "verdict": one.verdict(metric),
                "published before": published[0] if published else math.nan,
                "published after": published[1] if published else math.nan,
                "file": str(path),
            }
        )
    return rows


def read_study(path: Path) -> Rows:
    """Read the quality study; gains are paired by k-means seed, as in the study's table.

    Returns:
        A row an arm, data set and metric, with the columns `STUDY_ROW`.

    Raises:
        DataError: A cell is damaged, or a data set lacks the untouched embedder.
    """
    rows: Rows = []
    for dataset, arms in read_object(path).items():
        if STUDY_BASE not in arms:
            raise DataError(f'{path}: {dataset} has no "{STUDY_BASE}" to measure gains against')
        base, *_ = arms[STUDY_BASE].values()
        for arm, cells in arms.items():
            for metric in METRICS:
                for cell in (base, *cells.values()):
                    check_scores(path, cell, metric)
                    if len(cell[metric]) != len(base[metric]):
                        raise DataError(f"{path}: {dataset} {arm}: {metric} over another number of k-means seeds")
                gains = pair_gains(cells, arms[STUDY_BASE], metric)
                rows.append(
                    {
                        "arm": arm,
                        "embedder-LLM": study_pair(path),
                        "data set": dataset,
                        "metric": metric,
                        "mean": float(np.mean([cell[metric] for cell in cells.values()])),
                        "gain": gains.mean(),
                        "gain_std": gains.std(),
                        "n_seeds": len(cells),
                    }
                )
    return rows


def read_settings(path: Path) -> dict[str, Any]:
    """Return how a result was made: its sidecar, as JSON holds it.

    Raises:
        DataError: There is none, or it is damaged.
    """
    return _read_sidecar(path).model_dump(by_alias=True)


def _read_sidecar(path: Path) -> Sidecar:
    sidecar = read_sidecar(path)
    if sidecar is None:
        raise DataError(f"{sidecar_path(path)}: no such file; how this result was made is unknown")
    return sidecar
