"""The texts of a training batch, embedded in groups of about equal length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns, merge_feature_batches
from torch import Tensor

GROUP_SIZE = 16  # texts of a group: enough for the matrix products of a CPU, and little is padded


def embed_in_groups(model: Callable[..., Any], columns: Sequence[dict[str, Any]]) -> list[Tensor]:
    """Embed the columns of a batch as the model does, but without what padding costs.

    A column is padded to its longest text, often three times its mean. On a CPU, where time goes
    by tokens, the texts of all columns are sorted by length and embedded in groups, each cut to
    its own longest; an accelerator takes all at once.

    Args:
        model: The embedder: features to a dict with `sentence_embedding`.
        columns: Tokenised texts, a dict a column, as a loss of sentence-transformers gets them.

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
    """Take some rows, without the columns in which all of them are padding."""
    used = features["attention_mask"][rows].any(dim=0)
    cut = {}
    for name, value in features.items():
        if isinstance(value, Tensor) and value.dim() >= 2:
            cut[name] = value[rows][:, used]
        else:
            cut[name] = value
    return cut
