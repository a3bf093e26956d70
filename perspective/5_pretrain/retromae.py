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

from perspective.cli import parse_settings, shared_entry_point
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.models.embedders import load_embedder
from perspective.pretraining.settings import CheckpointOptions, EncoderOptions, RetroMaeSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetroMaeFiles(EncoderOptions, CheckpointOptions):
    """The encoder, and where it is written."""


@shared_entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    corpus, files, settings = parse_settings((CorpusSettings, RetroMaeFiles, RetroMaeSettings), argv, __doc__)
    output = files.open_checkpoint(corpus, files.embedder, settings.objective, settings.made_from())
    if output is None:
        return
    from perspective.pretraining.retromae import load_rebuilder, pretrain_encoder

    model = load_embedder(files.embedder, **files.loading())
    module = load_rebuilder(files.embedder, model, settings.seed, **files.loading())
    pretrain_encoder(model, module, load_texts(corpus), settings, output)
    losses = [output.facts[f"masked_loss_{when}"] for when in ("before", "trained")]
    logger.info("loss of masked tokens of held-out texts: %s before, %s trained", *losses)


if __name__ == "__main__":
    main()
