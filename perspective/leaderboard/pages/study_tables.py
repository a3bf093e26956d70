"""Tables and the picture of the study: README, docs/results.md, docs/ablations.md and docs/decoders.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import ROOT, atomic_path
from perspective.artifacts.markdown import format_table
from perspective.data.held_out import SETS as HELD_OUT_SETS
from perspective.evaluation.clustering_scores import METRICS, pair_gains
from perspective.layout import MEASURES, STUDY_BASE, STUDY_DATASETS
from perspective.leaderboard import measured
from perspective.leaderboard.measured import DATASETS, MEAN, TUNING
from perspective.plots import make_figure

PICTURE = ROOT / "docs" / "results.png"
UNSEEN = MEASURES / "benchmark_unseen.json"
VIEWS = MEASURES / "benchmark_views.json"
PERSPECTIVES = MEASURES / "benchmark_perspectives.json"
JUDGES = MEASURES / "benchmark_judges.json"
SHOWN = ("ACC", "NMI")

# The rows of the headline: name, then study and arm, or when of the published figures.
HEADLINE = (
    ("MiniLM (22M), as it comes", ("smollm2", STUDY_BASE), "#c3ccd8"),
    ("MiniLM, adapted without an LLM", ("smollm2", "no_llm"), "#9cbadb"),
    ("MiniLM, adapted with SmolLM2-135M (4-bit)", ("smollm2", "method"), "#6f9fd0"),
    ("MiniLM, adapted with Qwen2.5-Coder-0.5B (4-bit)", ("qwen", "method"), "#1f5fa8"),
    ("MiniLM, adapted with Qwen2.5-Coder-1.5B (4-bit)", ("qwen15", "method"), "#123a66"),
    ("all-mpnet-base-v2 (110M), as it comes", ("mpnet", STUDY_BASE), "#9bbf9b"),
    ("gte-large (335M), as it comes (published)", ("before",), "#e3cfa4"),
    ("gte-large, adapted with Starling-LM-7B (published)", ("after",), "#b8862b"),
)

# The two data sets that have recorded answers of a larger judge, and what is made of these.
JUDGED_DATASETS = ("banking77", "mtop_domain")
JUDGED = (
    ("MiniLM, as it comes", ("smollm2", STUDY_BASE)),
    ("adapted with SmolLM2", ("smollm2", "method")),
    ("the same, after Starling's triplets", ("smollm2", "starling")),
    ("the same, after these triplets with MiniLM's own choices", ("smollm2", "starling_self")),
    ("after Starling's triplets, without answer states", ("smollm2", "starling_alone")),
    ("trained on Starling's triplets alone", ("smollm2", "starling_triplets")),
    ("gte-large, adapted with Starling (published)", ("after",)),
)


def tabulate_headline() -> str:
    """A model a row, ACC / NMI on the four data sets and their mean; the best mean in bold, but not of one seed."""
    means = {metric: [_headline_score(source, MEAN, metric) for _, source, _ in HEADLINE] for metric in SHOWN}
    may_be_best = [_count_seeds(source) != "1" for _, source, _ in HEADLINE]
    best = {metric: np.where(may_be_best, scores, 0).argmax() for metric, scores in means.items()}
    rows = []
    for place, (name, source, _) in enumerate(HEADLINE):
        cells = [" / ".join(_headline_cell(source, dataset, metric) for metric in SHOWN) for dataset in DATASETS]
        shown = {metric: f"{scores[place]:.1f}" for metric, scores in means.items()}
        mean = " / ".join(f"**{text}**" if best[metric] == place else text for metric, text in shown.items())
        rows.append([name, _count_seeds(source), *cells, mean])
    return format_table(["ACC / NMI (%)", "training seeds", *DATASETS, "mean"], rows)


def _count_seeds(source: tuple[str, ...]) -> str:
    return measured.count_seeds(*source) if len(source) == 2 and source[1] != STUDY_BASE else ""


def _headline_score(source: tuple[str, ...], dataset: str, metric: str) -> float:
    if len(source) == 2:
        return measured.mean_score(*source, dataset, metric)
    return measured.published_score(dataset, metric, *source)


def _headline_cell(source: tuple[str, ...], dataset: str, metric: str) -> str:
    if len(source) == 2:
        spread = float(measured.load_scores(*source, dataset, metric).std())
    else:
        spread = measured.published_spread(dataset, metric, *source)
    return f"{_headline_score(source, dataset, metric):.1f} ± {spread:.1f}"


def tabulate_judged() -> str:
    """What the recorded answers of a larger judge add, ACC / NMI."""
    rows = []
    for name, source in JUDGED:
        cells = [" / ".join(_headline_cell(source, dataset, metric) for metric in SHOWN) for dataset in JUDGED_DATASETS]
        rows.append([name, _count_seeds(source), *cells])
    return format_table(["ACC / NMI (%)", "training seeds", *JUDGED_DATASETS], rows)


def tabulate_untouched() -> str:
    """The data sets, and the untouched MiniLM on them."""
    sources = measured.load(measured.SOURCES)
    rows = []
    for name in (name for name in STUDY_DATASETS if measured.has_arm("smollm2", STUDY_BASE, name)):
        scores = [measured.load_scores("smollm2", STUDY_BASE, name, metric) for metric in METRICS]
        counts = [f"{sources[name][count]:,}" for count in ("n_texts", "n_classes")]
        rows.append([name, sources[name]["perspective"], *counts, *(f"{s.mean():.2f} ± {s.std():.2f}" for s in scores)])
    return format_table(["data set", "perspective", "texts", "classes", *METRICS], rows)


def tabulate_sets(study: str) -> str:
    """Every data set of a study: before, after, the gain, and how much of it is the LLM's."""
    rows = []
    for name in (*STUDY_DATASETS, *HELD_OUT_SETS):
        if not measured.has_arm(study, "method", name):
            continue
        cells = [_show_scores(study, arm, name) for arm in (STUDY_BASE, "method")]
        gains = [
            " / ".join(measured.show_marked_gain(study, "method", name, metric, against) for metric in SHOWN)
            if measured.has_arm(study, against, name)
            else ""
            for against in (STUDY_BASE, "no_llm")
        ]
        n_seeds = str(len(measured.load_study(study)[name]["method"]))
        rows.append([name, _find_role(name), n_seeds, *cells, *gains])
    columns = ["ACC / NMI", "role", "training seeds", "as it comes", "adapted", "gain", "of it the LLM's share"]
    n_columns = len(columns) if any(row[-1] for row in rows) else len(columns) - 1  # measured without its control
    return format_table(columns[:n_columns], [row[:n_columns] for row in rows])


