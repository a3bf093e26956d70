"""Estimate the number of clusters without labels.

The number at which the embedder's clusters agree most with the LLM's answer states says how fine both see the
texts. The embedder must not have learned from the states: its vectors before fine-tuning are taken.

Reads:  the vectors of the embedder before fine-tuning, or --feat_path; the LLM's answer states, if there are any
Writes: clusters/<run>-count.json: the chosen number, by what criterion, and what the others say

python -m perspective.3_describe.count_clusters --dataset banking77
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perspective.artifacts import Output, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.description.settings import CountSettings
from perspective.layout import Layout
from perspective.options import LearnedRunOptions, OutputOptions, VectorOptions, option

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CountInputs(VectorOptions):
    """The vectors and the answer states."""

    states_path: str | None = option(
        "answer states as .npy; default: the judge's, if there are any", default=None, group="input"
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Count."""
    kinds = (CorpusSettings, LearnedRunOptions, CountInputs, CountSettings, OutputOptions)
    corpus, run, given, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(corpus, run)
    files = layout.description.inside(out.folder)
    inputs = {"embeddings": Path(given.feat_path or layout.embeds), "texts": corpus.path}
    if given.states_path or layout.states.exists():
        inputs["answer_states"] = Path(given.states_path or layout.states)
    output = Output(files.count, "number of clusters", {**asdict(settings), "seed": run.seed}, inputs)
    if output.is_finished(out.overwrite):
        return
    from perspective.description.counting import count_clusters

    texts = load_texts(corpus)
    vectors = read_vectors(inputs["embeddings"], len(texts))
    states = read_vectors(inputs["answer_states"], len(texts)) if "answer_states" in inputs else None
    count = count_clusters(vectors, texts, states, settings, run.seed)
    logger.info("%s: %d clusters (%s)", corpus.dataset, count.n_clusters, count.criterion)
    output.facts |= {"n_texts": len(texts)}
    output.write_json(count.model_dump())


if __name__ == "__main__":
    main()
