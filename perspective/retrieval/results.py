"""Result files of evaluations: read, compare, format."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import read_json, read_object, sidecar_path
from perspective.data.collection import Collection
from perspective.errors import DataError
from perspective.retrieval.metrics import METRICS, bootstrap_interval, find_p_value, resample_means

logger = logging.getLogger(__name__)

VERSION = 1


def load_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        DataError: It is not a result file, or of another version.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    result = read_json(path)
    if not isinstance(result, dict) or not {"collection", "scores", "per_query", "version"} <= result.keys():
        raise DataError(f"{path}: not a result of evaluate")
    if result["version"] != VERSION:
        raise DataError(f"{path}: has version {result['version']!r:.20}, not {VERSION}; evaluate again")
    sidecar = sidecar_path(Path(path))
    if "fingerprint" not in result and sidecar.exists():  # older results have it in the sidecar only
        settings = read_object(sidecar).get("settings")
        result["fingerprint"] = settings.get("collection") if isinstance(settings, dict) else None
    return result


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two results, in points.

    Attributes:
        metric: Name of the metric.
        mean: First result minus second.
        interval: 95% interval of the paired bootstrap over queries.
        p: Two-sided p-value.
    """

    metric: str
    mean: float
    interval: tuple[float, float]
    p: float


def compare_results(one: Mapping[str, Any], other: Mapping[str, Any], metric: str = "NDCG@10") -> Difference:
    """Compare two results query by query with the paired bootstrap.

    Raises:
        DataError: They have different collections, texts, judgments or queries, or the metric is not
            stored by query.
    """
    if metric not in one["per_query"] or metric not in other["per_query"]:
        kept = sorted(one["per_query"].keys() & other["per_query"].keys())
        raise DataError(f'--metric "{metric}": not stored by query in both results (both store: {", ".join(kept)})')
    if (one["collection"], one["n_documents"]) != (other["collection"], other["n_documents"]):
        raise DataError(f"results of different collections: {one['collection']} and {other['collection']}")
    if one.get("fingerprint") != other.get("fingerprint"):
        raise DataError(f"{one['collection']}: the results differ in texts or judgments; evaluate both again")
    values, other_values = one["per_query"][metric], other["per_query"][metric]
    if values.keys() != other_values.keys():
        n_different = len(values.keys() ^ other_values.keys())
        raise DataError(f"{one['collection']}: the results differ in {n_different} queries; evaluate both again")
    difference = np.array([values[query_id] - other_values[query_id] for query_id in values])
    means = resample_means(difference[:, None])[:, 0]
    low, high = bootstrap_interval(means)
    return Difference(
        metric, float(difference.mean()), (float(low), float(high)), find_p_value(means, difference.mean())
    )


def format_scores(result: Mapping[str, Any]) -> str:
    """Format the scores as a table for a terminal, one column a cutoff, with the 95% interval of NDCG."""
    cutoffs = result["cutoffs"]
    lines = ["".join([f"{'':10s}", *(f"{f'@{k}':>8s}" for k in cutoffs)])]
    lines += [
        f"{metric:10s}" + "".join(f"{result['scores'][f'{metric}@{k}']:8.2f}" for k in cutoffs) for metric in METRICS
    ]
    name = f"NDCG@{max(cutoffs)}"
    low, high = result["interval"][name]
    lines.append(f"{name} {result['scores'][name]:.2f}, 95% interval {low:.2f} to {high:.2f}")
    if "first_stage" in result:
        first = result["first_stage"]
        lines.append(
            f"before reranking {first['scores'][name]:.2f}; the {first['n_reranked']} hits that were reranked hold "
            f"{first['recall']:.2f}% of the relevant documents, which no reranker can exceed"
        )
    return "\n".join(lines)


def format_task_result(collection: Collection, scores: Mapping[str, float], seconds: float) -> dict[str, Any]:
    """Return an evaluation in mteb's format (`mteb.TaskResult`), values from 0 to 1.

    Args:
        collection: The collection.
        scores: Scores in percent, by names such as "NDCG@10".
        seconds: Duration of the evaluation.
    """
    version = importlib.metadata.version("mteb") if collection.revision else None
    values = {_mteb_name(name): round(value / 100, 6) for name, value in scores.items()}
    name = collection.name.removesuffix(f"-{collection.subset}") if collection.revision else collection.name
    main = _find_main_score(name, values) if collection.revision else None
    if main is None:
        deepest = max(int(name.split("@")[1]) for name in scores)
        main = values.get("ndcg_at_10", values[f"ndcg_at_{deepest}"])
    languages = list(collection.languages) or ["und-Zyyy"]  # unknown, in ISO 639 and 15924
    part = {**values, "main_score": main, "hf_subset": collection.subset, "languages": languages}
    return {
        "dataset_revision": collection.revision or collection.fingerprint[:40],
        "task_name": name,
        "mteb_version": version,
        "scores": {collection.split: [{**part, "mteb_version": version}]},
        "evaluation_time": seconds,
        "kg_co2_emissions": None,
        "date": datetime.now(UTC).timestamp(),
    }


def _find_main_score(task_name: str, values: Mapping[str, float]) -> float | None:
    """Return the value that mteb ranks models by; None, with a warning, if it was not measured."""
    import mteb

    wanted = mteb.get_task(task_name).metadata.main_score
    if wanted not in values:
        logger.warning(
            "%s: ranked by %s, which was not measured; main_score is NDCG (see --cutoffs)", task_name, wanted
        )
    return values.get(wanted)


def _mteb_name(name: str) -> str:
    metric, k = name.split("@")
    return f"{metric.lower()}_at_{k}"
