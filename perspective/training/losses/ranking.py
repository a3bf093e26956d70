"""InfoNCE over in-batch and hard negatives, with and without gradient caching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.losses import CachedMultipleNegativesRankingLoss, MultipleNegativesRankingLoss
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from perspective.training.losses.base import gather_batch
from perspective.training.losses.grouping import embed_in_groups, order_by_length, take_rows


def compute_ranking_losses(embeddings: Sequence[Tensor], labels: Tensor, rows: Tensor, scale: float) -> Tensor:
    """Return one loss for each of the selected pairs of a batch.

    Args:
        embeddings: Queries, documents and columns of hard negatives, each `(n, dim)`.
        labels: `(n, 1 + n_columns)`, as in `RankingLoss`.
        rows: Rows of the pairs, `(m,)`.
        scale: Multiplies the cosine similarities.

    Returns:
        `(m,)` losses.
    """
    queries, documents, *negatives = embeddings
    # Half precision rounds cosines to 1/256; times the scale, that is an error of 0.2 in a logit.
    with torch.autocast(queries.device.type, enabled=False):
        is_real = labels[:, 1:].T.flatten().bool()
        candidates = documents
        if negatives:
            candidates = torch.cat([documents, torch.cat(negatives)[is_real]])
        scores = normalize(queries[rows].float(), dim=-1) @ normalize(candidates.float(), dim=-1).T * scale
        return cross_entropy(scores, rows, reduction="none")  # a pair's document has the index of its row


class RankingLoss(MultipleNegativesRankingLoss):
    """Query against all documents and hard negatives of the batch.

    For pair i of n, with s(x, y) = cos(x, y) / temperature, d_i its document and C all documents and
    hard negatives of the batch::

        - log( exp s(q_i, d_i) / sum_{c in C} exp s(q_i, c) )

    The loss is the mean weighted by the pairs' weights, as in `WeightedTripletLoss`. A pair may have
    fewer hard negatives than there are columns: the texts that pad its columns are left out of C,
    so that no text counts twice. Source: van den Oord et al. (2018), equation 4.

    Args:
        model: The embedder.
        temperature: Divides the cosine similarities.
        gather: As in `WeightedTripletLoss`.

    Example:
        >>> loss = RankingLoss(model=None, temperature=0.1)
        >>> q, d = torch.eye(2), torch.eye(2)
        >>> round(loss.compute_loss_from_embeddings([q, d, -d], torch.ones(2, 2)).item(), 5)
        9e-05
    """

    compute_losses = staticmethod(compute_ranking_losses)

    def __init__(self, model: SentenceTransformer, temperature: float = 0.02, gather: bool = False) -> None:
        super().__init__(model, scale=1 / temperature, gather_across_devices=gather)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the weighted mean loss of tokenised texts, a dict a column."""
        return self.compute_loss_from_embeddings(embed_in_groups(self.model, list(sentence_features)), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """Return the weighted mean loss.

        Args:
            embeddings: Queries, documents, and one tensor a column of hard negatives, each `(n, dim)`.
            labels: `(n, 1 + n_columns)`: each pair's weight, then 1 for a hard negative and 0 for a
                padding text; NaN for a row that pads the batch.
        """
        embeddings, labels = gather_batch(embeddings, labels, self.gather_across_devices)
        rows = torch.arange(len(embeddings[0]), device=embeddings[0].device)
        losses = self.compute_losses(embeddings, labels, rows, self.scale)
        return (losses * normalize_weights(labels)).sum()


class CachedRankingLoss(CachedMultipleNegativesRankingLoss):
    """`RankingLoss` with GradCache: the same gradients, in the memory of one mini-batch.

    Texts are embedded in mini-batches without a graph, the loss is backpropagated to the embeddings,
    and each mini-batch is embedded again to backpropagate from there to the weights. Source:
    "Scaling deep contrastive learning batch size under memory limited setup" (Gao et al., 2021).

    Args:
        model: The embedder.
        temperature: Divides the cosine similarities.
        mini_batch_size: Texts embedded at a time, and rows of the similarity matrix.
        gather: As in `WeightedTripletLoss`.
    """

    compute_losses = staticmethod(compute_ranking_losses)

    def __init__(
        self, model: SentenceTransformer, temperature: float = 0.02, mini_batch_size: int = 32, gather: bool = False
    ) -> None:
        super().__init__(model, scale=1 / temperature, mini_batch_size=mini_batch_size, gather_across_devices=gather)
        self._ranks: list[Tensor] = []  # for each column: the ranks of its texts by length

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Return the weighted mean loss of tokenised texts, a dict a column.

        Mini-batches hold texts of similar length and are cut to the longest, which saves padding.
        """
        columns = list(sentence_features)
        orders = [order_by_length(column) for column in columns]
        self._ranks = [order.argsort() for order in orders]
        return super().forward([take_rows(*pair) for pair in zip(columns, orders, strict=True)], labels)

    def calculate_loss(self, reps: list[list[Tensor]], labels: Tensor, *, with_backward: bool = False) -> Tensor:
        """Return the weighted mean loss; with `with_backward`, leave its gradients in the embeddings.

        Args:
            reps: Embeddings as in `RankingLoss`, each column in mini-batches and sorted by length.
            labels: As in `RankingLoss`.
            with_backward: Whether to backpropagate to the embeddings, a mini-batch of rows at a time.
        """
        columns_in_order = [torch.cat(column)[places] for column, places in zip(reps, self._ranks, strict=True)]
        batch, labels = gather_batch(columns_in_order, labels, self.gather_across_devices)
        # Sum the gradients of all parts of the loss here, then backpropagate once to processes and mini-batches.
        embeddings = [column.detach().requires_grad_(with_backward) for column in batch]
        shares = normalize_weights(labels)
        total = torch.zeros((), device=labels.device)
        for rows in torch.arange(len(labels), device=labels.device).split(self.mini_batch_size):
            part = (self.compute_losses(embeddings, labels, rows, self.scale) * shares[rows]).sum()
            if with_backward:
                part.backward()
            total = total + part.detach()
        if with_backward:
            torch.autograd.backward(batch, [column.grad for column in embeddings])
        return total


def normalize_weights(labels: Tensor) -> Tensor:
    """Return the pairs' weights, `(n,)`, normalised to sum to 1; zeros if all are 0."""
    weights = labels[:, 0].float()
    return weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
