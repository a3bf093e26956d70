"""Train a reranker, a CrossEncoder that reads a query and a document together, on a retriever's own hits.

Reads:  mined_results/<dataset>_<embedder>.jsonl, or --train_file: pairs with hard negatives of the
        retriever to be reranked; with --distill scored_results/<dataset>_<embedder>.jsonl
Writes: rerankers/<dataset>_<body>[-<variant>]/, a folder for --reranker and for CrossEncoder(path), with
        its model card, loss.csv and loss.png; <folder>.partial/ until it is complete, from which a
        killed run resumes

python -m perspective.6_retrieval.train_reranker --dataset docstrings --embedder minilm
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output
from perspective.cli import entry_point, parse_settings
from perspective.data.pairs import load_pairs
from perspective.models.registry import describe_model, find_local
from perspective.options import EmbedderOptions, OverwriteOptions, RetrievalSetOptions, option
from perspective.reranking.training import RerankerTrainSettings, load_body, make_groups, train_reranker
from perspective.retrieval.layout import mined_path, reranker_path, scored_path
from perspective.runtime.devices import training_precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RerankerFiles(EmbedderOptions, OverwriteOptions, RetrievalSetOptions):
    """Pairs, body and output of training."""

    body: str | None = option(
        "the encoder to train: minilm, an id or folder of an encoder or embedder; default that of --embedder, whose "
        "hard negatives are read",
        default=None,
        group="model",
    )
    train_file: str | None = option("pairs as jsonl; default the mined or the scored ones", default=None, group="input")
    variant: str = option("a short name appended to the folder's, to train several", default="", group="output")
    output_dir: str | None = option("the output folder; default in rerankers", default=None, group="output")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    files, settings = parse_settings((RerankerFiles, RerankerTrainSettings), argv, __doc__)
    body = files.body or files.embedder
    find_pairs = scored_path if settings.distill else mined_path
    train_file = Path(files.train_file or find_pairs(files.dataset, files.embedder))
    path = Path(files.output_dir or reranker_path(files.dataset, body, files.variant))
    made_from = {"dataset": files.dataset, "body": body, **settings.made_from()}
    inputs = {"training_pairs": train_file, **find_local(body=body)}
    output = Output(path, "reranker", made_from, inputs, precision=training_precision())
    if output.is_finished(files.overwrite):
        return
    groups = make_groups(load_pairs(train_file), settings)
    output.facts |= describe_model(body)
    train_reranker(load_body(body, settings.seed), groups, settings, output)
    logger.info("loss %.3f at the first step, %.3f at the last", output.facts["first_loss"], output.facts["final_loss"])


if __name__ == "__main__":
    main()
