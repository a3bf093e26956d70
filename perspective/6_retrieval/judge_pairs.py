"""Let a judge weigh pairs and drop false negatives, or make pairs of a corpus with queries alone.

Reads:  mined_results/<dataset>_<embedder>.jsonl, or --train_file; or --corpus_path and
        --queries_path, of which the embedder's nearest documents are compared
Writes: judged_results/<dataset>_<embedder>-<judge>.jsonl, beside it ...-judgments.json (and of an answer
        judge ...-states.npy); until those are whole, .partial files, from which a killed run goes on

python -m perspective.6_retrieval.judge_pairs --dataset docstrings --llm smollm2 --judge choice
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output, read_facts
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import read_texts
from perspective.data.pairs import load_pairs, save_pairs
from perspective.errors import DataError
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
    folder = Path(files.output_path) if files.output_path else None
    path = judged_path(files.dataset, files.embedder, judge.label(server), folder)
    asked = {**settings.asked(by_corpus), **judge.made_from(server)}
    if by_corpus:
        asked["embedder"] = files.embedder
    used = {} if by_corpus else {"min_probability": settings.min_probability}
    inputs = {**files.inputs, **judge.inputs(server)}
    output = Output(path, "judged pairs", {**asked, **used}, inputs)
    if output.is_finished(files.overwrite):
        return
    pairs = [] if by_corpus else load_pairs(files.inputs["pairs"])
    questions = _rank_corpus(files, settings) if by_corpus else ask_about_pairs(pairs, settings.seed)
    states = Output(path.with_name(f"{path.stem}-states.npy"), "answer states", asked, inputs)
    case = JudgingTask(files.dataset, settings.wording, questions.texts, questions.triplets, states, files.embedder)
    judgments_output = Output(path.with_name(f"{path.stem}-judgments.json"), "judgments", asked, inputs)
    judgments = load_or_ask_judgments(
        questions, files.dataset, judgments_output, lambda: build_judge(judge, server, case), files.overwrite
    )
    if by_corpus:
        made, facts = make_pairs(questions, judgments)
    else:
        made, facts = weigh_pairs(pairs, questions, judgments, settings.min_probability)
    output.facts |= {"judge": {"name": judge.label(server), **read_facts(judgments_output.path), **facts}}
    save_pairs(output, made)


def _rank_corpus(files: JudgePairsSettings, settings: JudgedSettings) -> Questions:
    model = load_embedder(files.embedder)
    set_retrieval_prompts(model, files.embedder)
    queries, corpus = (list(read_texts(files.inputs[role]).values()) for role in ("queries", "corpus"))
    return ask_about_corpus(embed_sides(model, queries, corpus), settings)


if __name__ == "__main__":
    main()
