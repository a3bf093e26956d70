"""Train an embedder by SimCSE: two passes over a text with different dropout are a pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from perspective.artifacts import Output
from perspective.errors import DataError, ModelError
from perspective.models.decoders import make_bidirectional
from perspective.pretraining.mntp import describe_pretrained
from perspective.pretraining.settings import SimcseSettings, sample_texts
from perspective.training.run import RunSettings, run_training, save_trained

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DROPOUT = 0.3  # of LLM2Vec; decoders are published with 0
SAME = 1e-6  # largest difference of two views that are the same


def pretrain_by_simcse(
    model: SentenceTransformer, texts: Sequence[str], settings: SimcseSettings, output: Output
) -> None:
    """Train an embedder to tell each text's other view from all other texts of the batch, and write it.

    The views differ by dropout alone. Decoders such as Llama have it in their attention only, and are
    published without: it is set to `DROPOUT` for the training. The loss is InfoNCE over cosines. Source:
    "SimCSE" (Gao et al., 2021), section 3; for decoders "LLM2Vec" (BehnamGhader et al., 2024), section 2.3.

    Args:
        model: The embedder; changed in place.
        texts: The texts.
        settings: How to train.
        output: The folder to write.

    Raises:
        DataError: Fewer than two texts.
        ModelError: Two passes over a text give the same vector.
    """
    from datasets import Dataset
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    from perspective.training.losses.distilled_ranking import build_ranking_loss

    texts = sample_texts(texts, settings.max_texts, settings.seed)
    if len(texts) < 2:
        raise DataError(f"{len(texts)} different text: each is told from others, so that two at least are needed")
    output.facts["n_texts"] = len(texts)
    if settings.bidirectional:
        make_bidirectional(model)
    loss = build_ranking_loss(model, settings.temperature, settings.mini_batch_size)
    dataset = Dataset.from_dict({"view_1": texts, "view_2": texts, "label": [[1.0]] * len(texts)})
    with set_dropout(model):
        require_different_views(model, texts[:2])
        run = RunSettings.collect(settings)
        history = run_training(model, dataset, loss, BatchSamplers.NO_DUPLICATES, None, run, output)
    save_trained(model, history, output, describe_pretrained)


@contextmanager
def set_dropout(model: SentenceTransformer) -> Iterator[None]:
    """Set the dropout of attention in all layers that have none, inside the block."""
    layers = [
        module for module in model.transformers_model.modules() if getattr(module, "attention_dropout", None) == 0
    ]
    for layer in layers:
        layer.attention_dropout = DROPOUT
    try:
        yield
    finally:
        for layer in layers:
            layer.attention_dropout = 0.0


def require_different_views(model: SentenceTransformer, texts: Sequence[str]) -> None:
    """Check that dropout gives two views of a text.

    Raises:
        ModelError: It does not: the loss would be that of copies.
    """
    import torch

    features = model.preprocess(list(texts))
    features = {key: value.to(model.device) for key, value in features.items() if hasattr(value, "to")}
    was_training = model.training
    model.train()
    with torch.no_grad(), torch.random.fork_rng():
        one, other = (model(dict(features))["sentence_embedding"] for _ in range(2))
    model.train(was_training)
    if (one - other).abs().max() < SAME:
        raise ModelError(
            f"{model.config.model_type}: two passes over a text give the same vector, since this model has no dropout "
            "that can be set; choose another decoder"
        )
