"""Fill the tables, figures and the picture of README and docs from the committed JSON.

Reads:  measures/*.json and after_measures/*.json that are committed, datasets/sources.json
Writes: README.md, README.ko.md and docs/*.md, between their markers; docs/results.png and docs/synthesis.png

    <!-- table: NAME [ARGUMENT ...] -->   a table of `TABLES`
    <!-- end -->
    <!-- = NAME ARGUMENT ... -->62.60<!-- / -->   a figure of `measured.FIGURES`

bash scripts/make_docs.sh
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import ROOT, atomic_path, display_path, write_text
from perspective.artifacts.markdown import format_table
from perspective.cli import entry_point, parse_settings
from perspective.errors import DataError, suggest_name
from perspective.evaluation.clustering_scores import METRICS
from perspective.evaluation.comparison import Comparison, format_text
from perspective.layout import STUDY_DATASETS
from perspective.leaderboard import measured
from perspective.leaderboard.measured import BASE, DATASETS, MEAN, TUNING
from perspective.leaderboard.pages import (
    cluster_tables,
    decoder_tables,
    hybrid_tables,
    pretraining_tables,
    reranking_tables,
    synthesis_tables,
)
from perspective.plots import make_figure

logger = logging.getLogger(__name__)

PICTURE = ROOT / "docs" / "results.png"
SYNTHESIS_PICTURE = ROOT / "docs" / "synthesis.png"
SHOWN = ("ACC", "NMI")
BODY = r"(?:(?!<!--).)*"  # no other marker: one that lacks its end is an error
TABLE = re.compile(rf"(<!-- table: ([^>]+?) -->\n){BODY}(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(rf"(<!-- = ([^>]+?) -->){BODY}(<!-- / -->)", re.DOTALL)

# The rows of the headline: name, then study and arm, or when of the published figures.
HEADLINE = (
    ("MiniLM (22M), as it comes", ("smollm2", BASE), "#c3ccd8"),
    ("MiniLM, adapted with SmolLM2-135M", ("smollm2", "method"), "#1f5fa8"),
    ("gte-large (335M), as it comes (published)", ("before",), "#e3cfa4"),
    ("gte-large, adapted with Starling-LM-7B (published)", ("after",), "#b8862b"),
)


def list_pages() -> list[Path]:
    """Return the pages that are filled."""
    return [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md"))]


def fill_page(text: str, name: str) -> str:
    """Return a page with every table and figure as the JSON gives it.

    Args:
        text: The page.
        name: Its name, for errors.

    Raises:
        DataError: A marker names nothing that is known, or has no end.
    """
    for pattern, opening, known in ((TABLE, "<!-- table:", TABLES), (FIGURE, "<!-- = ", FIGURES)):
        text, n_filled = pattern.subn(partial(_fill, known=known, page=name), text)
        if n_filled != text.count(opening):
            raise DataError(f'{name}: a marker "{opening}" has no end, or stands inside another')
    return text


def _fill(match: re.Match[str], known: Mapping[str, Callable[..., str]], page: str) -> str:
    start, call, end = match.groups()
    name, *arguments = call.split()
    if name not in known:
        raise DataError(f'{page}: marker "{call}": {suggest_name(name, known)}')
    try:
        return start + known[name](*arguments) + end
    except TypeError as error:
        raise DataError(f'{page}: marker "{call}": {error}') from None


def tabulate_headline() -> str:
    """A model a row, ACC / NMI on the four data sets and their mean; the best mean in bold."""
    means = {metric: [_headline_score(source, MEAN, metric) for _, source, _ in HEADLINE] for metric in SHOWN}
    rows = []
    for place, (name, source, _) in enumerate(HEADLINE):
        seeds = measured.count_seeds(*source) if len(source) == 2 and source[1] != BASE else ""
        cells = [" / ".join(_headline_cell(source, dataset, metric) for metric in SHOWN) for dataset in DATASETS]
        mean = " / ".join(
            f"**{means[metric][place]:.1f}**"
            if means[metric][place] == max(means[metric])
            else f"{means[metric][place]:.1f}"
            for metric in SHOWN
        )
        rows.append([name, seeds, *cells, mean])
    return format_table(["ACC / NMI (%)", "training seeds", *DATASETS, "mean"], rows)


def _headline_score(source: tuple[str, ...], dataset: str, metric: str) -> float:
    if len(source) == 2:
        return measured.mean_score(*source, dataset, metric)
    return measured.published_score(dataset, metric, *source)


def _headline_cell(source: tuple[str, ...], dataset: str, metric: str) -> str:
    text = f"{_headline_score(source, dataset, metric):.1f}"
    if len(source) == 2:
        text += f" ± {measured.load_scores(*source, dataset, metric).std():.1f}"
    return text


def tabulate_untouched() -> str:
    """The data sets, and the untouched MiniLM on them."""
    sources = measured.load(measured.SOURCES)
    rows = []
    for name in (name for name in STUDY_DATASETS if measured.has_arm("smollm2", BASE, name)):
        scores = [measured.load_scores("smollm2", BASE, name, metric) for metric in METRICS]
        counts = [f"{sources[name][count]:,}" for count in ("n_texts", "n_classes")]
        rows.append([name, sources[name]["perspective"], *counts, *(f"{s.mean():.2f} ± {s.std():.2f}" for s in scores)])
    return format_table(["data set", "perspective", "texts", "classes", *METRICS], rows)


def tabulate_sets(study: str) -> str:
    """Every data set of a study: before, after, the gain, and how much of it is the LLM's."""
    rows = []
    for name in STUDY_DATASETS:
        if not measured.has_arm(study, "method", name):
            continue
        cells = [
            " / ".join(f"{measured.mean_score(study, arm, name, m):.1f}" for m in SHOWN) for arm in (BASE, "method")
        ]
        gains = [
            " / ".join(measured.show_marked_gain(study, "method", name, metric, against) for metric in SHOWN)
            if measured.has_arm(study, against, name)
            else ""
            for against in (BASE, "no_llm")
        ]
        n_seeds = str(len(measured.load_study(study)[name]["method"]))
        rows.append([name, "tuning" if name in TUNING else "confirmation", n_seeds, *cells, *gains])
    columns = ["ACC / NMI", "role", "training seeds", "as it comes", "adapted", "gain", "of it the LLM's share"]
    return format_table(columns, rows)


