"""Compare the method with its ablations and with control experiments.

Each arm calls the entry scripts of stages 1 and 2, which write into the study's folder. A cell is one
arm on one data set with one training seed.

Reads:  datasets/<dataset>/small.jsonl; with --recorded, a folder of recorded answers
Writes: measures/benchmark_quality/, all files of the stages and one JSON file per cell, from which a
        killed study resumes; measures/benchmark_quality.json, all cells, earlier ones included; and
        .md, the table. Other models than the default write to benchmark_quality-EMBEDDER-LLM

python -m perspective.benchmarks.quality --datasets banking77 stackexchange --seeds 100 13 21
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import (
    Output,
    dump_json,
    hash_file,
    read_json,
    read_vectors,
    write_text,
)
from perspective.artifacts.markdown import format_table
from perspective.artifacts.provenance import METHOD_VERSIONS
from perspective.benchmarks.study_run import StudyOptions, StudyRun
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings
from perspective.data.held_out import SETS as HELD_OUT_SETS
from perspective.errors import DataError, require_known
from perspective.evaluation.clustering_scores import METRICS, pair_gains, score_clustering
from perspective.evaluation.intervals import format_gain
from perspective.evaluation.labels import require_labels
from perspective.layout import STUDY_BASE as BASE
from perspective.layout import STUDY_DATASETS
from perspective.models.registry import find_local
from perspective.options import option
from perspective.runtime.devices import reading_precision, training_precision

logger = logging.getLogger(__name__)

DATASETS = (*STUDY_DATASETS, *HELD_OUT_SETS)
SEEDS = (100, 13, 21)
# What cells are made of: a new version of one of these methods makes finished cells out of date.
INGREDIENTS = (
    *("embeddings", "answer states", "teacher", "triplets", "judgments"),
    *("training triplets", "embedder", "measures"),
)


@dataclass(frozen=True)
class StudySettings(StudyOptions):
    """What is compared."""

    datasets: list[str] = option("data sets", default=list(STUDY_DATASETS), group="input", aliases=("--dataset",))
    arms: list[str] | None = option("arms; default all", default=None, group="input", aliases=("--arm",))
    seeds: list[int] = option("seeds of sampling and training", default=list(SEEDS))
    recorded: str | None = option(
        "folder of <dataset>-starling-pred.json, for the arms that use them", default=None, group="input"
    )

    def __post_init__(self) -> None:
        """Check names."""
        if self.recorded and not Path(self.recorded).is_dir():
            raise DataError(f"--recorded {self.recorded}: no such folder")
        require_known("arm", self.arms or [], ARMS)
        require_known("dataset", self.datasets, DATASETS)


# Each returns vectors of all texts; labels are only read to score these.
ARMS: dict[str, Callable[[StudyRun, int], np.ndarray]] = {
    BASE: lambda run, seed: read_vectors(run.embed()),
    "method": lambda run, seed: run.train_on_teacher(seed),
    "method+llm": lambda run, seed: run.blend(seed),
    "no_llm": lambda run, seed: run.train_on_teacher(seed, "--by_embedder"),
    "two_rounds": lambda run, seed: run.train_twice(seed),
    # Teachers themselves, without training: they exist for known texts only, and show what each part contributes.
    "teacher": lambda run, seed: read_vectors(run.teach()),
    "teacher_no_llm": lambda run, seed: read_vectors(run.teach("--by_embedder")),
    "teacher_weight_0": lambda run, seed: read_vectors(run.teach("--weight", "0")),
    "teacher_weight_1": lambda run, seed: read_vectors(run.teach("--weight", "1")),
    "teacher_no_diffusion": lambda run, seed: read_vectors(run.teach("--no_diffused")),
    "triplets": lambda run, seed: run.train(run.convert(run.judge(seed)), "standard", seed),
    "more_triplets": lambda run, seed: run.train(run.convert(run.judge(seed, 4 * 1024)), "standard", seed),
    "no_neither": lambda run, seed: run.train(run.convert(run.judge(seed), forced=True), "standard", seed),
    "random_triplets": lambda run, seed: run.train(run.convert(run.judge(seed, at_random=True)), "standard", seed),
    "self_triplets": lambda run, seed: run.train(run.convert_by_embedder(run.judge(seed)), "standard", seed),
    # The published judge does not abstain.
    "published_recipe": lambda run, seed: run.train(run.convert(run.judge(seed), forced=True), "published", seed),
    "starling": lambda run, seed: run.train_on_teacher(seed, triplets=run.convert(run.recorded)),
    "starling_alone": lambda run, seed: run.train_on_teacher(
        seed, "--states_llm", "none", triplets=run.convert(run.recorded)
    ),
    "starling_self": lambda run, seed: run.train_on_teacher(seed, triplets=run.convert_by_embedder(run.recorded)),
    "starling_triplets": lambda run, seed: run.train(run.convert(run.recorded), "standard", seed),
    "starling_published_recipe": lambda run, seed: run.train(run.convert(run.recorded), "published", seed),
}
ONE_SEED = (BASE, *(arm for arm in ARMS if arm.startswith("teacher")))  # without training and sampling
RECORDED = tuple(arm for arm in ARMS if arm.startswith("starling"))


def run_study(settings: StudySettings) -> dict[str, Any]:
    """Measure every cell that is not finished.

    Each cell is a file of its own, so that several processes can share the work, one data set each.

    Args:
        settings: What is compared.

    Returns:
        `{dataset: {arm: {seed: {"ACC": [per k-means seed], "NMI": [...], "ARI": [...]}}}}`; newer
        cells also hold the "precision" of their models.
    """
    get_run = cache(lambda dataset: StudyRun(dataset, settings, recorded=settings.recorded))
    for arm, dataset, seed in _list_cells(settings):
        run = get_run(dataset)
        if arm in RECORDED and not run.recorded.exists():
            logger.info("%s: no recorded answers", dataset)
            continue
        cell = find_cell(run, arm, seed)
        if cell.is_finished(settings.overwrite):
            continue
        vectors = ARMS[arm](run, seed)
        scores = score_vectors(vectors, run.corpus)
        cell.write_json({**scores, "precision": cell.precision})
        logger.info("%s %s %d: ACC %.2f NMI %.2f", dataset, arm, seed, *(np.mean(scores[m]) for m in ("ACC", "NMI")))
    path = settings.folder.with_name(f"{settings.folder.name}.json")
    results = _gather(settings.folder, read_json(path) if path.exists() else {})
    write_text(path, dump_json(results))
    write_text(path.with_suffix(".md"), format_study(results))
    return results


def find_cell(run: StudyRun, arm: str, seed: int) -> Output:
    """Return the file of a cell."""
    models = {"embedder": run.settings.embedder, "llm": run.settings.llm}
    settings = {
        **{"arm": arm, "seed": seed, **models},
        "methods": list_method_versions(),
        **_hash_local(**models),
    }
    inputs = {"texts": run.corpus.path} | ({"recorded": run.recorded} if arm in RECORDED else {})
    path = run.folder / f"{run.dataset}-{arm}-{seed}.json"
    return Output(path, "study cell", settings, inputs, precision=describe_precisions())


def describe_precisions() -> str:
    """Return the precisions of reading and of training, both of which decide a cell."""
    return f"{reading_precision()}, trained in {training_precision()}"


def list_method_versions() -> dict[str, int]:
    """Return the versions of the methods that a cell is made by; each study writes them into its cells' settings."""
    return {name: METHOD_VERSIONS.get(name, 1) for name in INGREDIENTS}


