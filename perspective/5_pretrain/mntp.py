"""Make a decoder attend to both sides, and train it by masked next-token prediction (the first step of LLM2Vec).

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path: any texts; the more, the better
Writes: checkpoints/<dataset>_<embedder>-mntp/, a folder that SentenceTransformer(path) loads, with its model card,
        loss.csv, loss.png and lora/, the adapter; the sidecar has the loss on held-out texts with the causal mask,
        without it, and after training; <folder>.partial/ until it is complete, from which a killed run resumes

python -m perspective.5_pretrain.mntp --dataset banking77 --embedder smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from perspective.cli import parse_settings, shared_entry_point
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.models.embedders import load_embedder
from perspective.options import RecipeFileOptions
from perspective.pretraining.mntp import load_head, pretrain_by_masking
from perspective.pretraining.settings import CheckpointOptions, DecoderOptions, MntpSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MntpFiles(DecoderOptions, CheckpointOptions, RecipeFileOptions):
    """The decoder, and where it is written."""


@shared_entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    corpus, files, settings = parse_settings((CorpusSettings, MntpFiles, MntpSettings), argv, __doc__)
    objective = {"objective": "masked next-token prediction"}
    output = files.open_checkpoint(corpus, files.embedder, "mntp", {**objective, **settings.made_from()})
    if output is None:
        return
    model = load_embedder(files.embedder, pooling="mean", **files.loading())
    head = load_head(files.embedder, model, **files.loading())
    pretrain_by_masking(model, head, load_texts(corpus), settings, output)
    losses = [output.facts.get(f"masked_loss_{when}", "-") for when in ("causal", "bidirectional", "trained")]
    logger.info("masked loss on held-out texts: %s as it comes, %s without the causal mask, %s trained", *losses)


if __name__ == "__main__":
    main()