def tabulate_gains(study: str, *chosen: str) -> str:
    """Gains of a study's arms over the untouched embedder, ACC / NMI; those measured when none is chosen."""
    measured_arms = list(dict.fromkeys(arm for arms in measured.load_study(study).values() for arm in arms))
    rows = []
    for arm in chosen or measured_arms:
        if arm == BASE:
            continue
        cells = [
            " / ".join(measured.show_marked_gain(study, arm, name, metric) for metric in SHOWN)
            if measured.has_arm(study, arm, name)
            else ""
            for name in DATASETS
        ]
        is_whole = measured.has_arm(study, arm, MEAN)
        mean = " / ".join(measured.show_gain(study, arm, MEAN, metric) for metric in SHOWN) if is_whole else ""
        rows.append([f"`{arm}`", measured.count_seeds(study, arm), *cells, mean])
    return format_table(["arm", "training seeds", *DATASETS, "mean"], rows)


def tabulate_published() -> str:
    """The published figures of gte-large, before and after."""
    rows = [
        [
            name,
            *(
                " → ".join(measured.show_published(name, metric, when) for when in ("before", "after"))
                for metric in METRICS
            ),
        ]
        for name in (*DATASETS, MEAN)
    ]
    return format_table(["data set", *METRICS], rows)


def show_quick_start() -> str:
    """The output of the first command, as `compare.sh` prints it."""
    before, after = (measured.load(path) for path in measured.QUICK_START.values())
    run = Comparison("banking77", "minilm", "smollm2", unchanged=False, before=before, runs=[after])
    return f"```\n{format_text([run])}\n```\n"


def tabulate_speed() -> str:
    """Our stages against what people would run instead."""
    rows = [
        [
            row["what"],
            row["against"],
            row["target"],
            f"{row['ratio']:.2f}x" if row["ratio"] else "",
            f"{row['ours_seconds']:.3g}" if row["ours_seconds"] else "",
            f"{row['other_seconds']:.3g}" if row["other_seconds"] else "",
            row["equal"],
            row["note"],
        ]
        for stage in measured.load(measured.SPEED)["stages"].values()
        for row in stage
    ]
    return format_table(["stage", "against", "target", "ratio", "ours, s", "other, s", "equal", "note"], rows)


def describe_machines() -> str:
    """The machines of the speed table, and what was measured on each."""
    stages: dict[str, list[str]] = {}
    for stage, machine in measured.load(measured.SPEED)["machines"].items():
        stages.setdefault(", ".join(f"{name} {value}" for name, value in machine.items()), []).append(stage)
    return "".join(f"- {', '.join(names)}: {machine}\n" for machine, names in stages.items())


