"""A reranker's ranking of a query's own documents as the target, beside InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import log_softmax, normalize, softmax

from perspective.runtime.distributed import n_processes
from perspective.training.losses.ranking import CachedRankingLoss, RankingLoss, compute_ranking_losses

INFONCE_SHARE = 0.2  # of E5 and SimLM


def compute_distilled_losses(embeddings: Sequence[Tensor], labels: Tensor, rows: Tensor, scale: float) -> Tensor:
    """Return one loss for each of the selected pairs of a batch.

    Args:
        embeddings: Queries, documents and columns of hard negatives, each `(n, dim)`.
        labels: `(n, 2 + 2 * n_columns)`, as in `DistilledRankingLoss`.
        rows: Rows of the pairs, `(m,)`.
        scale: Multiplies the cosine similarities.

    Returns:
        `(m,)` losses.
    """
    queries, *candidates = embeddings
    flags, teacher = labels[:, : len(candidates)], labels[rows, len(candidates) :].float()
    infonce = compute_ranking_losses(embeddings, flags, rows, scale)
    with torch.autocast(queries.device.type, enabled=False):
        group = torch.stack([normalize(texts[rows].float(), dim=-1) for texts in candidates], dim=1)
        cosines = (normalize(queries[rows].float(), dim=-1)[:, None] * group).sum(dim=-1)  # (m, 1 + n_columns)
        is_padding = flags[rows] == 0
        is_padding[:, 0] = False  # the first flag is the pair's weight
        student = log_softmax((cosines * scale).masked_fill(is_padding, -torch.inf), dim=-1)
        target = teacher.masked_fill(is_padding, -torch.inf)
        # 0 log 0 is 0: padding has no part in the sum.
        parts = softmax(target, dim=-1) * (log_softmax(target, dim=-1) - student)
        divergence = parts.masked_fill(is_padding, 0.0).sum(dim=-1)
    return divergence + INFONCE_SHARE * infonce


class DistilledRankingLoss(RankingLoss):
    """KL divergence to a teacher over a query's own group, plus 0.2 x InfoNCE.

    For pair i with its document and hard negatives G_i, teacher scores t and s as in `RankingLoss`::

        KL( softmax_{c in G_i} t(q_i, c) || softmax_{c in G_i} s(q_i, c) ) + 0.2 RankingLoss_i

    The teacher's scores are logits: those of a reranker that was trained by listwise cross-entropy are
    log-probabilities up to a constant. A pair without hard negatives has only the second part. Sources:
    "Text Embeddings by Weakly-Supervised Contrastive Pre-training" (Wang et al., 2022), section 3.2;
    "SimLM" (Wang et al., 2023), section 3.3.

    Args:
        model: The embedder.
        temperature: Divides the cosine similarities, in both parts.
        gather: As in `WeightedTripletLoss`.

    The labels of `compute_loss_from_embeddings` are `(n, 2 + 2 * n_columns)`: those of `RankingLoss`, then the
    teacher's scores of the document and of each hard negative (anything for a padding text).

    Example:
        >>> loss = DistilledRankingLoss(model=None, temperature=1.0)
        >>> q, d = torch.eye(2), torch.eye(2)
        >>> labels = torch.tensor([[1.0, 1.0, 2.0, 0.0]] * 2)  # weight, a hard negative, its scores
        >>> round(loss.compute_loss_from_embeddings([q, d, -d], labels).item(), 5)  # cosines 1 and -1: no divergence
        0.1253
    """

    compute_losses = staticmethod(compute_distilled_losses)


class CachedDistilledRankingLoss(CachedRankingLoss):
    """`DistilledRankingLoss` with GradCache, as `CachedRankingLoss`: the same gradients in less memory."""

    compute_losses = staticmethod(compute_distilled_losses)


def build_ranking_loss(
    model: SentenceTransformer, temperature: float, mini_batch_size: int, distill: bool = False
) -> RankingLoss | CachedRankingLoss:
    """Return the loss of pairs: with gradient caching, or without if `mini_batch_size` is 0; over all processes."""
    gather = n_processes() > 1
    if mini_batch_size:
        cached = CachedDistilledRankingLoss if distill else CachedRankingLoss
        return cached(model, temperature, mini_batch_size, gather)
    return (DistilledRankingLoss if distill else RankingLoss)(model, temperature, gather)
