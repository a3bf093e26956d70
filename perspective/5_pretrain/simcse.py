"""Train an embedder by SimCSE: two dropped-out views of a text against other texts (the last step of LLM2Vec).

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path: any texts; the embedder, such as what mntp.py wrote
Writes: checkpoints/<dataset>_<embedder>-simcse/, a folder that SentenceTransformer(path) loads, with its model card,
        loss.csv, loss.png and lora/, the adapter; <folder>.partial/ until it is complete, from which a killed run
        resumes

cd perspective/5_pretrain && bash scripts/simcse.sh --embedder checkpoints/banking77_smollm2-mntp
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from perspective.cli import parse_settings, shared_entry_point
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.models.embedders import load_embedder
from perspective.options import BodyOptions, PoolingName, RecipeFileOptions, option
from perspective.pretraining.settings import CheckpointOptions, DecoderOptions, SimcseSettings
from perspective.pretraining.simcse import pretrain_by_simcse
from perspective.training.adapters import require_adapters

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimcseFiles(DecoderOptions, BodyOptions, CheckpointOptions, RecipeFileOptions):
    """The embedder, and where it is written."""

    pooling: PoolingName = option(
        "what makes a vector of a text: last (of a decoder its end-of-text token), mean, or weighted (a mean in which "
        "later tokens count more)",
        default="mean",
        group="model",
    )


@shared_entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    corpus, files, settings = parse_settings((CorpusSettings, SimcseFiles, SimcseSettings), argv, __doc__)
    made_from = {"pooling": files.pooling, "load_in": files.load_in, "objective": "SimCSE", **settings.made_from()}
    output = files.open_checkpoint(corpus, files.embedder, "simcse", made_from)
    if output is None:
        return
    require_adapters(files.load_in, settings.lora_rank)
    model = load_embedder(files.embedder, **files.loading())
    pretrain_by_simcse(model, load_texts(corpus), settings, output)
    logger.info("loss %.3f at the first step, %.3f at the last", output.facts["first_loss"], output.facts["final_loss"])


if __name__ == "__main__":
    main()
