"""Weight pairs and drop false negatives by a judge, or create pairs from a corpus and queries.

Reads:  mined_results/<dataset>_<embedder>.jsonl, or --train_file; or --corpus_path and
        --queries_path, to compare the documents that the embedder ranks first
Writes: judged_results/<dataset>_<embedder>-<judge>.jsonl, with ...-judgments.json (and, for an answer
        judge, ...-states.npy); .partial files until those are complete, from which a killed run resumes

python -m perspective.6_retrieval.judge_pairs --dataset docstrings --llm smollm2 --judge choice
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from perspective.artifacts import Output, read_facts, read_record, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import read_texts
from perspective.data.pairs import load_pairs, save_pairs
from perspective.errors import DataError
from perspective.judging.protocol import Judge, is_unanswered
from perspective.judging.settings import JudgeSettings, JudgingTask, build_judge
from perspective.llm.server.settings import ServerSettings
from perspective.models.embedders import load_embedder
from perspective.models.prompts import set_retrieval_prompts
from perspective.models.registry import find_local
from perspective.options import EmbedderOptions, OutputOptions, RetrievalSetOptions, option
from perspective.retrieval.embedding import embed_sides
from perspective.retrieval.judged_pairs import (
    PairJudgingSettings,
    Questions,
    create_corpus_questions,
    create_pair_questions,
    judged_path,
    load_or_collect_judgments,
    make_pairs,
    weight_pairs,
)
from perspective.retrieval.layout import mined_path


@dataclass(frozen=True)
class JudgePairsSettings(EmbedderOptions, OutputOptions, RetrievalSetOptions):
    """What to judge, and where to write the result."""

    train_file: str | None = option(
        "pairs with hard negatives as jsonl; default the mined ones", default=None, group="input"
    )
    corpus_path: str | None = option("a corpus.jsonl, to create pairs from", default=None, group="input")
    queries_path: str | None = option("with --corpus_path: a queries.jsonl", default=None, group="input")

    def __post_init__(self) -> None:
        """Check that there is one input."""
        if bool(self.corpus_path) != bool(self.queries_path):
            raise DataError("--corpus_path and --queries_path go together")
        if self.corpus_path and self.train_file:
            raise DataError("--train_file and --corpus_path: give only one of them")

    @property
    def inputs(self) -> dict[str, Path]:
        """The input files, by role."""
        if self.corpus_path and self.queries_path:
            texts = {"corpus": Path(self.corpus_path), "queries": Path(self.queries_path)}
            return {**texts, **find_local(embedder=self.embedder)}  # the embedder ranks the documents
        return {"pairs": Path(self.train_file or mined_path(self.dataset, self.embedder))}


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Judge."""
    kinds = (JudgePairsSettings, PairJudgingSettings, JudgeSettings, ServerSettings)
    files, settings, judge, server = parse_settings(kinds, argv, __doc__)
    if server.budget is not None:
        raise DataError("--budget: only for predict_triplet; here every pair needs a judgment")
    by_corpus = bool(files.corpus_path)
    path = judged_path(files.dataset, files.embedder, judge.label(server), files.folder)
    fingerprint = {**settings.fingerprint_questions(by_corpus), **judge.made_from(server)}
    if by_corpus:
        fingerprint["embedder"] = files.embedder
    used = {} if by_corpus else {"min_probability": settings.min_probability}
    inputs = {**files.inputs, **judge.inputs(server)}
    output = Output(path, "judged pairs", {**fingerprint, **used}, inputs, precision=judge.precision(server))
    if output.is_finished(files.overwrite, quiet=True) and not read_facts(path).get("n_open"):
        output.log_finished()
        return
    pairs = [] if by_corpus else load_pairs(files.inputs["pairs"])
    questions = _rank_corpus(files, settings) if by_corpus else create_pair_questions(pairs, settings.seed)
    answers = Output(
        path.with_name(f"{path.stem}-judgments.json"),
        "judgments",
        fingerprint,
        inputs,
        precision=judge.precision(server),
    )

    def build() -> Judge:
        states = None
        if judge.kind(server) == "answer":
            kept = answers.beside(path.with_name(f"{path.stem}-states.npy"), "answer states")
            states = _load_or_compute_states(judge, settings.perspective, questions, kept, files.overwrite)
        task = JudgingTask(files.dataset, settings.wording, questions.texts, questions.triplets, states)
        return build_judge(judge, server, task)

    name = judge.label(server)
    judgments = load_or_collect_judgments(questions, files.dataset, answers, name, build, files.overwrite)
    record = read_record(answers.path).judge
    if by_corpus:
        result, facts = make_pairs(questions, judgments, in_two_orders=record is not None and record.orders == 2)
    else:
        result, facts = weight_pairs(pairs, questions, judgments, settings.min_probability)
    output.record.judge = record
    output.record.unchanged = bool(facts.pop("unchanged", False))
    output.facts |= {**facts, "n_open": sum(map(is_unanswered, judgments))}
    save_pairs(output, result)


def _load_or_compute_states(
    judge: JudgeSettings, perspective: str, questions: Questions, states: Output, overwrite: bool
) -> np.ndarray:
    """Return the answer states of the questions' texts, from the file beside the pairs or from the LLM."""
    from perspective.llm.loading import load_llm
    from perspective.teacher.states import compute_states, write_question

    if states.is_finished(overwrite):
        return read_vectors(states.path, len(questions.texts))
    return compute_states(
        states, questions.texts, (write_question(perspective),), partial(load_llm, judge.llm, **judge.loading())
    )


def _rank_corpus(files: JudgePairsSettings, settings: PairJudgingSettings) -> Questions:
    model = load_embedder(files.embedder)
    set_retrieval_prompts(model, files.embedder)
    queries, corpus = (list(read_texts(files.inputs[role]).values()) for role in ("queries", "corpus"))
    return create_corpus_questions(embed_sides(model, queries, corpus), settings)


if __name__ == "__main__":
    main()