@cache
def _hash_local(**models: str) -> dict[str, str]:
    return {role: hash_file(path) for role, path in find_local(**models).items()}


def score_vectors(vectors: np.ndarray, corpus: CorpusSettings) -> dict[str, list[float]]:
    """Return `{metric: [percent per k-means seed]}`; only here the study reads labels.

    Raises:
        DataError: The data set has none.
    """
    measures = score_clustering(vectors, require_labels(corpus), "small")
    return {metric: measures[metric] for metric in METRICS}


def _gather(folder: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return all cells: those of the folder, and of the others those measured earlier."""
    results: dict[str, Any] = {}
    for dataset in DATASETS:
        for arm in ARMS:
            cells = dict(earlier.get(dataset, {}).get(arm, {}))
            for path in sorted(folder.glob(f"{dataset}-{arm}-*.json")):
                seed = path.stem.removeprefix(f"{dataset}-{arm}-")
                if seed.isdigit():
                    cells[seed] = read_json(path)
            if cells:
                results.setdefault(dataset, {})[arm] = cells
    return results


def _list_cells(settings: StudySettings) -> Iterable[tuple[str, str, int]]:
    for arm in dict.fromkeys([BASE, *(settings.arms or ARMS)]):  # gains are differences to it
        for seed in SEEDS[:1] if arm in ONE_SEED else settings.seeds:
            for dataset in settings.datasets:
                yield arm, dataset, seed


def format_study(results: Mapping[str, Any]) -> str:
    """Return the table: mean gain over the untouched embedder ± its standard deviation.

    Gains are paired: each k-means seed of each training seed minus the same k-means seed of the
    untouched embedder. A star marks a gain, or a loss, whose 95% interval over three or more training
    seeds leaves out 0. It holds for these texts: cells have scores, not clusterings.
    """
    datasets = [name for name in DATASETS if BASE in results.get(name, {})]
    rows = [[f"{BASE} (ACC / NMI)", "", *(_format_base(results[name][BASE]) for name in datasets), ""]]
    for arm in ARMS:
        if arm == BASE or not any(results[name].get(arm) for name in datasets):
            continue
        gains = {name: _gains(results[name], arm) for name in datasets if results[name].get(arm)}
        cells = [_format_gain(results[name], arm) if name in gains else "" for name in datasets]
        n_seeds = sorted({len(results[name][arm]) for name in gains})
        mean = " / ".join(f"{np.mean([gain[m].mean() for gain in gains.values()]):+.2f}" for m in ("ACC", "NMI"))
        rows.append([arm, "-".join(map(str, n_seeds)), *cells, mean if len(gains) == len(datasets) else ""])
    return format_table(["arm", "seeds", *datasets, "mean of the sets"], rows)


def _gains(of_dataset: Mapping[str, Any], arm: str) -> dict[str, np.ndarray]:
    return {metric: pair_gains(of_dataset[arm], of_dataset[BASE], metric) for metric in METRICS}


def _format_base(cells: Mapping[str, Any]) -> str:
    (cell,) = cells.values()
    return " / ".join(f"{np.mean(cell[metric]):.2f} ± {np.std(cell[metric]):.2f}" for metric in ("ACC", "NMI"))


def _format_gain(of_dataset: Mapping[str, Any], arm: str) -> str:
    return " / ".join(format_gain(of_dataset[arm], of_dataset[BASE], metric) for metric in ("ACC", "NMI"))


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Run the study and print its table."""
    settings = parse_settings(StudySettings, argv, __doc__)
    sys.stdout.write(format_study(run_study(settings)))


if __name__ == "__main__":
    main()
