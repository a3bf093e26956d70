"""Judge which choice of each triplet is closer to its query.

Reads:  the texts; sampled_triplet_results/<run>.json, or --triplet_path; with only --recorded_path
        the triplets of that file; for the judge "answer" the states written by read_states
Writes: predicted_triplet_results/<run>-<judge>-pred.json; until it is complete, each answer in
        <file>.partial.jsonl, from which a killed run resumes

python -m perspective.1_predict_triplet.predict_triplet --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perspective.artifacts import Output, load_judgments, load_triplets, save_judgments
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import JudgeError
from perspective.judging.protocol import choose_wording, count_long_texts
from perspective.judging.session import discard_partial, is_complete, judge_triplets, lock_judgments
from perspective.judging.settings import JudgeSettings, JudgingTask, build_judge, record_judge
from perspective.layout import Layout, predictions_path
from perspective.llm.server.settings import ServerSettings
from perspective.options import OutputOptions, PerspectiveOptions, RunOptions, option
from perspective.trust.reliability import assess_reliability

logger = logging.getLogger(__name__)

READING_JUDGES = ("pair", "choice", "reward", "server")  # the others do not read the texts of triplets


@dataclass(frozen=True)
class PredictSettings(PerspectiveOptions):
    """Inputs of the judge."""

    triplet_path: str | None = option(
        "triplets, ours or published; default: those of the run", default=None, group="input"
    )
    states_path: str | None = option(
        "answer states as .npy, for --judge answer; default: the LLM's", default=None, group="input"
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Judge."""
    kinds = (CorpusSettings, PredictSettings, JudgeSettings, ServerSettings, RunOptions, OutputOptions)
    corpus, files, judge, server, run, out = parse_settings(kinds, argv, __doc__)
    kind, name = judge.kind(server), judge.label(server)
    layout = Layout(corpus.dataset, corpus.scale, run.embedder, run.max_query, run.seed, name)
    triplet_path = Path(files.triplet_path or judge.recorded_path or layout.triplets)
    path = predictions_path(triplet_path if files.triplet_path else layout.triplets, name, out.folder)
    wording = choose_wording(corpus.dataset, files.perspective)
    inputs = {"texts": corpus.path, "triplets": triplet_path, **judge.inputs(server)}
    if kind == "answer":
        inputs["answer_states"] = Path(files.states_path or layout.states)
    made_from = {**asdict(wording), **judge.made_from(server), "text_column": corpus.text_column}
    output = Output(path, "judgments", made_from, inputs, precision=judge.precision(server))
    with lock_judgments(path):
        if is_complete(output, server.limits(), out.overwrite):
            output.log_finished()
            discard_partial(path)  # a kill may have come between the two
            return
        texts = load_texts(corpus)
        triplets = load_triplets(triplet_path, texts, corpus.dataset)
        if kind in READING_JUDGES:
            output.facts |= count_long_texts(texts, triplets)
        states = output.read_vectors("answer_states", len(texts)) if kind == "answer" else None
        outdated = output.earlier  # of other triplets, which may share questions
        if outdated:
            output.record = outdated.record
        earlier = load_judgments(path, texts, corpus.dataset) if output.record.judge else []  # or of open questions
        restart = out.overwrite and kind != "server"  # answers of an unfinished run that cost money are kept
        try:
            source = build_judge(judge, server, JudgingTask(corpus.dataset, wording, texts, triplets, states))
            judgments = judge_triplets(source, triplets, texts, output, earlier, restart)
        except JudgeError as error:
            if outdated or not earlier or len(earlier) < len(triplets):
                raise
            # The file is complete but for questions that failed: no reason to stop the pipeline.
            logger.warning("%s; %s stays as it is", error, path.name)
            return
        reliability = assess_reliability(judgments)
        output.facts["n_judgments"] = len(judgments)
        output.record.judge = record_judge(name, source.identity, {**source.facts, **reliability.facts()})
        if reliability.is_reliable:
            logger.info("%s", reliability.describe())
        else:
            logger.warning("judge unreliable, its answers will not be used: %s", reliability.describe())
        save_judgments(output, judgments, texts, corpus.dataset)
        discard_partial(path)


if __name__ == "__main__":
    main()
