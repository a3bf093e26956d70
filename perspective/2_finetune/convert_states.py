"""Turn answer states, and what was learned from judged triplets, into a teacher: the vectors that the embedder learns.

Reads:  the vectors of the embedder before fine-tuning;
        ../1_predict_triplet/answer_states/<dataset>_<scale>-<llm>.npy and ...-control.npy;
        with --judged, the vectors of the embedder that was trained on the judged triplets (finetune --recipe standard)
Writes: converted_triplet_results/<dataset>_<scale>_<embedder>-<llm>-teacher.npy; with --judged
        <run>-<judge>-judged-teacher.npy; with --by_embedder ...-self-teacher.npy, the control without an LLM

python -m perspective.2_finetune.convert_states --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from perspective.artifacts import JudgeRecord, Output, read_record, read_sidecar, read_vectors
from perspective.artifacts.sidecar import ITSELF
from perspective.cli import entry_point, parse_settings
from perspective.errors import DataError
from perspective.judging.settings import StatesOptions
from perspective.layout import Layout, control_path
from perspective.options import DatasetOptions, OutputOptions, RunOptions, option
from perspective.teacher.teacher import TeacherEvidence, TeachSettings, make_teacher
from perspective.trust.specificity import gather_control, sample_control_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertStatesSettings(StatesOptions):
    """Inputs of the teacher, and how it is used."""

    judged: bool = option("use the vectors of the embedder trained on the judged triplets of --llm", default=False)
    judged_path: str | None = option(
        "vectors of an embedder trained on judged triplets, as .npy; implies --judged", default=None, group="input"
    )
    by_embedder: bool = option("make the teacher without an LLM: the self-training control", default=False)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    kinds = (DatasetOptions, RunOptions, ConvertStatesSettings, TeachSettings, OutputOptions)
    data, run, files, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(data, run)
    inputs = {"embeddings": Path(files.feat_path or layout.embeds)}
    path = layout.self_teacher if files.by_embedder else layout.teacher
    if (states := files.find_states(data, run.llm)) and not files.by_embedder:
        inputs["answer_states"] = states
        if control_path(states).exists():
            inputs["control_states"] = control_path(states)
    if (files.judged or files.judged_path) and not files.by_embedder:
        inputs["judged_embeddings"] = Path(files.judged_path or replace(layout, recipe="standard").after_embeds)
        path = layout.judged_teacher
        if not inputs["judged_embeddings"].exists():
            stages = "finetune_gte.sh and get_finetuned_embedding_gte.sh with --recipe standard"
            raise DataError(f"{inputs['judged_embeddings']}: no such file; run {stages} first")
    if len(inputs) == 1 and not files.by_embedder:
        raise DataError("--states_llm none without --judged: nothing to learn from; give one of them or --by_embedder")
    made = [sidecar for file in inputs.values() if (sidecar := read_sidecar(file))]
    if len({sidecar.inputs.get("texts") for sidecar in made} - {None}) > 1:
        raise DataError(f"{', '.join(inputs)}: made from different texts; make them again from the same (--overwrite)")
    output = Output((out.folder or path.parent) / path.name, "teacher", asdict(settings), inputs)
    if output.is_finished(out.overwrite):
        return
    vectors = read_vectors(inputs["embeddings"])
    evidence = _read_evidence(inputs, len(vectors))
    teacher = make_teacher(vectors, evidence, settings)
    logger.info("%s: %s", data.dataset, teacher.describe(evidence))
    if evidence.judged is None and evidence.states is None and not files.by_embedder:
        logger.warning("the judge was unreliable and there are no answer states: the embedder teaches itself")
    source = "judged_embeddings" if evidence.judged is not None else "answer_states"
    judge = read_record(inputs[source]).judge if source in inputs else JudgeRecord(name=ITSELF)
    output.record.judge = judge or JudgeRecord(name=run.llm)
    output.record.llm_weight = teacher.trust.weight
    output.facts |= {"trust": asdict(teacher.trust), "n_texts": len(vectors)}
    output.write_vectors(teacher.vectors)


def _read_evidence(inputs: dict[str, Path], n_texts: int) -> TeacherEvidence:
    states, control = None, []
    if "answer_states" in inputs:
        states = read_vectors(inputs["answer_states"], n_texts)
    if states is not None and "control_states" in inputs:
        control = gather_control(states, read_vectors(inputs["control_states"], len(sample_control_rows(n_texts))))
    judged = inputs.get("judged_embeddings")
    if not judged or read_record(judged).unchanged:  # the judge was unreliable
        return TeacherEvidence(states, control)
    return TeacherEvidence(states, control, read_vectors(judged, n_texts))


if __name__ == "__main__":
    main()