def tabulate_retrieval() -> str:
    """Retrievers on the docstrings, with 95% intervals over queries."""
    rows = [
        [
            row["retriever"],
            *(
                f"{row['scores'][metric]:.2f} [{', '.join(f'{bound:.2f}' for bound in row['interval'][metric])}]"
                for metric in ("NDCG@1", "NDCG@10")
            ),
        ]
        for row in measured.load(measured.RETRIEVAL)["rows"]
    ]
    return format_table(["retriever", "NDCG@1", "NDCG@10"], rows)


TABLES: dict[str, Callable[..., str]] = {
    "headline": tabulate_headline,
    "untouched": tabulate_untouched,
    "sets": tabulate_sets,
    "gains": tabulate_gains,
    "published": tabulate_published,
    "quick_start": show_quick_start,
    "speed": tabulate_speed,
    "speed_machines": describe_machines,
    "retrieval": tabulate_retrieval,
    "help_pages": reranking_tables.tabulate_help_pages,
    "reranked": reranking_tables.tabulate_reranked,
    "learned_from_reranker": reranking_tables.tabulate_learned,
    "filtered_pairs": reranking_tables.tabulate_filtered,
    "noisy_pairs": reranking_tables.tabulate_noisy,
    "counting": cluster_tables.tabulate_counting,
    "naming": cluster_tables.tabulate_naming,
    "unseen_texts": cluster_tables.tabulate_unseen,
    "unknown_classes": cluster_tables.tabulate_unknown,
    "conformity": synthesis_tables.tabulate_conformity,
    "synthesis_worth": synthesis_tables.tabulate_worth,
    "pretraining": pretraining_tables.tabulate_pretraining,
    "decoder_arms": decoder_tables.tabulate_arms,
    "masked_loss": decoder_tables.tabulate_masked_loss,
    "decoders_tuned": decoder_tables.tabulate_tuned,
    "hybrid": hybrid_tables.tabulate_hybrid,
    "published_way": hybrid_tables.tabulate_published_way,
    "hybrid_gains": hybrid_tables.tabulate_hybrid_gains,
}

FIGURES: dict[str, Callable[..., str]] = {
    **measured.FIGURES,
    "assigning_size": cluster_tables.show_assigning_size,
    "help_pages_size": reranking_tables.show_help_size,
    "reranking_size": reranking_tables.show_size,
    "reranking_rate": reranking_tables.show_rate,
    "reranking_difference": reranking_tables.show_difference,
    "decoder_size": decoder_tables.show_size,
    "decoder_minutes": decoder_tables.show_minutes,
    "pretraining_tokens": pretraining_tables.show_tokens,
    "pretraining_speed": pretraining_tables.show_speed,
    "hybrid_size": hybrid_tables.show_size,
    "hybrid_seeds": hybrid_tables.show_seeds,
    "hybrid_minutes": hybrid_tables.show_minutes,
    "hybrid_terms": hybrid_tables.show_terms,
}


def picture_data() -> dict[str, Any]:
    """Return what the picture shows, a bar an entry: `{metric: {row: [per data set, then the mean]}}`."""
    return {
        metric: {
            name: [round(_headline_score(source, dataset, metric), 2) for dataset in (*DATASETS, MEAN)]
            for name, source, _ in HEADLINE
        }
        for metric in SHOWN
    }


def draw_results(path: Path) -> None:
    """Draw the headline as bars; the PNG carries what it shows, so that a test can compare it."""
    data = picture_data()
    figure, axes = make_figure(ncols=len(SHOWN), width=13, height=4.2)
    places = np.arange(len(DATASETS) + 1)
    for axis, metric in zip(axes, SHOWN, strict=True):
        for offset, (name, _, color) in zip(np.linspace(-0.34, 0.34, len(HEADLINE)), HEADLINE, strict=True):
            bars = axis.bar(places + offset, data[metric][name], 0.16, label=name, color=color)
            axis.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
        axis.set_xticks(places, [*DATASETS, "mean of the four"], fontsize=8.5)
        axis.axvline(len(DATASETS) - 0.5, color="#888888", linewidth=0.6)
        axis.set_title(f"{metric} (%)")
        axis.set_ylim(0, 102)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8.5
    )
    metadata = {"Software": None, "Description": json.dumps(data)}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata=metadata)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Fill the pages."""
    parse_settings((), argv, __doc__)
    for path in list_pages():
        old = path.read_text(encoding="utf-8")
        new = fill_page(old, path.name)
        if new != old:
            write_text(path, new)
            logger.info("wrote %s", display_path(path))
    draw_results(PICTURE)
    synthesis_tables.draw_conformity(SYNTHESIS_PICTURE)
    logger.info("wrote %s and %s", display_path(PICTURE), display_path(SYNTHESIS_PICTURE))


if __name__ == "__main__":
    main()
