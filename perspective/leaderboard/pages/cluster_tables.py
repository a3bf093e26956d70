"""Tables of docs/clusters.md: the number of clusters, their names, and new texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perspective.artifacts.markdown import format_table
from perspective.description.settings import CRITERIA
from perspective.layout import MEASURES
from perspective.leaderboard.measured import load

COUNTING = MEASURES / "benchmark_counting.json"
ASSIGNING = MEASURES / "benchmark_assigning.json"
NAMING = MEASURES / "benchmark_naming.json"
WITHIN = (10, 25)  # percent
DEFAULT = "default"  # the number that is taken
COLUMNS = (DEFAULT, *CRITERIA)


def tabulate_counting() -> str:
    """Estimates beside the number of classes, a data set a row; then what the criteria are worth over all."""
    results: dict[str, Any] = load(COUNTING)
    rows = [
        [
            name,
            f"{result['n_texts']:,}",
            result["n_classes"],
            f"{result['chosen']} (`{result['criterion']}`)",
            *(_estimate(result, one) or "none" for one in CRITERIA),
        ]
        for name, result in results.items()
    ]
    for use in ("tuning", "confirmation"):
        chosen = [result for result in results.values() if result["use"] == use]
        if chosen:
            rows.append([f"off by a factor of, {use}", "", "", *(_factor(chosen, one) for one in COLUMNS)])
    everything = list(results.values())
    for percent in WITHIN:
        hits = [sum(abs(ratio - 1) <= percent / 100 for ratio in _ratios(everything, one)) for one in COLUMNS]
        rows.append([f"within {percent}%, of {len(results)}", "", "", *hits])
    seconds = [[result["estimates"][one]["seconds"] for result in everything] for one in CRITERIA]
    rows.append(["CPU seconds, at most", "", "", "", *(f"{max(values):.1f}" for values in seconds)])
    return format_table(["data set", "texts", "classes", "default", *(f"`{one}`" for one in CRITERIA)], rows)


def tabulate_naming() -> str:
    """Share of clusters whose name is nearest to the right class, by who named them."""
    rows = [
        [
            row["dataset"],
            row["n_clusters"],
            "keywords" if row["llm"] == "none" else f"{row['llm']}, else keywords",
            f"{100 * row['right']:.1f}%",
            f"{100 * row['right_llm']:.1f}% of {row['n_llm']}" if row["n_llm"] else "",
            f"{100 * row['share_nearest']:.1f}%",
        ]
        for row in load(NAMING)
    ]
    columns = ["data set", "clusters", "named by", "names nearest to the right class", "of the LLM's names"]
    return format_table([*columns, "check: share nearest"], rows)


def tabulate_unseen() -> str:
    """Scores of unseen texts, assigned and clustered with all others: mean and standard deviation over seeds."""
    rows = []
    for name, runs in load(ASSIGNING)["datasets"].items():
        for title, key in (("assigned", "assigned"), ("all clustered again", "clustered_again")):
            rows.append([name, title, *(_spread([run[key][metric] for run in runs]) for metric in ("ACC", "NMI"))])
    return format_table(["data set", "the unseen 20%", "ACC", "NMI"], rows)


def tabulate_unknown() -> str:
    """Texts of classes that no cluster is about: how many are recognised, and what is added."""
    rows = []
    for name, runs in load(ASSIGNING)["datasets"].items():
        shares = [
            _spread([100 * run.get(key, 0.0) for run in runs], "%")
            for key in ("nowhere_of_known_classes", "nowhere_of_unknown_classes", "in_added", "known_in_added")
        ]
        added = " ".join(str(run["clusters_added"]) for run in runs)
        rows.append([name, *shares[:2], f"{added} of {runs[0]['unknown_classes']}", *shares[2:]])
    header = ["data set", "known classes: nowhere", "unknown: nowhere", "clusters added, by seed"]
    return format_table([*header, "unknown: in an added cluster", "known: in an added cluster"], rows)


def _estimate(result: Mapping[str, Any], criterion: str) -> int | None:
    number: int | None = result["chosen"] if criterion == DEFAULT else result["estimates"][criterion]["n_clusters"]
    return number


def _ratios(results: Sequence[Mapping[str, Any]], criterion: str) -> list[float]:
    """Return the estimates as shares of the number of classes, of the data sets that have one."""
    found = ((_estimate(result, criterion), result["n_classes"]) for result in results)
    return [number / n_classes for number, n_classes in found if number]


def _factor(results: Sequence[Mapping[str, Any]], criterion: str) -> str:
    ratios = _ratios(results, criterion)
    if not ratios:
        return ""
    missing = f" ({len(ratios)} of {len(results)})" if len(ratios) < len(results) else ""
    return f"{np.exp(np.abs(np.log(ratios)).mean()):.2f}{missing}"


def _spread(values: Sequence[float], unit: str = "") -> str:
    digits = 0 if unit else 2
    return f"{np.mean(values):.{digits}f}{unit} ± {np.std(values):.{digits}f}"
