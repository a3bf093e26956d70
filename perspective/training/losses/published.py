"""The loss of the published pipeline."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from perspective.training.losses.base import WeightedTripletLoss


class PublishedLoss(WeightedTripletLoss):
    """Anchor against its positive and all negatives, plus positive against all anchors.

    For triplet i of n, with s(x, y) = cos(x, y) / temperature::

        - log( exp s(a_i, p_i) / (exp s(a_i, p_i) + sum_j exp s(a_i, n_j)) )
        - log( exp s(p_i, a_i) / sum_j exp s(p_i, a_j) )

    Other anchors' positives are not used as negatives. Source: INSTRUCTOR (Su et al., 2023),
    section 2.3, as used by ClusterLLM (Zhang et al., 2023).

    Example:
        >>> loss = PublishedLoss(model=None, temperature=0.1)
        >>> a, p = torch.eye(2), torch.eye(2)
        >>> round(loss.compute_loss_from_embeddings([a, p, -a], None).item(), 4)
        0.0001
    """

    def compute_losses(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return `(n,)` losses from unit vectors `(n, dim)`."""
        positive = (anchors * positives).sum(dim=-1, keepdim=True)  # (n, 1)
        forward = torch.cat([positive, anchors @ negatives.T], dim=1) * self.scale  # (n, 1 + n)
        backward = positives @ anchors.T * self.scale  # (n, n)
        rows = torch.arange(len(anchors), device=anchors.device)
        return cross_entropy(forward, torch.zeros_like(rows), reduction="none") + cross_entropy(
            backward, rows, reduction="none"
        )
