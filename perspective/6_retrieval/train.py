"""Fine-tune the embedder on pairs of queries and documents, with hard negatives if there are any.

Reads:  mined_results/<dataset>_<embedder>.jsonl, or --train_file: judged or mined pairs, or
        datasets/<dataset>/train.jsonl; with --distill scored_results/<dataset>_<embedder>.jsonl
Writes: checkpoints/<dataset>_<embedder>[-<variant>]/, a folder that SentenceTransformer(path)
        loads, with its model card, loss.csv and loss.png, and lora/ with the adapter where one was
        trained; <folder>.partial/ until it is complete, from which a killed run resumes

python -m perspective.6_retrieval.train --dataset docstrings

A decoder by the recipe of E5-mistral; options that are given too override the recipe:
python -m perspective.6_retrieval.train --dataset docstrings --recipe_file recipes/e5-mistral.yaml --embedder smollm2

With several GPUs, start it by torchrun or `accelerate launch`; they share each batch:
torchrun --nproc_per_node 8 -m perspective.6_retrieval.train --dataset docstrings
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output, read_record
from perspective.cli import parse_settings, shared_entry_point
from perspective.data.pairs import load_pairs
from perspective.models.embedders import load_embedder
from perspective.models.prompts import choose_prompts, set_retrieval_prompts
from perspective.models.registry import describe_model, find_local
from perspective.options import (
    BodyOptions,
    OverwriteOptions,
    RecipeFileOptions,
    RetrievalSetOptions,
    TrainedEmbedderOptions,
    option,
)
from perspective.retrieval.layout import checkpoint_path, mined_path, scored_path
from perspective.retrieval.training import RetrieverTrainSettings, train_retriever
from perspective.runtime.devices import training_precision
from perspective.runtime.distributed import broadcast_from_main
from perspective.training.adapters import require_adapters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingFiles(RecipeFileOptions, TrainedEmbedderOptions, BodyOptions, OverwriteOptions, RetrievalSetOptions):
    """Embedder, training pairs and output of training."""

    train_file: str | None = option("pairs as jsonl; default the mined or the scored ones", default=None, group="input")
    variant: str = option("a short name appended to the folder's, to train several models", default="", group="output")
    output_dir: str | None = option("the output folder; default in checkpoints", default=None, group="output")


@shared_entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    files, settings = parse_settings((TrainingFiles, RetrieverTrainSettings), argv, __doc__)
    find_pairs = scored_path if settings.distill else mined_path
    train_file = Path(files.train_file or find_pairs(files.dataset, files.embedder))
    path = Path(files.output_dir or checkpoint_path(files.dataset, files.embedder, files.variant))
    made_from = {
        "dataset": files.dataset,
        "embedder": files.embedder,
        "revision": files.revision,
        **{name: getattr(files, name) for name in ("pooling", "load_in") if getattr(files, name) not in (None, "auto")},
        **settings.made_from(),
    }
    inputs = {"training_pairs": train_file, **find_local(embedder=files.embedder)}
    output = Output(path, "retriever", made_from, inputs, precision=training_precision())
    if broadcast_from_main(lambda: output.is_finished(files.overwrite)):
        return
    require_adapters(files.load_in, settings.lora_rank)
    pairs = load_pairs(train_file)
    model = load_embedder(files.embedder, **files.loading())
    prompts = set_retrieval_prompts(model, files.embedder, *choose_prompts(settings))
    output.facts |= describe_model(files.embedder)
    output.record.prompts = prompts
    output.record.judge = read_record(train_file).judge
    train_retriever(model, pairs, settings, output)
    logger.info("loss %.3f at the first step, %.3f at the last", output.facts["first_loss"], output.facts["final_loss"])


if __name__ == "__main__":
    main()
