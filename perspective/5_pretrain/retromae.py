"""Pre-train an encoder to put a whole text into its [CLS] state (RetroMAE), or by masked tokens alone.

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path: any texts; the more, the better
Writes: checkpoints/<dataset>_<embedder>-<objective>/, a folder that SentenceTransformer(path) loads and that stage 6
        trains further, with its model card, loss.csv and loss.png; the sidecar has the loss of masked tokens of
        held-out texts before and after; <folder>.partial/ until it is complete, from which a killed run resumes

python -m perspective.5_pretrain.retromae --dataset banking77 --embedder google-bert/bert-base-uncased
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output
from perspective.cli import parse_settings, shared_entry_point
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.models.embedders import load_embedder
from perspective.models.registry import describe_model, find_local
from perspective.options import ModelOptions, OutputOptions
from perspective.pretraining.settings import EncoderOptions, RetroMaeSettings, checkpoint_path, describe_texts
from perspective.runtime.distributed import broadcast_from_main

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetroMaeFiles(EncoderOptions, ModelOptions, OutputOptions):
    """The encoder, and where it is written."""


@shared_entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    corpus, files, settings = parse_settings((CorpusSettings, RetroMaeFiles, RetroMaeSettings), argv, __doc__)
    path = checkpoint_path(corpus.dataset, files.embedder, settings.objective, files.folder)
    made_from = {
        **{"dataset": corpus.dataset, "text_column": corpus.text_column, "embedder": files.embedder},
        **{"revision": files.revision, **settings.made_from()},
    }
    inputs: dict[str, Path] = {"texts": corpus.path, **find_local(embedder=files.embedder)}
    output = Output(path, "pre-trained embedder", made_from, inputs)
    if broadcast_from_main(lambda: output.is_finished(files.overwrite)):
        return
    from perspective.pretraining.retromae import load_rebuilder, pretrain_encoder

    output.facts |= describe_model(files.embedder) | describe_texts(corpus.path)
    hub = {"revision": files.revision, "trust_remote_code": files.trust_remote_code}
    model = load_embedder(files.embedder, **hub)
    module = load_rebuilder(files.embedder, model, settings.seed, **hub)
    pretrain_encoder(model, module, load_texts(corpus), settings, output)
    losses = [output.facts[f"masked_loss_{when}"] for when in ("before", "trained")]
    logger.info("loss of masked tokens of held-out texts: %s before, %s trained", *losses)


if __name__ == "__main__":
    main()
