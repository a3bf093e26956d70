"""Compare ways to ask an LLM about the same triplets: how often it is right, and whether it follows the position.

The triplets are sampled as in stage 1. Of the "decidable" ones exactly one choice has the query's class.

Reads:  datasets/<dataset>/small.jsonl with labels; the study's vectors and answer states, made if they are not there
Writes: measures/benchmark_judges.json, a row for each data set, LLM and judge, after each; rows that are there are
        kept

python -m perspective.benchmarks.judges --datasets banking77 --llms smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perspective.artifacts import dump_json, load_judgments, read_json, read_record, read_vectors, write_text
from perspective.artifacts.names import slugify_model
from perspective.benchmarks.quality import SEEDS
from perspective.benchmarks.study_run import StudyOptions, StudyRun
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import load_texts
from perspective.evaluation.gold import add_gold_answers
from perspective.evaluation.judge_accuracy import analyse_judgments
from perspective.evaluation.labels import require_labels
from perspective.judging.settings import Kind
from perspective.layout import MEASURES
from perspective.options import OutputOptions, option
from perspective.runtime.devices import reading_precision
from perspective.trust.evidence import name_source

logger = logging.getLogger(__name__)

KINDS: tuple[Kind, ...] = ("choice", "pair", "answer")
# Of `analyse_judgments`: position, agreement, and what is right.
FIGURES = (
    "n_judgments",
    "n_decidable",
    "answers_naming_first_position",
    "order_kappa",
    "abstention",
    "llm_n_answered",
    "llm_accuracy",
    "llm_leaning_accuracy",
    "embedder_accuracy",
)


@dataclass(frozen=True)
class JudgesBenchmark(OutputOptions):
    """What is measured."""

    datasets: list[str] = option(
        "data sets with labels",
        default=["banking77", "massive_scenario", "stackexchange"],
        group="input",
        aliases=("--dataset",),
    )
    llms: list[str] = option("LLMs that are asked", default=["smollm2"], group="model", aliases=("--llm",))
    max_query: int = option("number of triplets", default=512)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(JudgesBenchmark, argv, __doc__)
    path = Path(settings.output_path or MEASURES) / "benchmark_judges.json"
    rows: list[dict[str, Any]] = read_json(path) if path.exists() else []
    for llm in settings.llms:
        options = StudyOptions(llm=llm, output_path=settings.output_path, overwrite=settings.overwrite)
        for dataset in settings.datasets:
            for kind in KINDS:
                key = {"dataset": dataset, "llm": slugify_model(llm), "judge": kind, "max_query": settings.max_query}
                there = [row for row in rows if key.items() <= row.items()]
                if there and not settings.overwrite:
                    logger.info("%s, %s, %s: measured already", dataset, llm, kind)
                    continue
                measured = measure_judge(StudyRun(dataset, options), kind, settings.max_query)
                rows = [row for row in rows if row not in there] + [{**key, **measured}]
                rows.sort(key=lambda row: (row["dataset"], row["llm"], KINDS.index(row["judge"])))
                write_text(path, dump_json(rows))
                leaning = measured["llm_leaning_accuracy"]
                logger.info("%s, %s, %s: right on %.1f%% of the decidable triplets", dataset, llm, kind, leaning)


def measure_judge(run: StudyRun, kind: Kind, max_query: int) -> dict[str, Any]:
    """Judge the triplets of a data set, and compare with its labels.

    Args:
        run: Where vectors, states and judgments are.
        kind: One of `KINDS`.
        max_query: Number of triplets.

    Returns:
        `FIGURES`, and the precision of reading.

    Raises:
        DataError: There are no labels to compare with.
    """
    path = run.judge(SEEDS[0], max_query, kind=kind)
    texts, labels = load_texts(run.corpus), require_labels(run.corpus)
    judgments = load_judgments(path, texts, run.dataset)
    gold = add_gold_answers([one.triplet for one in judgments], labels)
    judgments = [replace(one, triplet=triplet) for one, triplet in zip(judgments, gold, strict=True)]
    source = name_source(read_record(path).judge)
    analysis = analyse_judgments(judgments, read_vectors(run.embed(), len(texts)), judge=source)
    return {name: analysis[name] for name in FIGURES} | {"precision": reading_precision()}


if __name__ == "__main__":
    main()
