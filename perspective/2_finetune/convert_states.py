"""Turn answer states into a teacher: the vectors that the embedder learns.

Reads:  the vectors of the embedder before fine-tuning;
        ../1_predict_triplet/answer_states/<dataset>_<scale>-<judge>.npy
Writes: converted_triplet_results/<dataset>_<scale>_<embedder>-<judge>-teacher.npy; with --by_embedder
        ...-self-teacher.npy, the control without an LLM

python -m perspective.2_finetune.convert_states --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perspective.artifacts import JudgeRecord, Output, read_record, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.layout import Layout
from perspective.options import DatasetOptions, OutputOptions, RunOptions, VectorOptions, option
from perspective.teacher.teacher import TeachSettings, make_teacher

logger = logging.getLogger(__name__)

NOTHING_GAINED = 3  # exit code, for scripts


@dataclass(frozen=True)
class ConvertStatesSettings(VectorOptions):
    """Inputs of the teacher, and how it is used."""

    states_path: str | None = option("answer states as .npy; default: the judge's", default=None, group="input")
    by_embedder: bool = option("make the teacher without answer states: the self-training control", default=False)
    stop_unless_trusted: bool = option(
        "for rounds after the first: if the states are not trusted, write nothing and exit with code 3", default=False
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    kinds = (DatasetOptions, RunOptions, ConvertStatesSettings, TeachSettings, OutputOptions)
    data, run, files, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout(data.dataset, data.scale, run.embedder, run.max_query, run.seed, run.llm)
    path = layout.self_teacher if files.by_embedder else layout.teacher
    inputs = {"embeddings": Path(files.feat_path or layout.embeds)}
    if not files.by_embedder:
        inputs["answer_states"] = Path(files.states_path or layout.states)
    output = Output((out.folder or path.parent) / path.name, "teacher", asdict(settings), inputs)
    if output.is_finished(out.overwrite):
        return
    vectors = read_vectors(inputs["embeddings"])
    states = None if files.by_embedder else read_vectors(inputs["answer_states"], len(vectors))
    teacher, trust = make_teacher(vectors, states, settings)
    logger.info("%s: %s", data.dataset, "the embedder alone" if states is None else trust.describe())
    if files.stop_unless_trusted and not trust.weight:
        logger.info("the answer states add nothing to the adapted embedder (not trusted): no further round")
        sys.exit(NOTHING_GAINED)
    judge = None if files.by_embedder else read_record(inputs["answer_states"]).judge
    output.record.judge = judge or JudgeRecord(name="the embedder itself" if files.by_embedder else run.llm)
    output.record.llm_weight = trust.weight
    output.record.unchanged = teacher is None
    output.facts |= {"trust": asdict(trust), "n_texts": len(vectors)}
    if teacher is None:
        logger.info("%d texts are too few for a teacher without an LLM: the embedder stays unchanged", len(vectors))
    output.write_vectors(vectors if teacher is None else teacher)


if __name__ == "__main__":
    main()
