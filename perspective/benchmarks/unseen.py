"""Measure adapted embedders on texts that they were not adapted on.

For each data set and seed, 80% of the texts are drawn; the embedder is adapted on these, and the other 20% are
embedded, clustered and measured, before and after; and after the same without an LLM.

Reads:  datasets/<dataset>/small.jsonl with labels; the study's vectors and answer states, made if they are not there
Writes: measures/benchmark_unseen[-<embedder>-<llm>]/, from which a killed run resumes, and a .json of the same name

python -m perspective.benchmarks.unseen --datasets banking77 clinc --seeds 100 13 21
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perspective.artifacts import Output, dump_json, read_json, read_vectors, write_text
from perspective.benchmarks.quality import SEEDS, describe_precisions, list_method_versions
from perspective.benchmarks.study_run import StudyOptions, StudyRun
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import load_texts
from perspective.evaluation.clustering_scores import METRICS, score_clustering
from perspective.evaluation.labels import require_labels
from perspective.layout import control_path, study_folder
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.options import option
from perspective.teacher.teacher import TeacherEvidence, TeachSettings, make_teacher
from perspective.training.distillation import distill_embedder
from perspective.training.settings import TrainSettings
from perspective.trust.specificity import gather_control, sample_control_rows

logger = logging.getLogger(__name__)

SHARE = 0.8  # of the texts that the embedder is adapted on


@dataclass(frozen=True)
class UnseenSettings(StudyOptions):
    """What is measured."""

    seeds: list[int] = option("seeds of the split and of training", default=list(SEEDS))
    datasets: list[str] = option(
        "data sets", default=["banking77", "clinc", "stackexchange"], group="input", aliases=("--dataset",)
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(UnseenSettings, argv, __doc__)
    folder = study_folder(settings.embedder, settings.llm, "benchmark_unseen", settings.output_path)
    path = folder.with_name(f"{folder.name}.json")
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    made_from = {"share": SHARE, "embedder": settings.embedder, "llm": settings.llm, "methods": list_method_versions()}
    for seed in settings.seeds:
        for dataset in settings.datasets:
            run = StudyRun(dataset, settings)
            cell = Output(
                folder / f"{dataset}-{seed}.json",
                "unseen texts",
                made_from | {"seed": seed},
                {"texts": run.corpus.path, "embeddings": run.embed(), "answer_states": run.read_states()},
                precision=describe_precisions(),
            )
            if not cell.is_finished(settings.overwrite):
                checkpoint = cell.beside(folder / f"{dataset}-{seed}", "embedder")
                cell.write_json(measure_unseen(run, seed, checkpoint))
            results.setdefault(dataset, {})[str(seed)] = read_json(cell.path)
            write_text(path, dump_json(results))


def measure_unseen(run: StudyRun, seed: int, checkpoint: Output) -> dict[str, Any]:
    """Adapt on a part of the texts and measure the rest.

    Args:
        run: Where vectors and states are.
        seed: Of the split and of training.
        checkpoint: The adapted embedders, by the ends of their names; a killed training resumes only with the same
            models, texts and methods.

    Returns:
        "before", "after" and "no_llm", each `{metric: [per k-means seed]}`, and the number of unseen texts.

    Raises:
        DataError: There are no labels to measure with.
    """
    texts, labels = load_texts(run.corpus), require_labels(run.corpus)
    seen = np.zeros(len(texts), dtype=bool)
    seen[np.random.default_rng(seed).permutation(len(texts))[: int(SHARE * len(texts))]] = True
    vectors, states = read_vectors(run.embed(), len(texts)), read_vectors(run.read_states(), len(texts))
    seen_texts, unseen_texts = ([texts[row] for row in np.flatnonzero(chosen)] for chosen in (seen, ~seen))
    found = {"before": vectors[~seen]}
    for name, evidence in (("after", _read_evidence(run, states, seen)), ("no_llm", TeacherEvidence())):
        teacher = make_teacher(vectors[seen], evidence, TeachSettings())
        logger.info("%s: %s", run.dataset, teacher.describe(evidence))
        trained = checkpoint.beside(checkpoint.path.with_name(f"{checkpoint.path.name}-{name}"), "embedder")
        model = load_embedder(run.settings.embedder)
        distill_embedder(model, seen_texts, teacher.vectors, TrainSettings(recipe="distill", seed=seed), trained)
        found[name] = embed_texts(load_embedder(str(trained.path), reading=True), unseen_texts)
    unseen_labels = [labels[row] for row in np.flatnonzero(~seen)]
    scores = {name: score_clustering(rows, unseen_labels) for name, rows in found.items()}
    logger.info("%s %d: NMI %s", run.dataset, seed, {name: round(one["NMI_mean"], 2) for name, one in scores.items()})
    return {
        **{name: {metric: one[metric] for metric in METRICS} for name, one in scores.items()},
        "n_unseen": len(unseen_texts),
    }


def _read_evidence(run: StudyRun, states: np.ndarray, seen: np.ndarray) -> TeacherEvidence:
    """Return the states of the seen texts, and of the control questions those about seen texts."""
    rows = sample_control_rows(len(states))
    control = gather_control(states, read_vectors(control_path(run.read_states()), len(rows)))
    return TeacherEvidence(states[seen], [one[seen[rows]] for one in control])


if __name__ == "__main__":
    main()
