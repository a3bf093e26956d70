"""Models of given shapes with random weights, for timing without downloads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from perspective.errors import ModelError
from perspective.llm.loading import LLM
from perspective.runtime.devices import pick_attention, pick_device, pick_reading_dtype
from perspective.runtime.memory import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPECIAL = ("<s>", "</s>", "<pad>")
MAX_PIECES = 8192  # of the tokenizer; the rest of the vocabulary is not used


@dataclass(frozen=True)
class Size:
    """Shapes of the models and sizes of their inputs."""

    embedder_name: str
    embedder: dict[str, Any]
    llm_name: str
    llm: dict[str, Any]
    n_texts: int
    n_questions: int
    n_state_texts: int
    n_triplets: int
    batch_triplets: int
    matrix: int


SIZES = {
    "real": Size(
        embedder_name="BERT-large, as gte-large",
        embedder={
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "max_position_embeddings": 512,
        },
        llm_name="Mistral-7B, as Starling-LM",
        llm={
            "vocab_size": 32002,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "max_position_embeddings": 8192,
        },
        n_texts=65536,
        n_questions=1024,
        n_state_texts=8192,
        n_triplets=4096,
        batch_triplets=64,
        matrix=8192,
    ),
    # For tests: the same code in seconds on a CPU.
    "tiny": Size(
        embedder_name="a tiny BERT",
        embedder={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
        },
        llm_name="a tiny Mistral",
        llm={
            "vocab_size": 8192,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 1024,
        },
        n_texts=128,
        n_questions=8,
        n_state_texts=32,
        n_triplets=64,
        batch_triplets=8,
        matrix=256,
    ),
}


def save_embedder(folder: Path, texts: Iterable[str], shape: dict[str, Any]) -> Path:
    """Write a BERT with mean pooling as a folder for `load_embedder`.

    Args:
        folder: The folder to write to.
        texts: Texts that its tokenizer is trained on.
        shape: Arguments of `BertConfig`.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    tokenizer = _train_tokenizer(texts, "<s> $A </s>", shape["max_position_embeddings"])
    with torch.device(pick_device()):
        BertModel(BertConfig(**shape)).save_pretrained(folder / "body")
    tokenizer.save_pretrained(folder / "body")
    modules = [Transformer(str(folder / "body")), Pooling(shape["hidden_size"], "mean"), Normalize()]
    SentenceTransformer(modules=modules).save(str(folder / "embedder"), create_model_card=False)
    return folder / "embedder"


def make_llm(texts: Iterable[str], shape: dict[str, Any]) -> LLM:
    """Make a Mistral on the best device, in the precision of `pick_reading_dtype`.

    Args:
        texts: Texts that its tokenizer is trained on.
        shape: Arguments of `MistralConfig`.

    Raises:
        ModelError: It does not fit into memory.
    """
    from transformers import AutoModelForCausalLM, MistralConfig

    device = pick_device()
    dtype = pick_reading_dtype(device)
    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(
                MistralConfig(**shape), dtype=dtype, **pick_attention(device, dtype)
            )
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError("the LLM does not fit into memory; run the other parts: --parts encode finetune") from None
    tokenizer = _train_tokenizer(texts, "<s> $A", shape["max_position_embeddings"])
    return LLM("a Mistral with random weights", model.eval(), tokenizer)


def count_parameters(model: torch.nn.Module) -> int:
    """Count the weights without embeddings and head."""
    body = getattr(model, "base_model", model)
    looked_up = sum(module.weight.numel() for module in body.modules() if isinstance(module, torch.nn.Embedding))
    return sum(parameter.numel() for parameter in body.parameters()) - looked_up


def _train_tokenizer(texts: Iterable[str], template: str, max_length: int) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_PIECES, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in SPECIAL]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    begin, end, pad = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=pad, model_max_length=max_length
    )
