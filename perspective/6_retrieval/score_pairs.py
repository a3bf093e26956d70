"""Score training pairs with a reranker: what `train --distill` and `train_reranker --distill` learn from.

Reads:  mined_results/<dataset>_<embedder>.jsonl, or --train_file: pairs with hard negatives
Writes: scored_results/<dataset>_<embedder>.jsonl: the same pairs with "scores", the logits of the document
        and each hard negative; <file>.partial/ until it is complete, from which a killed run resumes

python -m perspective.6_retrieval.score_pairs --dataset docstrings --reranker rerankers/docstrings_minilm
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perspective.artifacts import Output
from perspective.cli import entry_point, parse_settings
from perspective.data.pairs import load_pairs
from perspective.models.embedding import BatchOptions
from perspective.models.registry import describe_model, find_local
from perspective.options import CodeOptions, EmbedderOptions, OutputOptions, RetrievalSetOptions, option
from perspective.reranking.scoring import score_pairs
from perspective.retrieval.layout import mined_path, scored_path
from perspective.runtime.devices import reading_precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TeacherOptions:
    """The reranker that scores."""

    reranker: str = option(
        "a folder of train_reranker, an id of a CrossEncoder, or a causal LM (smollm2)", group="model"
    )


@dataclass(frozen=True)
class ScoringFiles(EmbedderOptions, BatchOptions, OutputOptions, CodeOptions, TeacherOptions, RetrievalSetOptions):
    """Pairs, reranker and output of scoring."""

    train_file: str | None = option("pairs with hard negatives; default the mined ones", default=None, group="input")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Score."""
    files = parse_settings(ScoringFiles, argv, __doc__)
    train_file = Path(files.train_file or mined_path(files.dataset, files.embedder))
    path = scored_path(files.dataset, files.embedder, files.folder)
    inputs = {"training_pairs": train_file, **find_local(reranker=files.reranker)}
    output = Output(path, "scored pairs", {"reranker": files.reranker}, inputs, precision=reading_precision())
    if output.is_finished(files.overwrite):
        return
    from perspective.reranking.loading import load_reranker

    output.facts |= describe_model(files.reranker)
    load = partial(load_reranker, files.reranker, trust_remote_code=files.trust_remote_code)
    score_pairs(load_pairs(train_file), load, output, files.batch_size)
    logger.info("the document has the highest score of its group in %.1f%%", 100 * output.facts["top_is_document"])


if __name__ == "__main__":
    main()
