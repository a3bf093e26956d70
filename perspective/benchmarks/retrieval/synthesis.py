"""What data of an LLM is worth: one embedder, trained on equal numbers of pairs of different origin.

Arms: grounded (an LLM's queries of the searched documents), first_sentence (the same documents without an LLM), titles
(written by people: summaries of docstrings of other packages, or titles of other help pages), free (an LLM wrote the
documents too), shuffled (the grounded queries, each with another's document). Every arm has in-batch negatives only.

Reads:  perspective/4_synthesize/results/docstrings_<llm>/ of its run.sh, and free_<llm>/ of brainstorm.sh, generate.sh
        and filter.sh; datasets/docstrings/
Writes: measures/benchmark_synthesis.json: scores by arm, differences with intervals, and the rows of --reports;
        measures/benchmark_synthesis/, a file for each run: a killed benchmark resumes

python -m perspective.benchmarks.retrieval.synthesis --n_pairs 128
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import Output, read_json, write_text
from perspective.artifacts.names import slugify_model
from perspective.artifacts.writing import dump_json
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import Collection, load_collection
from perspective.data.corpus import DATASETS
from perspective.data.pairs import Pair, load_pairs
from perspective.errors import DataError, require_known
from perspective.evaluation.intervals import find_interval
from perspective.layout import MEASURES
from perspective.models.embedders import load_embedder
from perspective.models.prompts import set_retrieval_prompts
from perspective.options import option
from perspective.retrieval.embedding import embed_sides
from perspective.retrieval.evaluation import score_vectors
from perspective.retrieval.metrics import resample_means
from perspective.retrieval.training import RetrieverTrainSettings, train_retriever
from perspective.runtime.devices import training_precision
from perspective.synthesis.report import sum_languages
from perspective.synthesis.settings import SetOptions, SynthesisFiles

logger = logging.getLogger(__name__)

RESULTS = MEASURES / "benchmark_synthesis.json"
CELLS = MEASURES / "benchmark_synthesis"
BASE, CONTROL = "untouched", "first_sentence"
ARMS = ("grounded", CONTROL, "titles", "free", "shuffled")
TITLES = {"gnome-help-en": "libreoffice-help-en-us"}  # of pages that are not searched; the docstrings have their own
METRIC = "NDCG@10"
EPOCHS, BATCH = 3, 32  # as in run.sh


@dataclass(frozen=True)
class SynthesisBenchmark:
    """What is measured."""

    dataset: str = option("collection to measure on, and name of the grounded set", default="docstrings", group="input")
    llm: str = option("the LLM that wrote the sets", default="smollm2", group="model")
    embedder: str = option("is trained", default="minilm", group="model")
    arms: list[str] = option("arms to run", default=list(ARMS))
    n_pairs: int = option("pairs of each arm", default=128)
    seeds: list[int] = option("training seeds", default=[100, 13, 21])
    reports: list[str] | None = option(
        "only add the rows of these report.json of filter.sh", default=None, group="input"
    )

    def __post_init__(self) -> None:
        """Check the arms."""
        require_known("arms", self.arms, ARMS)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(SynthesisBenchmark, argv, __doc__)
    if settings.reports:
        for report in settings.reports:
            add_conformity(Path(report))
        return
    collection = load_collection(DATASETS / settings.dataset)
    cells = {BASE: [_keep_cell(BASE, 0, settings, collection)]}
    for arm in settings.arms:
        cells[arm] = [_keep_cell(arm, seed, settings, collection) for seed in settings.seeds]
    found: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {"worth": [], "conformity": []}
    key = {name: getattr(settings, name) for name in ("dataset", "embedder", "n_pairs", "seeds")}
    key["llm"] = slugify_model(settings.llm)
    found["worth"] = [row for row in found["worth"] if not key.items() <= row.items()]
    found["worth"].append({**key, "metric": METRIC, "arms": summarize(cells)})
    write_text(RESULTS, dump_json(found))


def find_pairs(arm: str, settings: SynthesisBenchmark) -> Path:
    """Return the file of an arm's pairs."""
    grounded, free = (
        SynthesisFiles.choose(SetOptions(dataset=name), settings.llm) for name in (settings.dataset, "free")
    )
    titles = DATASETS / TITLES.get(settings.dataset, settings.dataset) / "train.jsonl"
    paths = {CONTROL: grounded.control, "titles": titles, "free": free.pairs}
    return paths.get(arm, grounded.pairs)


