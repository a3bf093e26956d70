"""Compute an LLM's answer state of each text: its hidden state just before it answers.

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path
Writes: answer_states/<dataset>_<scale>-<llm>.npy, and ...-control.npy, the states of control questions about
        a sample of the texts, by which the LLM's weight is decided without labels; until a file is
        complete, finished blocks in <file>.partial/, from which a killed run resumes

python -m perspective.1_predict_triplet.read_states --dataset banking77 --llm smollm2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from perspective.artifacts import Output
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.judging.protocol import choose_wording
from perspective.judging.settings import name_judge_files, record_judge
from perspective.layout import control_path, states_path
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
    perspective = choose_wording(corpus.dataset, wording.perspective).perspective
    name = name_judge_files(llm.llm, "answer")
    path = states_path(corpus.dataset, corpus.scale, name, out.folder)
    made_from = {"llm": llm.llm, "llm_revision": llm.llm_revision, "load_in": llm.load_in, "perspective": perspective}
    made_from |= reading.made_from()

    states = Output(
        path,
        "answer states",
        {**made_from, "text_column": corpus.text_column},
        {"texts": corpus.path, **find_local(llm=llm.llm)},
        precision=reading_precision(),
    )
    states.record.judge = record_judge(name, {"kind": "answer", **made_from}, {})
    control = states.beside(control_path(path), "control states")
    outputs = states, control
    unfinished = [output for output in outputs if not output.is_finished(out.overwrite)]
    for output in outputs:
        if output not in unfinished:
            output.discard_partial()  # in case a kill came between the two
    if not unfinished:
        return
    for output in unfinished:
        output.facts |= describe_model(llm.llm)
    from perspective.llm.loading import load_llm
    from perspective.teacher.states import compute_states, write_control_questions, write_question
    from perspective.trust.specificity import sample_control_rows

    load_again = partial(load_llm, llm.llm, **llm.loading())
    load = load_again if engine.engine == "ray" else cache(load_again)  # Ray's workers load the LLM themselves
    texts, most = load_texts(corpus), reading.max_text_tokens
    if states in unfinished:
        compute_states(states, texts, (write_question(perspective),), load, engine, most)
    if control in unfinished:
        sample = [texts[row] for row in sample_control_rows(len(texts))]
        compute_states(control, sample, write_control_questions(perspective)[1:], load, engine, most)


if __name__ == "__main__":
    main()
