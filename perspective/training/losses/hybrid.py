"""The loss of M3: InfoNCE of the three ways and of their sum, and self-distillation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.losses.merged_forward import merge_feature_batches
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from perspective.models.hybrid import Representations, Way, score_ways, stack, sum_scores
from perspective.training.losses.grouping import GROUP_SIZE, order_by_length, take_rows
from perspective.training.losses.ranking import normalize_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Shares of the ways in the loss: new lexical weights are wrong at first, and their loss is large.
SHARES: dict[Way, float] = {"dense": 1.0, "sparse": 0.1, "multi": 1.0}


class HybridLoss(nn.Module):
    """Each way of an embedder with `HybridHeads` against the documents of the batch, and against their sum.

    With CE(s) the InfoNCE of scores s / temperature over all documents and hard negatives of the batch,
    s_inter = s_dense + 0.3 s_lex + s_mul, and p = softmax(s_inter / temperature) without a gradient::

        L  = ( CE(s_dense) + 0.1 CE(s_lex) + CE(s_mul) + CE(s_inter) ) / 4
        L' = ( H(p, s_dense) + 0.1 H(p, s_lex) + H(p, s_mul) ) / 3

    where H(p, s) = - sum p log softmax(s / temperature). The loss is (L + L') / 2, or L without
    self-distillation; its mean over pairs is weighted as in `RankingLoss`. Source: Chen et al.,
    "M3-Embedding" (2024), section 3.3, equations 5 to 10.

    Args:
        model: The embedder, with heads.
        temperature: Divides the scores.
        distill: Whether the ways learn from their sum.
    """

    def __init__(self, model: SentenceTransformer, temperature: float = 0.02, distill: bool = True) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.distill = distill

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the weighted mean loss of tokenised texts, a dict a column.

        Args:
            sentence_features: Queries, documents, and columns of hard negatives.
            labels: `(n, 1 + n_columns)`, as in `RankingLoss`.
        """
        columns = list(sentence_features)
        texts = represent_columns(self.model, columns)
        n = len(labels)
        is_real = labels[:, 1:].T.flatten().bool()  # hard negatives that do not only pad a column
        candidates = torch.cat([torch.ones(n, dtype=torch.bool, device=is_real.device), is_real]).nonzero().squeeze(1)
        # Half precision rounds scores to 1/256; divided by the temperature, that is an error of 0.2 in a logit.
        with torch.autocast(labels.device.type, enabled=False):
            scores = score_ways(texts.take(slice(0, n)), texts.take(n + candidates))
            return (self.compute_losses(scores) * normalize_weights(labels)).sum()

    def compute_losses(self, scores: Mapping[Way, Tensor]) -> Tensor:
        """Return one loss a query, `(n,)`.

        Args:
            scores: Of each way, `(n, n_documents)`, not yet divided by the temperature; query i's
                document is document i.
        """
        combined = sum_scores(scores)
        rows = torch.arange(len(combined), device=combined.device)

        def compare(logits: Tensor, target: Tensor) -> Tensor:
            return cross_entropy(logits / self.temperature, target, reduction="none")

        losses = compare(combined, rows)
        for way, share in SHARES.items():
            losses = losses + share * compare(scores[way], rows)
        losses = losses / 4
        if not self.distill:
            return losses
        teacher = (combined.detach() / self.temperature).softmax(dim=-1)
        distilled = sum(share * compare(scores[way], teacher) for way, share in SHARES.items())
        return (losses + distilled / 3) / 2


def represent_columns(model: SentenceTransformer, columns: list[dict[str, Any]]) -> Representations:
    """Return the representations of all texts of a batch, one column after the other.

    On a CPU, texts of similar length go through the model together, as in `embed_in_groups`.
    """
    merged = merge_feature_batches(columns)
    if merged is None:
        return stack([Representations.from_features(model(column)) for column in columns])
    if merged["attention_mask"].device.type != "cpu":
        return Representations.from_features(model(merged))
    order = order_by_length(merged)
    parts = [Representations.from_features(model(take_rows(merged, rows))) for rows in order.split(GROUP_SIZE)]
    return stack(parts).take(order.argsort())
