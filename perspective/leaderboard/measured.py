"""Figures of the committed JSON, by name: what the tables and the prose of the pages are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import ROOT, read_json
from perspective.artifacts.markdown import format_interval
from perspective.errors import DataError, suggest_name
from perspective.evaluation.clustering_scores import pair_gains
from perspective.evaluation.intervals import MIN_TRAINING_SEEDS, format_gain
from perspective.layout import AFTER_MEASURES, MEASURES, STUDY_BASE, study_folder
from perspective.layout import PUBLISHED_DATASETS as DATASETS

MEAN = "mean"  # over the four data sets
# Short names of the studies on the pages: (embedder, LLM).
STUDIES = {
    "smollm2": ("minilm", "smollm2"),
    "qwen": ("minilm", "qwen05"),
    "qwen15": ("minilm", "qwen15"),
    "decoder": ("smollm2", "smollm2"),
    "mpnet": ("sentence-transformers/all-mpnet-base-v2", "smollm2"),
}
# Settings were chosen with these in view.
TUNING = ("banking77", "stackexchange", "clinc", "massive_scenario", "go_emotion")
RETRIEVAL = MEASURES / "retrieval_docstrings.json"
SPEED = MEASURES / "benchmark_speed.json"
PUBLISHED = MEASURES / "published.json"
SOURCES = ROOT / "datasets" / "sources.json"
QUICK_START = {
    "before": MEASURES / "reference" / "banking77_small_embeds_minilm_measures.json",
    "after": AFTER_MEASURES / "reference" / "banking77_small_embeds_minilm-smollm2_seed=100_measures.json",
}


@cache
def load(path: Path) -> Any:  # noqa: ANN401  an object or a list
    """Read a committed JSON file once."""
    return read_json(path)


def find(found: Any, *names: str, of: object) -> Any:  # noqa: ANN401
    """Return an entry of nested objects.

    Raises:
        DataError: There is none of a name; the message names the nearest.
    """
    for name in names:
        if name not in found:
            raise DataError(f'{of}: no "{name}": {suggest_name(name, found)}')
        found = found[name]
    return found


def load_study(study: str) -> dict[str, Any]:
    """Return the cells of a study: `{dataset: {arm: {seed: {metric: [per k-means seed]}}}}`."""
    pair = find(STUDIES, study, of="studies")
    folder = study_folder(*pair)
    cells: dict[str, Any] = load(folder.with_name(f"{folder.name}.json"))
    return cells


def load_scores(study: str, arm: str, dataset: str, metric: str) -> np.ndarray:
    """Return an arm's scores in percent: `(n_training_seeds, n_kmeans_seeds)`."""
    cells = find(load_study(study), dataset, arm, of=study)
    return np.array([find(cell, metric, of=f"{study} {arm}") for cell in cells.values()])


def load_gains(study: str, arm: str, dataset: str, metric: str) -> np.ndarray:
    """Return an arm's scores minus those of the untouched embedder, paired by k-means seed."""
    arms = find(load_study(study), dataset, of=study)
    return pair_gains(find(arms, arm, of=study), find(arms, STUDY_BASE, of=study), metric)


def has_arm(study: str, arm: str, dataset: str) -> bool:
    """Whether a study measured an arm on a data set, or for `mean` on the four published ones."""
    names = DATASETS if dataset == MEAN else (dataset,)
    return all(arm in load_study(study).get(name, {}) for name in names)


def count_seeds(study: str, arm: str) -> str:
    """Return how many training seeds an arm has on the published sets: "3", or "1-3" where these differ."""
    counts = {len(arms[arm]) for name, arms in load_study(study).items() if name in DATASETS and arm in arms}
    return "-".join(map(str, sorted(counts)))


def mean_score(study: str, arm: str, dataset: str, metric: str) -> float:
    """Return the mean over all seeds, or for `mean` the mean of the four data sets' means."""
    names = DATASETS if dataset == MEAN else (dataset,)
    return float(np.mean([load_scores(study, arm, name, metric).mean() for name in names]))


