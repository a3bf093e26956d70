"""Tiny rerankers and pairs for them."""

from pathlib import Path

import torch

from perspective.data.pairs import Pair

TOPICS = ("card", "weather", "music", "alarm")


def make_pairs(n=24, n_negatives=3):
    """Queries whose document repeats their topic; the negatives have the other topics."""
    pairs = []
    for row in range(n):
        topic = TOPICS[row % len(TOPICS)]
        others = [other for other in TOPICS if other != topic][:n_negatives]
        negatives = tuple(f"{other} play {row}" for other in others)
        pairs.append(Pair(f"{topic} {row}", f"{topic} {topic} play {row}", negatives))
    return pairs


def save_reranker(folder, tokenizer, n_outputs=1):
    """Write a CrossEncoder of plain transformers; `tokenizer` also sets its vocabulary."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, num_labels=n_outputs, initializer_range=0.3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
