"""Settings of pre-training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from perspective.artifacts import ROOT, Output, display_path
from perspective.artifacts.names import slugify_model
from perspective.data.collection import QRELS_PLACES
from perspective.data.corpus import CorpusSettings, sample_in_order
from perspective.errors import DataError, require_above_zero, require_least
from perspective.models.registry import describe_model, find_local
from perspective.options import TRAINED_ALIASES, ModelOptions, OutputOptions, TrainedEmbedderOptions, option
from perspective.runtime.devices import training_precision
from perspective.runtime.distributed import broadcast_from_main
from perspective.training.settings import WarmedUpSettings

logger = logging.getLogger(__name__)

CHECKPOINTS = ROOT / "perspective" / "5_pretrain" / "checkpoints"


@dataclass(frozen=True)
class DecoderOptions(TrainedEmbedderOptions):
    """The decoder to pre-train."""

    embedder: str = option(
        "the decoder: smollm2, a hub id of a causal LM, a folder (such as what mntp.sh wrote), or a .gguf file",
        default="smollm2",
        group="model",
        aliases=TRAINED_ALIASES,
    )


@dataclass(frozen=True)
class PretrainSettings(WarmedUpSettings):
    """Settings that all objectives share."""

    max_source_length: int = option("cut texts to this many tokens", default=128)
    max_texts: int | None = option("train on a random sample of this many texts", default=None)
    num_train_epochs: float = option("passes over the texts", default=1.0)

    def __post_init__(self) -> None:
        """Check values."""
        require_least(self, max_source_length=3, max_texts=4)
        super().__post_init__()


@dataclass(frozen=True)
class AdapterSettings(PretrainSettings):
    """What decoders train."""

    lora_rank: int = option(
        "train LoRA adapters of this rank on all linear layers, merged at the end; 0 trains all weights", default=16
    )

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        require_least(self, lora_rank=0)


@dataclass(frozen=True)
class MntpSettings(AdapterSettings):
    """Masked next-token prediction; rate, rank, batch and share of masked tokens are those of LLM2Vec."""

    learning_rate: float = option("peak learning rate of AdamW", default=5e-5)
    per_device_train_batch_size: int = option("texts a step, over all processes", default=32)
    mask_share: float = option("share of the tokens that is masked", default=0.2)

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        _check_share(self.mask_share)


@dataclass(frozen=True)
class SimcseSettings(AdapterSettings):
    """SimCSE; the values are those of LLM2Vec."""

    learning_rate: float = option("peak learning rate of AdamW", default=3e-5)
    per_device_train_batch_size: int = option(
        "texts a step, over all processes: the others of the step are the negatives of each", default=128
    )
    mini_batch_size: int = option(
        "texts that a process embeds at a time (gradient caching); 0 embeds the whole batch at once",
        default=32,
        group="scale",
    )
    temperature: float = option("divides the cosine similarities in the loss", default=0.05)
    bidirectional: bool = option(
        "let every token attend to all tokens; --no_bidirectional leaves the embedder's attention as it is",
        default=True,
    )

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        require_above_zero(self, "temperature")
        require_least(self, mini_batch_size=0)


@dataclass(frozen=True)
class EncoderOptions(TrainedEmbedderOptions):
    """The encoder to pre-train."""

    embedder: str = option(
        "the encoder: a hub id or a folder of a BERT or RoBERTa with its masked-LM head",
        default="google-bert/bert-base-uncased",
        group="model",
        aliases=TRAINED_ALIASES,
    )


@dataclass(frozen=True)
class RetroMaeSettings(PretrainSettings):
    """RetroMAE, and masked language modelling as its control."""

    objective: Literal["retromae", "mlm"] = option(
        "retromae: masked tokens, and the whole text from its [CLS] state; mlm: masked tokens alone", default="retromae"
    )
    learning_rate: float = option("peak learning rate of AdamW", default=1e-4)
    per_device_train_batch_size: int = option("texts a step, over all processes", default=32)
    mask_share: float = option("share of the tokens that the encoder does not see", default=0.3)

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        _check_share(self.mask_share)


def _check_share(mask_share: float) -> None:
    if not 0 < mask_share < 1:
        raise DataError(f"--mask_share {mask_share}: must be above 0 and below 1")


@dataclass(frozen=True)
class CheckpointOptions(ModelOptions, OutputOptions):
    """How the model to pre-train is loaded, and where the result is written."""

    def open_checkpoint(
        self, corpus: CorpusSettings, embedder: str, objective: str, made_from: dict[str, Any]
    ) -> Output | None:
        """Return the folder to write, with what is known before training; None where it is finished.

        Args:
            corpus: The texts.
            embedder: The model to pre-train.
            objective: Part of the folder's name.
            made_from: Settings of training.
        """
        output = Output(
            checkpoint_path(corpus.dataset, embedder, objective, self.folder),
            "pre-trained embedder",
            {"dataset": corpus.dataset, "text_column": corpus.text_column, "embedder": embedder}
            | {"revision": self.revision, **made_from},
            {"texts": corpus.path, **find_local(embedder=embedder)},
            precision=training_precision(),
        )
        if broadcast_from_main(lambda: output.is_finished(self.overwrite)):
            return None
        output.facts |= describe_model(embedder) | describe_texts(corpus.path)
        return output


def checkpoint_path(dataset: str, embedder: str, objective: str, folder: Path | None = None) -> Path:
    """Return the folder of an embedder pre-trained on a data set.

    >>> checkpoint_path("docs", "smollm2", "mntp").name, checkpoint_path("docs", "x/docs_smollm2-mntp", "simcse").name
    ('docs_smollm2-mntp', 'docs_smollm2-mntp-simcse')
    """
    name = slugify_model(embedder).removeprefix(f"{dataset}_")
    return (folder or CHECKPOINTS) / f"{dataset}_{name}-{objective}"


def describe_texts(path: Path) -> dict[str, Any]:
    """Return what the sidecar says about texts that figures are measured on too; log a warning.

    Args:
        path: The file of texts; it is a collection's if there are relevance judgments beside it.
    """
    if not any((path.parent / place).is_file() for place in QRELS_PLACES):
        return {}
    logger.warning(
        "%s: documents of a collection with judgments; figures measured on it will be those of an embedder that has "
        "read its documents",
        display_path(path),
    )
    return {"trained_on_collection": path.parent.name}


def sample_texts(texts: Sequence[str], max_texts: int | None, seed: int) -> list[str]:
    """Return the distinct texts, or a random sample of at most `max_texts` of them, in file order."""
    return sample_in_order(list(dict.fromkeys(texts)), max_texts, seed)
