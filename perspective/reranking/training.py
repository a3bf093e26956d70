"""Train a CrossEncoder to rank the documents that a retriever found. Relevance judgments of test sets are not used."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perspective.artifacts import Output
from perspective.data.corpus import sample_in_order
from perspective.data.pairs import Pair
from perspective.errors import DataError, ModelError, require_least
from perspective.models.decoders import is_bare_decoder
from perspective.models.folders import check_folder
from perspective.models.registry import EMBEDDERS, explain_loading, find_source
from perspective.options import option
from perspective.training.model_card import write_card
from perspective.training.run import RunSettings, run_training, save_trained
from perspective.training.settings import PairTrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)

MINI_BATCH = 32  # pairs of a forward pass


@dataclass(frozen=True)
class RerankerTrainSettings(PairTrainSettings):
    """How the reranker is trained."""

    num_negatives: int = option("hard negatives of a query, drawn at random from those of its pair", default=7)
    distill: bool = option(
        "learn another reranker's ranking of each group, from the scores of score_pairs, in place of which text is "
        "the document",
        default=False,
    )
    learning_rate: float = option(
        "peak learning rate of AdamW, for small bodies and few pairs; 2e-5 for bodies of 100M parameters and more",
        default=2e-4,
    )
    num_train_epochs: float = option("passes over the queries", default=1.0)
    per_device_train_batch_size: int = option("queries a step, each with its document and negatives", default=16)

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        require_least(self, num_negatives=1)


def load_body(name: str, seed: int) -> CrossEncoder:
    """Load an encoder with a new head of one output, or a reranker to train further.

    Args:
        name: A short name of an embedder, a hub id, or a folder; the body of an embedder is taken.
        seed: Of the head's first weights.

    Raises:
        ModelError: It cannot be loaded, or is a causal LM.
    """
    source = find_source(name, EMBEDDERS)
    if isinstance(source, Path) and source.is_dir():
        check_folder(source, is_pooled=False)
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import set_seed

    set_seed(seed)
    with explain_loading(name):
        if is_bare_decoder(source):
            raise ModelError(
                f"{name}: a causal LM, which reranks without training: give it to evaluate.sh as --reranker {name}; "
                "take an encoder such as minilm to train"
            )
        options = {"use_safetensors": True, "dtype": torch.float32}
        return CrossEncoder(str(source), num_labels=1, model_kwargs=options)


def train_reranker(model: CrossEncoder, groups: Dataset, settings: RerankerTrainSettings, output: Output) -> None:
    """Train a CrossEncoder by listwise cross-entropy, and write it as a folder that `CrossEncoder(path)` loads.

    The loss is ListNet's: cross-entropy between the softmax of the labels over a query's documents and
    that of the logits. Checkpoints are kept in `<folder>.partial/` until the result is complete; a
    killed run resumes from the last complete one.

    Args:
        model: From `load_body`; changed in place.
        groups: From `make_groups`.
        settings: How to train.
        output: The folder to write; counts and the last loss are added to its facts.
    """
    from sentence_transformers.base.sampler import BatchSamplers
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    output.facts |= {"n_queries": len(groups), "n_texts": sum(map(len, groups["documents"]))}
    loss = ListNetLoss(model, mini_batch_size=MINI_BATCH)
    run = RunSettings.collect(settings)
    history = run_training(model, groups, loss, BatchSamplers.BATCH_SAMPLER, None, run, output)
    save_trained(model, history, output, describe_reranker)


def make_groups(pairs: Sequence[Pair], settings: RerankerTrainSettings) -> Dataset:
    """Return a row a query: `query`, `documents` (its own first), `label` (a logit of each document's target).

    Negatives are drawn from those of the pair: of the retriever's first 50 hits, say, so that they are
    like what is reranked. Without a teacher the target is the pair's document alone, a logit of 0 among
    negative infinities.

    Raises:
        DataError: No pair has a hard negative, or one has no scores with `distill`.
    """
    from datasets import Dataset

    pairs = sample_in_order(pairs, settings.max_pairs, settings.seed)
    groups = [pair for pair in pairs if pair.hard_negatives]
    if not groups:
        raise DataError("no pair has a hard negative to rank the document against; run mine_negatives first")
    n_few = sum(len(pair.hard_negatives) < settings.num_negatives for pair in groups)
    if n_few or len(groups) < len(pairs):
        logger.warning(
            "of %d pairs, %d without hard negatives are left out, and %d have fewer than --num_negatives %d; "
            "mine_negatives finds more with a higher --num_negatives or lower margins",
            *(len(pairs), len(pairs) - len(groups), n_few, settings.num_negatives),
        )
    rng = random.Random(settings.seed)
    columns: dict[str, list[Any]] = {"query": [], "documents": [], "label": []}
    for pair in groups:
        n_drawn = min(settings.num_negatives, len(pair.hard_negatives))
        drawn = sorted(rng.sample(range(len(pair.hard_negatives)), n_drawn))
        if settings.distill and not pair.scores:
            raise DataError(f'--distill: the pair of "{pair.query:.40}" has no "scores"; run score_pairs first')
        taught = [pair.scores[place] for place in (0, *(1 + row for row in drawn))] if settings.distill else None
        columns["query"].append(pair.query)
        columns["documents"].append([pair.document, *(pair.hard_negatives[row] for row in drawn)])
        columns["label"].append(taught or [0.0, *[float("-inf")] * n_drawn])
    return Dataset.from_dict(columns)


def describe_reranker(output: Output) -> str:
    """Return the model card: data and settings."""
    target = "another reranker's scores" if output.settings.get("distill") else "which of them is the query's own"
    about = (
        f"trained to rerank on the pairs of `{output.settings.get('dataset')}`: listwise cross-entropy over a\n"
        f"query's document and hard negatives, against {target}.\n"
    )
    usage = (
        f'model = CrossEncoder("{output.path.name}")\n'
        'scores = model.predict([("a question", "a text"), ("a question", "another text")])'
    )
    return write_card(output, "reranker", about, usage, output.facts, class_name="CrossEncoder")