def load_arm(arm: str, settings: SynthesisBenchmark) -> list[Pair]:
    """Return the pairs of an arm, the same sample for each training seed, without hard negatives.

    Raises:
        DataError: There are fewer than `n_pairs`.
    """
    path = find_pairs(arm, settings)
    pairs = load_pairs(path)
    if len(pairs) < settings.n_pairs:
        raise DataError(f"{path}: {len(pairs)} pairs; lower --n_pairs {settings.n_pairs}, or generate more")
    rows = np.random.default_rng(0).permutation(len(pairs))[: settings.n_pairs]
    chosen = [replace(pairs[row], hard_negatives=()) for row in rows]
    if arm == "shuffled":  # by one place: no pair keeps its document
        chosen = [replace(one, document=other.document) for one, other in zip(chosen, np.roll(chosen, 1), strict=True)]
    return chosen


def _keep_cell(arm: str, seed: int, settings: SynthesisBenchmark, collection: Collection) -> np.ndarray:
    """Return the score of each query in percent, `(n_queries,)`, of a run that may be finished already."""
    inputs = {"documents": DATASETS / settings.dataset / "corpus.jsonl"}
    made_from: dict[str, Any] = {"dataset": settings.dataset, "embedder": settings.embedder, "arm": arm}
    if arm != BASE:
        inputs["pairs"] = find_pairs(arm, settings)
        made_from |= {"llm": settings.llm, "n_pairs": settings.n_pairs, "seed": seed}
    name = "-".join(slugify_model(str(value)) for value in made_from.values())
    cell = Output(CELLS / f"{name}.json", "synthesis cell", made_from, inputs, precision=training_precision())
    if not cell.is_finished(quiet=True):
        model = load_embedder(settings.embedder)
        set_retrieval_prompts(model, settings.embedder)
        if arm != BASE:
            folder = CELLS / f"{name}.model"
            training = RetrieverTrainSettings(
                seed=seed,
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=BATCH,
                max_source_length=128,
                num_negatives=0,
            )
            train_retriever(model, load_arm(arm, settings), training, Output(folder, "retriever", {"dataset": name}))
            model = load_embedder(str(folder))
            shutil.rmtree(folder)
        scores = score_collection(model, collection)
        cell.write_json([round(float(score), 4) for score in scores])
        logger.info("%s: %s %.2f", name, METRIC, scores.mean())
    return np.array(read_json(cell.path))


def score_collection(model: Any, collection: Collection) -> np.ndarray:  # noqa: ANN401
    """Return NDCG@10 of each query in percent, `(n_queries,)`."""
    embedded = embed_sides(model, collection.queries.values(), collection.corpus.values())
    queries = embedded.encode_query(list(collection.queries.values()))
    documents = embedded.encode_document(list(collection.corpus.values()))
    return score_vectors(collection, queries, documents)


def summarize(cells: dict[str, list[np.ndarray]]) -> list[dict[str, Any]]:
    """Return a row for each arm: mean and deviation over seeds, and its differences with 95% intervals.

    The intervals are over training seeds and queries, as `perspective.evaluation.intervals` says.
    """
    rows = []
    for arm, runs in cells.items():
        means = np.array([run.mean() for run in runs])
        row = {"arm": arm, "mean": round(float(means.mean()), 3), "std": round(float(means.std()), 3)}
        for against in (BASE, CONTROL):
            if arm not in (BASE, against) and against in cells:
                row[f"against_{against}"] = compare_runs(runs, cells[against])
        rows.append(row)
    return rows


def compare_runs(runs: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[float]:
    """Return the difference of two arms, and the lower and upper end of its 95% interval.

    Args:
        runs: Scores of the queries, `(n_queries,)` for each training seed.
        others: The same of the other arm.
    """
    difference = np.mean(runs, axis=0) - np.mean(others, axis=0)  # (n_queries,)
    variance = float(resample_means(difference[:, None]).var(ddof=1))
    before = np.array([[run.mean()] for run in others]) if len(others) > 1 else np.array([others[0].mean()])
    interval = find_interval(np.array([[run.mean()] for run in runs]), before, variance)
    return [round(value, 3) for value in (interval.difference, interval.low, interval.high)]


def add_conformity(path: Path) -> None:
    """Add the rows of a report to the committed results, in place of those of the same type, LLM and style.

    The type of a grounded set is shown with its collection, from the name of the report's folder.
    """
    found: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {"worth": [], "conformity": []}
    collection = path.resolve().parent.name.rpartition("_")[0]
    new = [
        {**row, "type": f"{row['type']}, {collection}" if row["type"] == "grounded" else row["type"]}
        for row in sum_languages(read_json(path))
    ]
    keys = {(row["type"], row["llm"], row["style"]) for row in new}
    kept = [row for row in found["conformity"] if (row["type"], row["llm"], row["style"]) not in keys]
    found["conformity"] = [*kept, *new]
    write_text(RESULTS, dump_json(found))


if __name__ == "__main__":
    main()
