"""Train an embedder with M3's heads on pairs. Relevance judgments of test sets are not used."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perspective.artifacts import Output, discard_result
from perspective.data.corpus import sample_in_order
from perspective.data.pairs import Pair
from perspective.errors import require_above_zero
from perspective.options import PromptOptions, option
from perspective.retrieval.training import make_dataset, prompts_by_column, write_retriever_card
from perspective.training.run import RunSettings, run_training, save_trained
from perspective.training.settings import PairTrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HybridTrainSettings(PromptOptions, PairTrainSettings):
    """How body and heads are trained."""

    distill: bool = option(
        "self-distillation: each of the three ways learns from their sum; --no_distill leaves it out", default=True
    )
    temperature: float = option("divides the scores in the loss", default=0.02)
    learning_rate: float = option("peak learning rate of AdamW, for body and heads", default=2e-5)
    head_learning_rate: float = option("the same while the heads are trained alone", default=1e-3)
    num_train_epochs: float = option("passes over the pairs", default=1.0)
    head_epochs: float = option("passes before, in which the new heads are trained and the body is not", default=1.0)
    per_device_train_batch_size: int = option(
        "pairs a step: each query is compared with the documents and negatives of all", default=32
    )

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        require_above_zero(self, "temperature", "head_learning_rate", "head_epochs")


def train_hybrid(
    model: SentenceTransformer, pairs: Sequence[Pair], settings: HybridTrainSettings, output: Output
) -> None:
    """Train new heads alone, then body and heads; write a folder that `SentenceTransformer(path)` loads.

    The heads are a file in it, `HEADS`. Checkpoints are kept in `<folder>.partial/`, the heads that were
    trained alone in `<folder>.heads.safetensors`, until the result is complete; a killed run resumes.

    Args:
        model: The base embedder, with prompts from `set_retrieval_prompts`; changed in place.
        pairs: The training pairs.
        settings: How to train.
        output: The folder to write; counts and the last loss are added to its facts.

    Raises:
        DataError: There are fewer than two pairs, or all have weight 0.
        ModelError: The embedder has no tokens to put heads on.
    """
    from perspective.models.hybrid import add_heads, remove_heads
    from perspective.models.hybrid_files import HEADS, load_heads, save_heads
    from perspective.training.batch_samplers import PairLengthBatchSampler
    from perspective.training.losses.hybrid import HybridLoss

    pairs = sample_in_order(pairs, settings.max_pairs, settings.seed)
    dataset = make_dataset(pairs, settings.num_negatives, weighted=True)
    output.facts |= {"n_pairs": len(pairs), "n_hard_negatives": int(sum(sum(row[1:]) for row in dataset["label"]))}
    prompts = prompts_by_column(model, dataset.column_names)
    alone = output.beside(output.path.with_name(f"{output.path.name}.heads.safetensors"), "heads")
    if settings.resume:
        output.open_partial()  # refuses a run of other settings before its heads are trained
    if settings.resume and alone.is_current():
        logger.info("the heads were trained alone before")
        heads = load_heads(model, alone.path)
    else:
        heads = add_heads(model, settings.seed)
        _train_heads(model, dataset, prompts, settings, alone)
    loss = HybridLoss(model, settings.temperature, settings.distill)
    run = RunSettings.collect(settings)
    history = run_training(model, dataset, loss, PairLengthBatchSampler, prompts, run, output)
    remove_heads(model)
    save_trained(model, history, output, describe_hybrid, lambda folder: save_heads(heads, folder / HEADS))
    discard_result(alone.path)


def _train_heads(
    model: SentenceTransformer,
    dataset: Dataset,
    prompts: Mapping[str, str] | None,
    settings: HybridTrainSettings,
    alone: Output,
) -> None:
    """Train the heads and not the body: new heads would teach it nothing but noise.

    Without self-distillation: their sum with a dense score that is no better is no teacher yet.
    """
    from perspective.models.hybrid_files import save_heads
    from perspective.training.batch_samplers import PairLengthBatchSampler
    from perspective.training.losses.hybrid import HybridLoss

    heads = model[-1]
    model.requires_grad_(False)
    heads.requires_grad_(True)
    run = RunSettings.collect(_HeadRun(settings.head_learning_rate, settings.head_epochs), settings)
    loss = HybridLoss(model, settings.temperature, distill=False)
    run_training(model, dataset, loss, PairLengthBatchSampler, prompts, run, alone)
    with alone.open() as temporary:
        save_heads(heads, temporary)
    alone.discard_partial()
    model.requires_grad_(True)


@dataclass(frozen=True)
class _HeadRun:
    learning_rate: float
    num_train_epochs: float


def describe_hybrid(output: Output) -> str:
    """Return the model card: data, prompts, settings, and how the heads are used."""
    from perspective.models.hybrid_files import HEADS

    about = (
        f"trained to retrieve on the pairs of `{output.settings.get('dataset')}` in three ways, as M3-Embedding. This\n"
        f"folder is the dense embedder; `{HEADS}` holds the heads of the lexical weights and the\n"
        "token vectors, which `perspective.models.hybrid_files.load_hybrid` appends to it.\n"
    )
    return write_retriever_card(output, about)
