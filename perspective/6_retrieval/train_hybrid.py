"""Train an embedder with M3's three heads: a dense vector, lexical weights and token vectors of one body.

Reads:  mined_results/<dataset>_<embedder>.jsonl, or --train_file: judged or mined pairs
Writes: checkpoints/<dataset>_<embedder>-<variant>/, a folder that SentenceTransformer(path) loads as
        the dense embedder, with the heads in hybrid_heads.safetensors; <folder>.partial/ and
        <folder>.heads.safetensors until it is complete, from which a killed run resumes

python -m perspective.6_retrieval.train_hybrid --dataset docstrings
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output, read_record
from perspective.cli import entry_point, parse_settings
from perspective.data.pairs import load_pairs
from perspective.hybrid.training import HybridTrainSettings, train_hybrid
from perspective.models.embedders import load_embedder
from perspective.models.prompts import choose_prompts, set_retrieval_prompts
from perspective.models.registry import describe_model, find_local
from perspective.options import ModelOptions, OverwriteOptions, RetrievalSetOptions, TrainedEmbedderOptions, option
from perspective.retrieval.layout import checkpoint_path, mined_path
from perspective.runtime.devices import training_precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HybridFiles(TrainedEmbedderOptions, ModelOptions, OverwriteOptions, RetrievalSetOptions):
    """Embedder, training pairs and output of training."""

    train_file: str | None = option("pairs as jsonl; default the mined ones", default=None, group="input")
    variant: str = option("a short name appended to the folder's", default="m3", group="output")
    output_dir: str | None = option("the output folder; default in checkpoints", default=None, group="output")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    files, settings = parse_settings((HybridFiles, HybridTrainSettings), argv, __doc__)
    train_file = Path(files.train_file or mined_path(files.dataset, files.embedder))
    path = Path(files.output_dir or checkpoint_path(files.dataset, files.embedder, files.variant))
    source = {name: getattr(files, name) for name in ("dataset", "embedder", "revision")}
    made_from = {**source, **settings.made_from()}
    inputs = {"training_pairs": train_file, **find_local(embedder=files.embedder)}
    output = Output(path, "hybrid retriever", made_from, inputs, precision=training_precision())
    if output.is_finished(files.overwrite):
        return
    pairs = load_pairs(train_file)
    model = load_embedder(files.embedder, **files.loading())
    output.record.prompts = set_retrieval_prompts(model, files.embedder, *choose_prompts(settings))
    output.record.judge = read_record(train_file).judge
    output.facts |= describe_model(files.embedder)
    train_hybrid(model, pairs, settings, output)
    logger.info("loss %.3f at the first step, %.3f at the last", output.facts["first_loss"], output.facts["final_loss"])


if __name__ == "__main__":
    main()
