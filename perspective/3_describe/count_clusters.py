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
from dataclasses import asdict
from pathlib import Path

from perspective.artifacts import Output
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.description.files import read_count
from perspective.description.records import GIVEN
from perspective.description.settings import CountSettings
from perspective.errors import DataError
from perspective.judging.settings import StatesOptions
from perspective.layout import ClusterFiles, Layout
from perspective.options import LearnedRunOptions, OutputOptions

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Count."""
    kinds = (CorpusSettings, LearnedRunOptions, StatesOptions, CountSettings, OutputOptions)
    corpus, run, given, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(corpus, run)
    files = layout.description.inside(out.folder)
    inputs = {"embeddings": Path(given.feat_path or layout.embeds), "texts": corpus.path}
    if (states_file := given.find_states(corpus, run.llm)) and (given.states_path or states_file.exists()):
        inputs["answer_states"] = states_file
    output = Output(files.count, "number of clusters", {**asdict(settings), "seed": run.seed}, inputs)
    if not out.overwrite and _is_counted(output, files, settings):
        return
    from perspective.description.counting import count_clusters

    texts = load_texts(corpus)
    if (settings.n_clusters or 0) > len(texts):
        raise DataError(f"--n_clusters {settings.n_clusters}: there are only {len(texts)} texts")
    vectors = output.read_vectors("embeddings", len(texts))
    states = output.read_vectors("answer_states", len(texts)) if "answer_states" in inputs else None
    count = count_clusters(vectors, texts, states, settings, run.seed)
    logger.info("%s: %d clusters (%s)", corpus.dataset, count.n_clusters, count.criterion)
    output.facts |= {"n_texts": len(texts)}
    output.write_json(count.model_dump())


def _is_counted(output: Output, files: ClusterFiles, settings: CountSettings) -> bool:
    """Tell whether the number is there and current; one that a person gave stays until another is given."""
    if settings.n_clusters is None and files.count.exists():
        count = read_count(files)
        if count.criterion == GIVEN:
            logger.info("%d clusters, the number that was given; --overwrite estimates it", count.n_clusters)
            return True
    if is_current := output.is_current():
        output.log_finished()
    return is_current


if __name__ == "__main__":
    main()
