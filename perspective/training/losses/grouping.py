"""Embed the texts of a training batch in groups of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns, merge_feature_batches
from torch import Tensor

GROUP_SIZE = 16  # texts in a group: large enough for fast matrix products on a CPU, small enough to save padding


def embed_in_groups(model: Callable[..., Any], columns: Sequence[dict[str, Any]]) -> list[Tensor]:
    """Embed the columns of a batch with less padding; the vectors are the model's.

    A column is padded to its longest text, often three times the mean length. On a CPU, time is
    proportional to tokens: the texts of all columns are sorted by length and embedded in groups,
    each padded to its own longest text. An accelerator embeds all at once.

    Args:
        model: The embedder: maps features to a dict with `sentence_embedding`.
        columns: Tokenised texts, one dict a column, as sentence-transformers passes them to a loss.

    Returns:
        One `(n, dim)` a column.
    """
    merged = merge_feature_batches(list(columns))
    if merged is None or "attention_mask" not in merged or merged["attention_mask"].device.type != "cpu":
        return embed_columns(model, columns)
    order = order_by_length(merged)
    parts = [model(take_rows(merged, rows))["sentence_embedding"] for rows in order.split(GROUP_SIZE)]
    embeddings = torch.cat(parts)[order.argsort()]
    return list(embeddings.chunk(len(columns)))


def order_by_length(features: dict[str, Any]) -> Tensor:
    """Return the rows of padded features, `(n,)`, shortest text first."""
    return features["attention_mask"].sum(dim=1).argsort(stable=True)


def take_rows(features: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """Select rows, without the columns in which all of them are padding."""
    used = features["attention_mask"][rows].any(dim=0)
    cut = {}
    for name, value in features.items():
        if isinstance(value, Tensor) and value.dim() >= 2:
            cut[name] = value[rows][:, used]
        else:
            cut[name] = value
    return cut
