"""Embedding against `SentenceTransformer.encode` with its defaults."""

from __future__ import annotations

import numpy as np

from perspective.benchmarks.random_models import count_parameters
from perspective.benchmarks.speed.comparison import DATASETS, Row, SpeedSettings, describe_rate, read_texts, time_pairs
from perspective.models.embedders import load_embedder
from perspective.models.embedding import count_tokens, embed_texts


def bench_embedding(settings: SpeedSettings) -> list[Row]:
    """Embed texts of all data sets with both."""
    texts = [text for dataset in DATASETS for text in read_texts(dataset)[:1000]]
    model = load_embedder("minilm")
    ours = embed_texts(model, texts)
    other = model.encode(texts)
    cosines = (ours * other).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(other, axis=1)
    seconds = time_pairs(lambda: embed_texts(model, texts), lambda: model.encode(texts), settings.n_pairs)
    n_tokens = sum(count_tokens(model, texts))
    flop = 2 * count_parameters(model.transformers_model) * n_tokens
    return [
        Row(
            f"embedding, {len(texts)} texts of 4 sets",
            "SentenceTransformer.encode, its defaults",
            "2.5x, half the matrix rate",
            *seconds,
            f"smallest cosine {cosines.min():.6f}",
            f"{n_tokens / seconds[0]:.0f} tokens/s, {describe_rate(flop, seconds[0], (1024, 384, 1536))}",
        )
    ]
