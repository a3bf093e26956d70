"""Compare measures before and after: table, chart, figures on the model card."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import ROOT, read_json, read_record, write_text
from perspective.artifacts.markdown import format_table
from perspective.errors import DataError
from perspective.evaluation.clustering_scores import METRICS
from perspective.plots import make_figure, save_figure

PUBLISHED = ROOT / "measures" / "published.json"
CARD_HEADING = "## Measured"


@dataclass(frozen=True)
class Comparison:
    """Measures of one data set before and after.

    Attributes:
        dataset: Its name.
        embedder: Short name of the embedder.
        judge: Name of the judge.
        unchanged: Whether the embedder was left unchanged, because no judgments were reliable.
        before: Measures of the base embedder.
        after: Measures of the fine-tuned embedder.
        published: Published means (before, after) of the same embedder, by metric, or None.
    """

    dataset: str
    embedder: str
    judge: str
    unchanged: bool
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    published: Mapping[str, tuple[float, float]] | None = None

    def difference(self, metric: str) -> float:
        """Mean after minus mean before, in points."""
        return float(self.after[f"{metric}_mean"] - self.before[f"{metric}_mean"])

    def spread(self, metric: str) -> float:
        """Standard deviation of the paired differences over the k-means seeds, in points."""
        return float(np.std(np.array(self.after[metric]) - np.array(self.before[metric])))

    def verdict(self, metric: str) -> str:
        """Return "gain" or "loss" only for a difference larger than the spread."""
        if self.unchanged:
            return "unchanged"
        if abs(self.difference(metric)) <= self.spread(metric):
            return "within spread"
        return "gain" if self.difference(metric) > 0 else "loss"


def load_comparison(before: Path, after: Path, checkpoint: Path, dataset: str, embedder: str) -> Comparison:
    """Read the measures of one run.

    Raises:
        DataError: A file is missing, or has no ACC (a data set without labels).
    """
    measures = []
    for path, stage in ((before, "get_embedding_gte.sh"), (after, "get_finetuned_embedding_gte.sh")):
        if not path.exists():
            raise DataError(f"{path}: no such file; run perspective/2_finetune/scripts/{stage} first")
        measures.append(read_json(path))
        if "ACC" not in measures[-1]:
            raise DataError(f"{path}: measured without labels; ACC, NMI and ARI need them")
    record = read_record(checkpoint)
    return Comparison(
        dataset=dataset,
        embedder=embedder,
        judge=record.judge.name if record.judge else "?",
        unchanged=record.unchanged,
        before=measures[0],
        after=measures[1],
        published=_find_published(dataset, embedder),
    )


def _find_published(dataset: str, embedder: str) -> dict[str, tuple[float, float]] | None:
    published = read_json(PUBLISHED)
    found = published["results"].get(dataset)
    if found is None or published["embedder"] != embedder:
        return None
    return {metric: (found[metric][0], found[metric][1]) for metric in METRICS if metric in found}


COLUMNS = ("data set", "embedder", "judge", "metric", "before", "after", "difference", "verdict", "published")


def make_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return one row for each data set and metric, with the cells of `COLUMNS`."""
    rows: list[tuple[str, ...]] = []
    for one in comparisons:
        for metric in METRICS:
            published = one.published.get(metric) if one.published else None
            rows.append(
                (
                    one.dataset,
                    one.embedder,
                    one.judge,
                    metric,
                    f"{one.before[f'{metric}_mean']:.2f} ± {one.before[f'{metric}_std']:.2f}",
                    f"{one.after[f'{metric}_mean']:.2f} ± {one.after[f'{metric}_std']:.2f}",
                    f"{one.difference(metric):+.2f} ± {one.spread(metric):.2f}",
                    one.verdict(metric),
                    f"{published[0]:.2f} -> {published[1]:.2f}" if published else "",
                )
            )
    return rows


def format_text(comparisons: Sequence[Comparison]) -> str:
    """Return the table for a terminal."""
    rows = [COLUMNS, *make_rows(comparisons)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def format_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return the table as Markdown."""
    return format_table(COLUMNS, make_rows(comparisons))


def format_csv(comparisons: Sequence[Comparison]) -> str:
    """Return the table as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([COLUMNS, *make_rows(comparisons)])
    return file.getvalue()


def draw_comparison(comparisons: Sequence[Comparison], path: Path) -> None:
    """Plot ACC, NMI and ARI before and after, with the spread over seeds, as a PNG."""
    figure, axes = make_figure(ncols=len(METRICS), width=3.2 * len(METRICS) + 1, height=3.6)
    positions = np.arange(len(comparisons))
    for axis, metric in zip(axes, METRICS, strict=True):
        for offset, name in ((-0.2, "before"), (0.2, "after")):
            measures = [getattr(one, name) for one in comparisons]
            bars = axis.bar(
                positions + offset,
                [one[f"{metric}_mean"] for one in measures],
                0.38,
                yerr=[one[f"{metric}_std"] for one in measures],
                capsize=3,
                label=name,
                color="#9aa7b8" if name == "before" else "#2f6db3",
            )
            axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
        axis.set_xticks(positions, [one.dataset for one in comparisons], rotation=20, ha="right", fontsize=8)
        axis.set_title(f"{metric} (%)")
        axis.set_ylim(0, 108)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    save_figure(figure, path)


def add_measures_to_card(checkpoint: Path, comparison: Comparison) -> None:
    """Add the measures to the model card, replacing earlier ones."""
    card = checkpoint / "README.md"
    if not card.exists():
        return
    text = card.read_text(encoding="utf-8").split(f"\n{CARD_HEADING}")[0].rstrip()
    write_text(card, f"{text}\n\n{CARD_HEADING}\n\n{format_markdown([comparison])}")
