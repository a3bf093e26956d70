"""Adapt the same texts to two perspectives, and compare five wordings of each.

The texts of clinc have 150 intents and, in clinc_domain, 10 domains. The embedder is adapted to "intent" and to
"domain", and each result is measured against both. The wordings of a perspective are compared by the teachers that
they lead to, without training.

Reads:  datasets/clinc/small.jsonl, datasets/clinc_domain/small.jsonl; what the study has of them already
Writes: measures/benchmark_perspectives/, from which a killed run resumes, and measures/benchmark_perspectives.json

python -m perspective.benchmarks.perspectives --seeds 100 13 21
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from perspective.artifacts import Output, dump_json, read_json, read_vectors, write_text
from perspective.benchmarks.quality import SEEDS, describe_precisions, list_method_versions, score_vectors
from perspective.benchmarks.study_run import StudyOptions, StudyRun
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import load_texts
from perspective.errors import DataError
from perspective.layout import MEASURES, Layout, states_path
from perspective.options import option

logger = logging.getLogger(__name__)

# The data sets of the same texts, by perspective; the first wording is the data set's own.
DATASETS = {"intent": "clinc", "domain": "clinc_domain"}
WORDINGS = {
    "intent": ("intent", "purpose", "request type", "what the user wants", "goal of the message"),
    "domain": ("domain", "topic", "subject area", "general category", "field"),
}


@dataclass(frozen=True)
class PerspectiveSettings(StudyOptions):
    """What is measured."""

    seeds: list[int] = option("seeds of training", default=list(SEEDS))


@dataclass(frozen=True)
class Case:
    """Vectors to be measured: of the untouched embedder, of a teacher, or of an adapted embedder.

    Attributes:
        perspective: "intent" or "domain"; None for the untouched embedder.
        wording: How the LLM was asked.
        seed: Of training; None where nothing is trained.
    """

    perspective: str | None = None
    wording: str | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Name of its file."""
        return "-".join(str(value).replace(" ", "_") for value in asdict(self).values())


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(PerspectiveSettings, argv, __doc__)
    runs = {perspective: StudyRun(dataset, settings) for perspective, dataset in DATASETS.items()}
    if load_texts(runs["intent"].corpus) != load_texts(runs["domain"].corpus):
        raise DataError(f"{runs['domain'].corpus.path}: other texts than in {runs['intent'].corpus.path}")
    folder = Path(settings.output_path or MEASURES) / "benchmark_perspectives"
    made_from = {"embedder": settings.embedder, "llm": settings.llm, "methods": list_method_versions()}
    rows = []
    for case in list_cases(settings.seeds):
        inputs = {perspective: run.corpus.path for perspective, run in runs.items()}
        precision = describe_precisions()
        cell = Output(folder / f"{case.name}.json", "perspectives", made_from, inputs, precision=precision)
        if not cell.is_finished(settings.overwrite):
            vectors = make_vectors(case, runs)
            scores = {perspective: score_vectors(vectors, run.corpus) for perspective, run in runs.items()}
            cell.write_json({**asdict(case), "scores": scores, "precision": precision})
            logger.info("%s: NMI %s", case.name, {name: round(np.mean(one["NMI"]), 2) for name, one in scores.items()})
        rows.append(read_json(cell.path))
    write_text(folder.with_suffix(".json"), dump_json(rows))


def list_cases(seeds: Sequence[int]) -> Iterator[Case]:
    """Yield what is measured: the embedder, adapted embedders, teachers."""
    yield Case()
    for seed in seeds:
        yield from (Case(perspective, wordings[0], seed) for perspective, wordings in WORDINGS.items())
    for perspective, wordings in WORDINGS.items():
        yield from (Case(perspective, wording) for wording in wordings)


def make_vectors(case: Case, runs: dict[str, StudyRun]) -> np.ndarray:
    """Return the vectors of a case, `(n_texts, dim)`; no label is read."""
    if case.perspective is None:
        return read_vectors(runs["intent"].embed())
    run = runs[case.perspective]
    if case.seed is not None:
        return run.train_on_teacher(case.seed)
    if case.wording == WORDINGS[case.perspective][0]:
        return read_vectors(run.teach())
    folder = run.folder / case.name
    llm, output = ("--llm", run.settings.llm), ("--output_path", folder)
    run.call("1_predict_triplet.read_states", *llm, "--perspective", case.wording, *output)
    states = states_path(run.dataset, "small", run.judge_name, folder)
    embedder = ("--embedder", run.settings.embedder, "--feat_path", run.embed())
    run.call("2_finetune.convert_states", *embedder, *llm, "--states_path", states, *output)
    layout = Layout(run.dataset, "small", run.settings.embedder, judge=run.settings.llm)
    return read_vectors(folder / layout.teacher.name)


if __name__ == "__main__":
    main()
