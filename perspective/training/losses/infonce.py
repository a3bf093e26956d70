"""Plain in-batch contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from perspective.training.losses.base import WeightedTripletLoss


class InfoNCELoss(WeightedTripletLoss):
    """Anchor against all positives and all negatives of the batch.

    For triplet i of n, with s(x, y) = cos(x, y) / temperature::

        - log( exp s(a_i, p_i) / sum_j (exp s(a_i, p_j) + exp s(a_i, n_j)) )

    With few classes, many other anchors' positives share the anchor's class and are false negatives.
    Source: van den Oord et al. (2018), equation 4.

    Example:
        >>> loss = InfoNCELoss(model=None, temperature=0.1)
        >>> a, p = torch.eye(2), torch.eye(2)
        >>> round(loss.compute_loss_from_embeddings([a, p, -a], None).item(), 5)
        9e-05
    """

    def compute_losses(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return `(n,)` losses from unit vectors `(n, dim)`."""
        scores = anchors @ torch.cat([positives, negatives]).T * self.scale  # (n, 2n)
        return cross_entropy(scores, torch.arange(len(anchors), device=anchors.device), reduction="none")
