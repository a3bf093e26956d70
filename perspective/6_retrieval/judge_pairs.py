"""Let a judge weigh pairs and drop false negatives, or make pairs of a corpus with queries alone.

Reads:  mined_results/<dataset>_<embedder>.jsonl, or --train_file; or --corpus_path and
        --queries_path, of which the embedder's nearest documents are compared
Writes: judged_results/<dataset>_<embedder>-<judge>.jsonl, beside it ...-judgments.json (and of an answer
        judge ...-states.npy); until those are whole, .partial files, from which a killed run goes on

python -m perspective.6_retrieval.judge_pairs --dataset docstrings --llm smollm2 --judge choice
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from perspective.artifacts import Output, read_record, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import read_texts
from perspective.data.pairs import load_pairs, save_pairs
from perspective.errors import DataError
from perspective.judging.protocol import Judge
from perspective.judging.settings import JudgeSettings, JudgingTask, build_judge
from perspective.llm.server.settings import ServerSettings
from perspective.models.embedders import load_embedder
from perspective.models.prompts import set_retrieval_prompts
from perspective.models.registry import find_local
from perspective.options import EmbedderOptions, OutputOptions, RetrievalSetOptions, option
from perspective.retrieval.embedding import embed_sides
from perspective.retrieval.judged_pairs import (
    JudgedSettings,
    Questions,
    ask_about_corpus,
    ask_about_pairs,
    judged_path,
    load_or_ask_judgments,
    make_pairs,
    weigh_pairs,
)
from perspective.retrieval.layout import mined_path


@dataclass(frozen=True)
class JudgePairsSettings(EmbedderOptions, OutputOptions, RetrievalSetOptions):
    """What is judged, and where it is written."""

    train_file: str | None = option(
        "pairs with hard negatives as jsonl; default the mined ones", default=None, group="input"
    )
    corpus_path: str | None = option("a corpus.jsonl of which nothing else is known", default=None, group="input")
    queries_path: str | None = option("with --corpus_path: a queries.jsonl", default=None, group="input")

    def __post_init__(self) -> None:
        """Check that one thing is judged."""
        if bool(self.corpus_path) != bool(self.queries_path):
            raise DataError("--corpus_path and --queries_path go together")
        if self.corpus_path and self.train_file:
            raise DataError("--train_file: pairs are judged, or a corpus; leave one out")

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that are judged, by role."""
        if self.corpus_path and self.queries_path:
            texts = {"corpus": Path(self.corpus_path), "queries": Path(self.queries_path)}
            return {**texts, **find_local(embedder=self.embedder)}  # it ranks them
        return {"pairs": Path(self.train_file or mined_path(self.dataset, self.embedder))}


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Judge."""
    kinds = (JudgePairsSettings, JudgedSettings, JudgeSettings, ServerSettings)
    files, settings, judge, server = parse_settings(kinds, argv, __doc__)
    if server.budget is not None:
        raise DataError("--budget: for the triplets of predict_triplet alone; here every pair needs its judgment")
    by_corpus = bool(files.corpus_path)
    path = judged_path(files.dataset, files.embedder, judge.label(server), files.folder)
    asked = {**settings.asked(by_corpus), **judge.made_from(server)}
    if by_corpus:
        asked["embedder"] = files.embedder
    used = {} if by_corpus else {"min_probability": settings.min_probability}
    inputs = {**files.inputs, **judge.inputs(server)}
    output = Output(path, "judged pairs", {**asked, **used}, inputs, precision=judge.precision(server))
    if output.is_finished(files.overwrite):
        return
    pairs = [] if by_corpus else load_pairs(files.inputs["pairs"])
    questions = _rank_corpus(files, settings) if by_corpus else ask_about_pairs(pairs, settings.seed)
    judged = Output(
        path.with_name(f"{path.stem}-judgments.json"), "judgments", asked, inputs, precision=judge.precision(server)
    )

    def build() -> Judge:
        states = None
        if judge.kind(server) == "answer":
            states = _read_states(judge, settings.perspective, questions, replace(judged, path=path), files.overwrite)
        task = JudgingTask(files.dataset, settings.wording, questions.texts, questions.triplets, states)
        return build_judge(judge, server, task)

    name = judge.label(server)
    judgments = load_or_ask_judgments(questions, files.dataset, judged, name, build, files.overwrite)
    if by_corpus:
        made, facts = make_pairs(questions, judgments)
    else:
        made, facts = weigh_pairs(pairs, questions, judgments, settings.min_probability)
    output.record.judge = read_record(judged.path).judge
    output.record.unchanged = bool(facts.pop("unchanged", False))
    output.facts |= facts
    save_pairs(output, made)


def _read_states(
    judge: JudgeSettings, perspective: str, questions: Questions, pairs: Output, overwrite: bool
) -> np.ndarray:
    """Return the answer states of the questions' texts, read where no finished file beside the pairs holds them."""
    from perspective.llm.loading import load_llm
    from perspective.teacher.states import compute_states

    states = replace(pairs, path=pairs.path.with_name(f"{pairs.path.stem}-states.npy"), schema="answer states")
    if states.is_finished(overwrite):
        return read_vectors(states.path, len(questions.texts))
    return compute_states(states, questions.texts, perspective, partial(load_llm, judge.llm, **judge.loading()))


def _rank_corpus(files: JudgePairsSettings, settings: JudgedSettings) -> Questions:
    model = load_embedder(files.embedder)
    set_retrieval_prompts(model, files.embedder)
    queries, corpus = (list(read_texts(files.inputs[role]).values()) for role in ("queries", "corpus"))
    return ask_about_corpus(embed_sides(model, queries, corpus), settings)


if __name__ == "__main__":
    main()
