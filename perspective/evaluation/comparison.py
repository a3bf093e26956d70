"""Compare measures before and after: table, chart, figures on the model card."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import ROOT, Sidecar, read_json, read_record, read_sidecar, read_vectors, write_text
from perspective.artifacts.markdown import format_table
from perspective.errors import DataError
from perspective.evaluation.clustering_scores import METRICS, read_measures
from perspective.evaluation.intervals import MIN_TRAINING_SEEDS, Interval, find_interval, measure_text_variance
from perspective.layout import clusterings_path
from perspective.plots import make_figure, save_figure

PUBLISHED = ROOT / "measures" / "published.json"
CARD_HEADING = "## Measured"
NOTE = (
    "± is the standard deviation over seeds. In brackets is the 95% interval of the difference, over training seeds, "
    "k-means seeds and texts; without three training seeds there is none, and no verdict."
)
EMBED, EMBED_AGAIN = "get_embedding_gte.sh", "get_finetuned_embedding_gte.sh"


@dataclass(frozen=True)
class Comparison:
    """Measures of one data set before and after.

    Attributes:
        dataset: Its name.
        embedder: Short name of the embedder.
        judge: Name of the judge.
        unchanged: Whether the embedder was left unchanged, because no judgments were reliable.
        before: Measures of the base embedder.
        runs: Measures of the fine-tuned embedder, one for each training seed.
        published: Published means (before, after) of the same embedder, by metric, or None.
        text_variance: Variance of each metric's difference over texts; None if not measured.
    """

    dataset: str
    embedder: str
    judge: str
    unchanged: bool
    before: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    published: Mapping[str, tuple[float, float]] | None = None
    text_variance: Mapping[str, float] | None = None

    def scores_after(self, metric: str) -> np.ndarray:
        """Scores in percent, `(n_training_seeds, n_kmeans_seeds)`."""
        return np.array([run[metric] for run in self.runs])

    def difference(self, metric: str) -> float:
        """Mean after minus mean before, in points."""
        return float(self.scores_after(metric).mean() - self.before[f"{metric}_mean"])

    def spread(self, metric: str) -> float:
        """Standard deviation of the differences, paired by k-means seed, over all seeds, in points."""
        return float(np.std(self.scores_after(metric) - np.array(self.before[metric])))

    def interval(self, metric: str) -> Interval:
        """Interval of the difference over training seeds, k-means seeds and, where measured, texts."""
        variance = self.text_variance[metric] if self.text_variance else 0.0
        return find_interval(self.scores_after(metric), np.array(self.before[metric]), variance)

    def verdict(self, metric: str) -> str:
        """Return "gain" or "loss" only where the interval over three or more training seeds leaves out 0."""
        return "unchanged" if self.unchanged else self.interval(metric).verdict


def load_comparison(
    before: Path,
    after: Sequence[Path],
    checkpoints: Sequence[Path],
    dataset: str,
    embedder: str,
    scale: str = "small",
    with_texts: bool = False,
) -> Comparison:
    """Read the measures of a run, or of runs with several training seeds.

    Args:
        before: Measures of the base embedder.
        after: Measures of the fine-tuned embedders, one for each training seed.
        checkpoints: These embedders.
        dataset: Name of the data set.
        embedder: Short name of the embedder.
        scale: "small" or "large"; the published means are of "small".
        with_texts: Whether the interval over three or more training seeds is also over texts, from the
            clusterings beside the measures.

    Raises:
        DataError: A file is missing or damaged, or has no ACC (a data set without labels); the measures are of other
            texts, labels or k-means seeds than those before, or not of these checkpoints; the checkpoints differ in
            more than their training seed.
    """
    measures: list[dict[str, Any]] = []
    for path, stage in ((before, EMBED), *((path, EMBED_AGAIN) for path in after)):
        if not path.exists():
            raise DataError(f"{path}: no such file; run perspective/2_finetune/scripts/{stage} first")
        found = read_measures(path)
        if found is None:
            raise DataError(f"{path}: measured without labels; ACC, NMI and ARI need them")
        measures.append(found)
        if any(len(found[metric]) != len(measures[0][metric]) for metric in METRICS):
            raise DataError(f"{path}: over another number of seeds than {before.name}; measure both again")
    _check_origins(before, after, checkpoints)
    records = [read_record(checkpoint) for checkpoint in checkpoints]
    judges = [record.judge.name + ", by labels" * record.judge.uses_labels for record in records if record.judge]
    return Comparison(
        dataset=dataset,
        embedder=embedder,
        judge=judges[0] if judges else "?",
        unchanged=all(record.unchanged for record in records),
        before=measures[0],
        runs=measures[1:],
        published=_find_published(dataset, embedder) if scale == "small" else None,
        text_variance=_measure_texts(before, after) if with_texts and len(after) >= MIN_TRAINING_SEEDS else None,
    )


def _check_origins(before: Path, after: Sequence[Path], checkpoints: Sequence[Path]) -> None:
    """Compare what the sidecars say; files from elsewhere have none."""
    measured, base = read_sidecar(before), read_sidecar(_find_embeds(before))
    trained = [read_sidecar(checkpoint) for checkpoint in checkpoints]
    for path, made, checkpoint in zip(after, trained, checkpoints, strict=True):
        found, vectors = read_sidecar(path), read_sidecar(_find_embeds(path))
        if found and measured and _describe_labels(found) != _describe_labels(measured):
            raise DataError(f"{path}: of other texts or labels than {before.name}; measure both again")
        if found and vectors and found.inputs.get("embeddings") != vectors.sha256:
            raise DataError(f"{path}: of other vectors than are there now; run {EMBED_AGAIN} again")
        if vectors and made and vectors.inputs.get("checkpoint") != made.sha256:
            raise DataError(f"{path}: not of {checkpoint.name} as it is now; run {EMBED_AGAIN} --overwrite")
        if base and made and _describe_embedder(base) != _describe_embedder(made):
            raise DataError(f"{before}: of another embedder than {checkpoint.name} began with; measure both again")
        if base and vectors and base.precision != vectors.precision:
            raise DataError(f"{path}: in {vectors.precision}, {before.name} in {base.precision}; measure both again")
        first = trained[0]
        if first and made and _describe_training(first) != _describe_training(made):
            raise DataError(
                f"{checkpoint}: trained with other settings, another judge or version than {checkpoints[0].name}; only "
                "training seeds of the same run can be compared together"
            )


def _describe_labels(measured: Sidecar) -> tuple[dict[str, Any], str | None]:
    return measured.settings, measured.inputs.get("texts")


def _describe_embedder(made: Sidecar) -> tuple[Any, ...]:
    """Return what tells embedders apart: the content of a folder, or the name on the hub."""
    content = made.inputs.get("embedder")
    return (content,) if content else (made.settings.get("embedder"), made.settings.get("revision"))


def _describe_training(made: Sidecar) -> tuple[Any, ...]:
    settings = {name: value for name, value in made.settings.items() if name != "seed"}
    judge = made.record.judge.name if made.record.judge else None
    return settings, judge, made.method_version, made.precision


def _find_embeds(measures: Path) -> Path:
    return measures.with_name(f"{measures.stem.removesuffix('_measures')}.npy")


def _measure_texts(before: Path, after: Sequence[Path]) -> dict[str, float]:
    found = []
    for measures, stage in ((before, EMBED), *((path, EMBED_AGAIN) for path in after)):
        path = clusterings_path(_find_embeds(measures))
        if not path.exists():
            raise DataError(f"{path}: no such file; run perspective/2_finetune/scripts/{stage} again, which adds it")
        found.append(read_vectors(path).astype(int))
        if not np.array_equal(found[-1][0], found[0][0]):
            raise DataError(f"{path}: made with other labels than the measures before; measure both again")
    (labels, *first), *runs = found
    return measure_text_variance(labels, np.stack(first), np.concatenate([run[1:] for run in runs]))


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
                    f"{one.scores_after(metric).mean():.2f} ± {one.scores_after(metric).std():.2f}",
                    str(one.interval(metric)),
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
            is_before = name == "before"
            scores = [np.array(one.before[metric]) if is_before else one.scores_after(metric) for one in comparisons]
            bars = axis.bar(
                positions + offset,
                [values.mean() for values in scores],
                0.38,
                yerr=[values.std() for values in scores],
                capsize=3,
                label=name,
                color="#9aa7b8" if is_before else "#2f6db3",
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
    n_seeds = len(comparison.runs)
    seeds = "one training seed" if n_seeds == 1 else f"{n_seeds} training seeds"
    about = "The embedder was adapted on these texts, or on a sample of them; there are as many clusters as classes."
    note = f"{about} {NOTE} Measured over {seeds}."
    write_text(card, f"{text}\n\n{CARD_HEADING}\n\n{note}\n\n{format_markdown([comparison])}")
