"""Base class of the losses: cosine over temperature, and weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import all_gather, all_gather_with_grad
from torch import Tensor

from perspective.runtime.distributed import n_processes
from perspective.training.losses.grouping import embed_in_groups


class WeightedTripletLoss(MultipleNegativesRankingLoss):
    """Base of the losses over (anchor, positive, negative) with weights in the label column.

    Subclasses return one loss a triplet. Their weighted mean is divided by the sum of the weights:
    confident judgments count more within a batch, but every batch counts the same.

    Args:
        model: The embedder.
        temperature: Divides the cosine similarities.
        gather: Whether to gather the batch of all processes, each of which then computes the whole
            loss. The average of the processes' gradients is that of one process with the whole batch.
    """

    def __init__(self, model: SentenceTransformer, temperature: float = 0.05, gather: bool = False) -> None:
        super().__init__(model, scale=1 / temperature, gather_across_devices=gather)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None) -> Tensor:
        """Return the weighted mean loss of tokenised texts, one dict a column."""
        return self.compute_loss_from_embeddings(embed_in_groups(self.model, list(sentence_features)), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Return the weighted mean loss.

        Args:
            embeddings: Anchors, positives and negatives, each `(n, dim)`.
            labels: Weights `(n,)`, not negative, NaN for a filler; None for equal weights.
        """
        embeddings, labels = gather_batch(embeddings, labels, self.gather_across_devices)
        losses = self.compute_losses(*(torch.nn.functional.normalize(part, dim=-1) for part in embeddings))
        if labels is None:
            return losses.mean()
        weights = labels.to(losses.dtype)
        return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)

    @abstractmethod
    def compute_losses(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return one loss a triplet, `(n,)`, from unit vectors `(n, dim)` each."""


def gather_batch(
    embeddings: Sequence[Tensor], labels: Tensor | None, across_processes: bool
) -> tuple[list[Tensor], Tensor | None]:
    """Return the columns of a batch, each `(n, dim)`, and their labels, without fillers.

    Args:
        embeddings: Columns of this process's part of the batch.
        labels: Labels of that part, `(n,)` or `(n, n_labels)`; None if no row is a filler.
        across_processes: Whether to gather the parts of all processes, with gradients.
    """
    columns = list(embeddings)
    if across_processes:
        columns = [all_gather_with_grad(column) for column in columns]
        labels = None if labels is None else all_gather(labels)
    if labels is None:
        return columns, None
    kept = ~find_fillers(labels)
    return [column[kept] for column in columns], labels[kept]


def divide_by_count(total: Tensor, count: Tensor) -> Tensor:
    """Return the mean over a batch that several processes share; the trainer averages what they return.

    Args:
        total: Sum over this process's part of the batch.
        count: Number of summands in it.
    """
    if n_processes() > 1:
        count = count.clone()
        torch.distributed.all_reduce(count)
    return total * n_processes() / count.clamp(min=1)


def find_fillers(labels: Tensor) -> Tensor:
    """Return which rows only pad a batch that several processes share, `(n,)`: their label is NaN."""
    return labels.isnan().reshape(len(labels), -1).any(dim=1)