def tabulate_clusterllm() -> str:
    """What ClusterLLM's authors publish, beside MiniLM adapted with the smallest and the largest LLM, ACC / NMI."""
    published = measured.load(measured.PUBLISHED)["clusterllm"]["results"]
    rows = [
        [
            name,
            " / ".join(f"{scores[metric]:.1f}" for metric in SHOWN),
            *(
                _show_scores(study, "method", name) if measured.has_arm(study, "method", name) else ""
                for study in ("qwen15", "smollm2")
            ),
        ]
        for name, scores in published.items()
    ]
    columns = ["ACC / NMI", "ClusterLLM, GPT-3.5 (published)", "MiniLM, adapted with Qwen2.5-Coder-1.5B"]
    return format_table([*columns, "MiniLM, adapted with SmolLM2-135M"], rows)


def show_role_gain(role: str, against: str) -> str:
    """+8.9: mean gain in ACC over the sets of a role, "tuning" or "confirmation", with SmolLM2 as the LLM."""
    names = [name for name in (*STUDY_DATASETS, *HELD_OUT_SETS) if _find_role(name) == role]
    gains = [
        measured.mean_score("smollm2", "method", name, "ACC") - measured.mean_score("smollm2", against, name, "ACC")
        for name in names
    ]
    return f"{np.mean(gains):+.1f}"


def _show_scores(study: str, arm: str, dataset: str) -> str:
    return " / ".join(f"{measured.mean_score(study, arm, dataset, metric):.1f}" for metric in SHOWN)


def _find_role(dataset: str) -> str:
    return "tuning" if dataset in TUNING else "confirmation"


def tabulate_unseen_gains(study: str) -> str:
    """Scores of texts that the embedder was not adapted on, and its gain on texts that it was adapted on."""
    rows = []
    for name, cells in measured.load(UNSEEN).items():
        found = [
            " / ".join(f"{np.mean([cell[when][metric] for cell in cells.values()]):.2f}" for metric in SHOWN)
            for when in ("before", "after")
        ]
        gains = [
            " / ".join(measured.format_spread(_load_unseen_gains(name, metric, base)) for metric in SHOWN)
            for base in ("before", "no_llm")
        ]
        seen = " / ".join(measured.show_gain_spread(study, "method", name, metric) for metric in SHOWN)
        n_unseen = f"{next(iter(cells.values()))['n_unseen']:,}"
        rows.append([name, n_unseen, str(len(cells)), *found, *gains, seen])
    columns = ["ACC / NMI", "unseen texts", "seeds", "as it comes", "adapted on the others"]
    return format_table([*columns, "gain", "of it the LLM's share", "gain when adapted on all"], rows)


def show_unseen_gain(dataset: str, metric: str) -> str:
    """+4.48: of texts that the embedder was not adapted on."""
    return f"{_load_unseen_gains(dataset, metric).mean():+.2f}"


