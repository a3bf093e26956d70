"""Compute an LLM's answer state of each text: its hidden state just before it answers.

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path
Writes: answer_states/<dataset>_<scale>-<llm>.npy; until it is complete, finished blocks in
        <file>.partial/, from which a killed run resumes

python -m perspective.1_predict_triplet.read_states --dataset banking77 --llm smollm2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from perspective.artifacts import Output
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.judging.protocol import choose_wording
from perspective.judging.settings import name_judge_files, record_judge
from perspective.layout import PREDICT_STAGE, states_path
from perspective.models.registry import describe_model, find_local
from perspective.options import LLMOptions, OutputOptions, PerspectiveOptions
from perspective.runtime.devices import reading_precision
from perspective.runtime.ray import EngineSettings
from perspective.teacher.reading import ReadSettings


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Compute the answer states."""
    kinds = (CorpusSettings, LLMOptions, PerspectiveOptions, ReadSettings, EngineSettings, OutputOptions)
    corpus, llm, wording, reading, engine, out = parse_settings(kinds, argv, __doc__)
    perspective = choose_wording(PREDICT_STAGE / "prompts.json", corpus.dataset, wording.perspective).perspective
    name = name_judge_files(llm.llm, "answer")
    path = states_path(corpus.dataset, corpus.scale, name, Path(out.output_path) if out.output_path else None)
    made_from = {"llm": llm.llm, "llm_revision": llm.llm_revision, "load_in": llm.load_in, "perspective": perspective}
    made_from |= reading.made_from()
    output = Output(
        path,
        "answer states",
        {**made_from, "text_column": corpus.text_column},
        {"texts": corpus.path, **find_local(llm=llm.llm)},
        precision=reading_precision(),
    )
    if output.is_finished(out.overwrite):
        output.discard_partial()  # in case a kill came between the two
        return
    from perspective.llm.loading import load_llm
    from perspective.teacher.states import compute_states

    output.facts |= describe_model(llm.llm)
    output.record.judge = record_judge(name, {"kind": "answer", **made_from}, {})
    load = partial(load_llm, llm.llm, **llm.loading())
    compute_states(output, load_texts(corpus), perspective, load, engine, reading.max_text_tokens)


if __name__ == "__main__":
    main()