def load_koe5() -> dict[str, Any]:
    """Return what KoE5's authors publish: "sets", "metrics", and "results" by model."""
    found: dict[str, Any] = load(Path(__file__).with_name("published.json"))
    return found


def published_score(dataset: str, metric: str, when: str) -> float:
    """Return the published mean of gte-large, "before" or "after" Starling."""
    names = DATASETS if dataset == MEAN else (dataset,)
    return float(np.mean([_find_published("results", name, metric, when) for name in names]))


def published_spread(dataset: str, metric: str, when: str) -> float:
    """Return the published standard deviation over k-means seeds, "before" or "after" Starling."""
    return _find_published("spreads", dataset, metric, when)


def _find_published(part: str, dataset: str, metric: str, when: str) -> float:
    place = find({"before": 0, "after": 1}, when, of="published")
    return float(find(load(PUBLISHED), part, dataset, metric, of="published")[place])


# What a marker in the prose may name; each returns the text for it.


def show_score(study: str, arm: str, dataset: str, metric: str) -> str:
    """62.60."""
    return f"{mean_score(study, arm, dataset, metric):.2f}"


def show_gain(study: str, arm: str, dataset: str, metric: str) -> str:
    """+2.08."""
    return f"{mean_score(study, arm, dataset, metric) - mean_score(study, STUDY_BASE, dataset, metric):+.2f}"


def show_gain_spread(study: str, arm: str, dataset: str, metric: str) -> str:
    """+2.08 ± 2.71, over training and k-means seeds."""
    return format_spread(load_gains(study, arm, dataset, metric))


def format_spread(gains: np.ndarray) -> str:
    """Return the mean of gains and their standard deviation."""
    return f"{gains.mean():+.2f} ± {gains.std():.2f}"


def show_marked_gain(study: str, arm: str, dataset: str, metric: str, against: str = STUDY_BASE) -> str:
    """+1.56 ± 0.71*, with a star where the interval over three or more training seeds leaves out 0."""
    arms = find(load_study(study), dataset, of=study)
    text = format_gain(find(arms, arm, of=study), find(arms, against, of=study), metric)
    # The other arm varies by training seed, too: one run of it gives no interval.
    is_trained_once = against != STUDY_BASE and len(arms[against]) < MIN_TRAINING_SEEDS
    return text.rstrip("*") if is_trained_once else text


def show_published(dataset: str, metric: str, when: str) -> str:
    """68.21."""
    return f"{published_score(dataset, metric, when):.2f}"


def show_retrieval(key: str) -> str:
    """+3.05 [+2.06, +4.05], a paired difference of NDCG@10."""
    rows = {row["key"]: row for row in load(RETRIEVAL)["differences"]}
    row = find(rows, key, of=RETRIEVAL.name)
    return f"{row['mean']:+.2f} {format_interval(row['interval'], '+.2f')}"


def show_size(path: Path, *words: str) -> str:
    """A size of a study, by its name in the file."""
    return f"{load(path)['sizes'][' '.join(words)]:,}"


def show_minutes(path: Path) -> str:
    """Processor minutes of the cells of a study that are measured."""
    cells = load(path)["cells"]  # by name, or a list
    cells = cells.values() if isinstance(cells, dict) else cells
    return f"{sum(cell['processor_seconds'] for cell in cells) / 60:.0f}"


def show_speed(stage: str, row: str, name: str) -> str:
    """59.7x, or seconds."""
    rows = find(load(SPEED), "stages", stage, of=SPEED.name)
    value = find(rows[int(row)], name, of=SPEED.name)
    return f"{value:.1f}x" if name == "ratio" else f"{value:.0f}"


FIGURES: dict[str, Callable[..., str]] = {
    "score": show_score,
    "gain": show_gain,
    "published": show_published,
    "retrieval": show_retrieval,
    "speed": show_speed,
}
