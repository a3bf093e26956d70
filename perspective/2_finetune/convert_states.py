"""Turn answer states into a teacher: the vectors that the embedder is to learn.

Reads:  the vectors of the untouched embedder; the judgments of the run, which say who judged; the
        judge's ../1_predict_triplet/answer_states/<dataset>_<scale>-<judge>.npy
Writes: converted_triplet_results/<run>-<judge>-teacher.npy; with --by_embedder <run>-<judge>-self-
        teacher.npy, the control that the LLM has no part in; nothing for a judge without states

python -m perspective.2_finetune.convert_states --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perspective.artifacts import Output, read_facts, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.layout import Layout, teacher_path
from perspective.options import DatasetOptions, JudgedOptions, OutputOptions, RunOptions, option
from perspective.teacher.teacher import TeachSettings, make_teacher

logger = logging.getLogger(__name__)

NOTHING_GAINED = 3  # exit code, for scripts


@dataclass(frozen=True)
class ConvertStatesSettings(JudgedOptions):
    """Which states, and what is made of them."""

    by_embedder: bool = option("teach what the embedder knows already: the self-training control", default=False)
    stop_unless_believed: bool = option(
        "for rounds after the first: where no state is believed, make nothing and end with code 3", default=False
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    kinds = (DatasetOptions, RunOptions, ConvertStatesSettings, TeachSettings, OutputOptions)
    data, run, files, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout(data.dataset, data.scale, run.embedder, run.max_query, run.seed, run.llm)
    predictions = Path(files.pred_path or layout.judgments)
    feats = Path(files.feat_path or layout.embeds)
    states = Path(files.states_path or layout.states)
    judge = read_facts(predictions)
    if judge and judge["asked"]["kind"] != "answer" and not files.by_embedder and not files.states_path:
        logger.info("%s reads no answer states: its triplets are trained on", judge["name"])
        return
    folder = Path(out.output_path) if out.output_path else None
    inputs = {"embeddings": feats} | ({} if files.by_embedder else {"answer_states": states})
    path = teacher_path(predictions, folder, files.by_embedder)
    output = Output(path, "teacher", asdict(settings), inputs)
    if output.is_finished(out.overwrite):
        return
    vectors = read_vectors(feats)
    told = None if files.by_embedder else read_vectors(states, len(vectors))
    teacher, trust = make_teacher(vectors, told, settings)
    logger.info("%s: %s", data.dataset, "the embedder alone" if told is None else trust.describe())
    if files.stop_unless_believed and not trust.weight:
        logger.info("the embedder holds all that is believed of the LLM: no further round")
        sys.exit(NOTHING_GAINED)
    judge = {"name": "the embedder itself"} if files.by_embedder else judge
    output.facts |= {"judge": judge, "trust": asdict(trust), "n_texts": len(vectors), "unchanged": teacher is None}
    if teacher is None:
        logger.info("%d texts are too few to learn from without an LLM: the embedder will stay as it is", len(vectors))
    output.write_vectors(vectors if teacher is None else teacher)


if __name__ == "__main__":
    main()