def _load_unseen_gains(dataset: str, metric: str, base: str = "before") -> np.ndarray:
    cells = measured.find(measured.load(UNSEEN), dataset, of="unseen texts")
    before, after = ({seed: cell[when] for seed, cell in cells.items()} for when in (base, "after"))
    return pair_gains(after, before, metric)


def tabulate_views() -> str:
    """Teachers of other views: scores, and the difference to the method's teacher by k-means seed."""
    results = measured.load(VIEWS)
    method = "the method"
    scores = [[f"{np.mean(cells[method][metric]):.1f}" for metric in SHOWN] for cells in results.values()]
    rows = [[method, *map(" / ".join, scores)]]
    for view in next(iter(results.values())):
        if view == method:
            continue
        differences = [
            [np.subtract(cells[view][metric], cells[method][metric]) for metric in SHOWN] if view in cells else []
            for cells in results.values()
        ]
        rows.append([view, *(" / ".join(map(measured.format_spread, of_set)) for of_set in differences)])
    return format_table(["teacher, ACC / NMI", *results], rows)


def tabulate_perspectives() -> str:
    """The same texts adapted to one perspective and to the other, measured by the labels of both."""
    rows = []
    cells = [cell for cell in measured.load(PERSPECTIVES) if cell["perspective"] is None or cell["seed"] is not None]
    for perspective in dict.fromkeys(cell["perspective"] for cell in cells):
        chosen = [cell for cell in cells if cell["perspective"] == perspective]
        name = f'adapted to "{perspective}"' if perspective else "as it comes"
        rows.append([name, str(len(chosen)) if perspective else "", *_score_by_both(chosen)])
    return format_table(["ACC / NMI", "training seeds", "by intents (150)", "by domains (10)"], rows)


def tabulate_wordings() -> str:
    """Teachers of five wordings of each of two perspectives, measured by the labels of both."""
    cells = [cell for cell in measured.load(PERSPECTIVES) if cell["perspective"] and cell["seed"] is None]
    rows = [[f'"{cell["wording"]}"', *_score_by_both([cell])] for cell in cells]
    return format_table(["teacher asked for, ACC / NMI", "by intents (150)", "by domains (10)"], rows)


def tabulate_judges() -> str:
    """Ways to ask an LLM about the same triplets: whether it follows the position, and how often it is right."""
    rows = []
    for row in measured.load(JUDGES):
        # A pair has no first choice, and answer states have no orders.
        first = f"{row['answers_naming_first_position']:.0f}%" if row["judge"] == "choice" else ""
        kappa = "" if row["order_kappa"] is None else f"{row['order_kappa']:.2f}"
        named = f"{row['llm_accuracy']:.0f}% of {row['llm_n_answered']}" if row["llm_n_answered"] else "none named"
        right = [f"{row[name]:.0f}%" for name in ("llm_leaning_accuracy", "embedder_accuracy")]
        texts = f"{row['dataset']}, {row['n_decidable']} of {row['n_judgments']}"
        rows.append([texts, row["llm"], f"`{row['judge']}`", first, kappa, named, *right])
    asked = ["data set, decidable triplets", "LLM", "judge", "first position named", "kappa of both orders"]
    return format_table([*asked, "right where named", "right by the likelier", "the embedder"], rows)


def _score_by_both(cells: list[dict[str, Any]]) -> list[str]:
    """Return mean ± standard deviation of cells by the intents and by the domains."""
    found = {
        (labels, metric): np.concatenate([cell["scores"][labels][metric] for cell in cells])
        for labels in ("intent", "domain")
        for metric in SHOWN
    }
    return [
        " / ".join(f"{found[labels, metric].mean():.1f} ± {found[labels, metric].std():.1f}" for metric in SHOWN)
        for labels in ("intent", "domain")
    ]


def tabulate_gains(study: str, *chosen: str) -> str:
    """Gains of a study's arms over the untouched embedder, ACC / NMI; those measured when none is chosen."""
    measured_arms = list(dict.fromkeys(arm for arms in measured.load_study(study).values() for arm in arms))
    rows = []
    for arm in chosen or measured_arms:
        if arm == STUDY_BASE:
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
    figure, axes = make_figure(ncols=len(SHOWN), width=14, height=4.2)
    places, width = np.arange(len(DATASETS) + 1), 0.9 / len(HEADLINE)
    offsets = width * (np.arange(len(HEADLINE)) - (len(HEADLINE) - 1) / 2)
    for axis, metric in zip(axes, SHOWN, strict=True):
        for offset, (name, _, color) in zip(offsets, HEADLINE, strict=True):
            bars = axis.bar(places + offset, data[metric][name], width, label=name, color=color)
            axis.bar_label(bars, fmt="%.0f", fontsize=6, padding=1)
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
