"""Train a decoder that attends to both sides by masked next-token prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.artifacts import Output
from perspective.errors import DataError, ModelError
from perspective.models.decoders import is_decoder, make_bidirectional
from perspective.models.registry import EMBEDDERS, explain_loading, find_source
from perspective.models.weights import locate_weights, read_gguf_once
from perspective.pretraining.settings import MntpSettings, sample_texts
from perspective.training.model_card import write_card
from perspective.training.run import RunSettings, limit_length, run_training, save_trained

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

HELD_OUT_SHARE = 0.1  # of the texts, on which the loss is measured
MAX_HELD_OUT = 256
MEASURED_AT_A_TIME = 32


def pretrain_by_masking(
    model: SentenceTransformer, head: nn.Module, texts: Sequence[str], settings: MntpSettings, output: Output
) -> None:
    """Remove a decoder's causal mask, train it by masked next-token prediction, and write it as an embedder.

    The loss on held-out texts is measured with the causal mask, without it before training, and after
    training: it rises when the mask goes and should fall below that again. Checkpoints are kept in
    `<folder>.partial/`; a killed run resumes from the last complete one.

    Args:
        model: The decoder as an embedder; changed in place.
        head: Its head as a causal LM, from `load_head`.
        texts: The texts.
        settings: How to train.
        output: The folder to write; the three losses are added to its facts.

    Raises:
        DataError: Too few texts.
        ModelError: The embedder is not a decoder.
    """
    from datasets import Dataset

    from perspective.pretraining.masking import MaskedNextTokenLoss
    from perspective.training.batch_samplers import LengthBatchSampler

    require_decoder(model)
    trained, held_out = split_texts(sample_texts(texts, settings.max_texts, settings.seed), settings.seed)
    limit_length(model, settings.max_source_length)
    loss = MaskedNextTokenLoss(model, head.to(model.device), settings.mask_share)
    facts: dict[str, Any] = {"n_texts": len(trained), "n_held_out": len(held_out)}
    if getattr(model.config, "is_causal", True):
        facts["masked_loss_causal"] = measure_masked_loss(loss, held_out)
    make_bidirectional(model)
    facts["masked_loss_bidirectional"] = measure_masked_loss(loss, held_out)
    output.facts |= facts
    dataset = Dataset.from_dict({"sentence": trained})
    history = run_training(model, dataset, loss, LengthBatchSampler, None, RunSettings.collect(settings), output)
    loss.model = model  # the trainer may have put its wrapper there
    output.facts["masked_loss_trained"] = measure_masked_loss(loss, held_out)
    save_trained(model, history, output, describe_pretrained)


def measure_masked_loss(loss: Any, texts: Sequence[str]) -> float:  # noqa: ANN401
    """Return the mean loss of masked tokens, the same ones whatever the model; without dropout.

    Args:
        loss: A `MaskedNextTokenLoss`.
        texts: Held-out texts.
    """
    import torch

    from perspective.pretraining.masking import draw_masked

    model = loss.model
    was_training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(0)
    total = n_masked = 0.0
    with torch.inference_mode():
        for start in range(0, len(texts), MEASURED_AT_A_TIME):
            encoded = model.preprocess(list(texts[start : start + MEASURED_AT_A_TIME]))
            features = {key: encoded[key].to(model.device) for key in ("input_ids", "attention_mask")}
            ids, attention = features["input_ids"], features["attention_mask"]
            masked = draw_masked(ids, attention, loss.special, loss.mask_share, generator)
            total += loss.compute_loss(features, masked).item()
            n_masked += int(masked.sum())
    model.train(was_training)
    if not n_masked:
        raise DataError("no held-out text has two tokens, so that none can be masked; give longer texts")
    return round(total / n_masked, 4)


def split_texts(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the texts to train on and the held-out texts.

    Raises:
        DataError: There are too few.
    """
    if len(texts) < 4:
        raise DataError(f"{len(texts)} different texts: pre-training needs at least 4, and thousands to be of use")
    n_held_out = min(MAX_HELD_OUT, max(1, int(HELD_OUT_SHARE * len(texts))))
    held_out = set(np.random.default_rng(seed).choice(len(texts), n_held_out, replace=False).tolist())
    return (
        [text for row, text in enumerate(texts) if row not in held_out],
        [texts[row] for row in sorted(held_out)],
    )


def require_decoder(model: SentenceTransformer) -> None:
    """Check that an embedder's body is a causal LM.

    Raises:
        ModelError: It is not.
    """
    config = model.config.to_dict() if model.config is not None else {}
    if not is_decoder(config):
        raise ModelError(
            f"{config.get('model_type', 'this embedder')}: not a causal LM; choose one, such as --embedder smollm2"
        )


def load_head(name: str, model: SentenceTransformer, **options: Any) -> nn.Module:  # noqa: ANN401  of the hub
    """Return a causal LM's head, which maps states to scores of the vocabulary.

    Args:
        name: The model as `load_embedder` takes it.
        model: The loaded embedder; a head that shares the word vectors is made of them.
        **options: Revision and trust of a hub id.

    Raises:
        ModelError: The model was saved without a head of its own.
    """
    import torch
    import transformers

    words = model.transformers_model.get_input_embeddings().weight
    if getattr(model.config, "tie_word_embeddings", False):
        head = torch.nn.Linear(words.shape[1], words.shape[0], bias=False, device="meta")
        head.weight = torch.nn.Parameter(words.detach(), requires_grad=False)
        return head
    weights = locate_weights(find_source(name, EMBEDDERS))
    with explain_loading(name), read_gguf_once():
        causal, info = transformers.AutoModelForCausalLM.from_pretrained(
            weights.folder,
            dtype=words.dtype,
            output_loading_info=True,
            **{**options, **weights.options, **weights.model_options},
        )
    if any("lm_head" in key for key in info["missing_keys"]):
        raise ModelError(f"{name}: has no head to predict tokens with; give the causal LM that it was made of")
    return causal.get_output_embeddings()


def describe_pretrained(output: Output, note: str = "") -> str:
    """Return the model card.

    Args:
        output: The folder of the model.
        note: A sentence about its vectors; by default that of a decoder.
    """
    note = note or "Every token attends to all tokens of its text, if `is_causal` in\n`config.json` is false."
    about = (
        f"pre-trained as an embedder on texts of `{output.settings.get('dataset')}`, without pairs or labels\n"
        f"({output.settings.get('objective')}). {note}\n"
    )
    usage = f'vectors = SentenceTransformer("{output.path.name}").encode(["a text"])'
    return write_card(output, "pre-training", about, usage, output.facts)
