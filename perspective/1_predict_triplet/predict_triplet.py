"""Let a judge say which choice of each triplet is closer to its query.

Reads:  sampled_triplet_results/<run>.json, or --data_path; with --recorded_path alone that file's
        own triplets
Writes: predicted_triplet_results/<run>-<judge>-pred.json; until it is whole, each answer in
        <file>.partial.jsonl, from which a killed run goes on; an answer judge also
        answer_states/<dataset>_<scale>-<judge>.npy, what it reads off each text

python -m perspective.1_predict_triplet.predict_triplet --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perspective.artifacts import Output, load_triplets, save_judgments
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.judging.protocol import choose_wording
from perspective.judging.session import discard_partial, judge_triplets
from perspective.judging.settings import JudgeSettings, JudgingTask, build_judge
from perspective.layout import PREDICT_STAGE, Layout, predictions_path
from perspective.llm.server.settings import ServerSettings
from perspective.options import DatasetOptions, OutputOptions, RunOptions, option
from perspective.runtime.ray import EngineSettings
from perspective.trust.reliability import assess_reliability

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictSettings(DatasetOptions):
    """What is judged."""

    data_path: str | None = option("triplets, ours or published; default those of the run", default=None, group="input")
    text_path: str | None = option("your own texts: .jsonl, .csv or .parquet", default=None, group="input")
    text_column: str = option("field or column that holds the text", default="input", group="input")
    perspective: str | None = option(
        "what should be alike, such as 'intent'; default the sentence in prompts.json", default=None
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Judge."""
    kinds = (PredictSettings, JudgeSettings, ServerSettings, EngineSettings, RunOptions, OutputOptions)
    files, judge, server, engine, run, out = parse_settings(kinds, argv, __doc__)
    corpus = CorpusSettings(files.dataset, files.scale, files.text_path, files.text_column)
    layout = Layout(files.dataset, files.scale, run.embedder, run.max_query, run.seed, judge.label(server))
    triplet_path = Path(files.data_path or judge.recorded_path or layout.triplets)
    folder = Path(out.output_path) if out.output_path else layout.judgments.parent
    named_by = triplet_path if files.data_path else layout.triplets
    texts = load_texts(corpus)
    triplets = load_triplets(triplet_path, len(texts), files.dataset)
    wording = choose_wording(PREDICT_STAGE / "prompts.json", files.dataset, files.perspective)
    read = {"texts": corpus.path, **judge.inputs(server)}
    inputs = {**read, "triplets": triplet_path}
    told = {**judge.made_from(server), "text_column": files.text_column}
    states = None
    if judge.kind(server) == "answer":
        asked = {"perspective": wording.perspective, **told}
        if judge.answer_form == "phrase":
            asked["embedder"] = run.embedder
        states_path = folder / layout.states.name if out.output_path else layout.states
        states = Output(states_path, "answer states", asked, read)
    output = Output(predictions_path(named_by, layout.judge, folder), "judgments", {**asdict(wording), **told}, inputs)
    if output.is_finished(out.overwrite):
        discard_partial(output.path)  # a kill may have come between the two
        return
    case = JudgingTask(files.dataset, wording, texts, triplets, states, run.embedder, out.overwrite, engine)
    source = build_judge(judge, server, case)
    judgments = judge_triplets(source, triplets, texts, output)
    reliability = assess_reliability(judgments)
    output.facts |= {
        "name": judge.label(server),
        "asked": source.identity,
        **source.facts,
        "n_judgments": len(judgments),
        **reliability.facts(),
    }
    if reliability.is_reliable:
        logger.info("%s", reliability.describe())
    else:
        logger.warning(
            "this judge is unreliable here, nothing will be trained on its answers: %s", reliability.describe()
        )
    save_judgments(output, judgments, texts, files.dataset)
    discard_partial(output.path)


if __name__ == "__main__":
    main()
