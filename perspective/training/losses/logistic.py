"""Pure triplet loss without in-batch negatives."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from perspective.training.losses.base import WeightedTripletLoss


class LogisticTripletLoss(WeightedTripletLoss):
    """The positive is nearer than the negative, with the probability that a logistic model gives.

    For one triplet, with s(x, y) = cos(x, y) / temperature::

        log(1 + exp(s(a, n) - s(a, p)))

    Only what the judge compared is compared: nothing is assumed of other triplets of the batch.
    Unlike a hinge it needs no margin, which normalised vectors could not reach.

    Example:
        >>> import torch
        >>> loss = LogisticTripletLoss(model=None, temperature=1.0)
        >>> a = torch.tensor([[1.0, 0.0]])
        >>> round(loss.compute_loss_from_embeddings([a, a, a], None).item(), 4)
        0.6931
    """

    def compute_losses(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return `(n,)` losses from unit vectors `(n, dim)`."""
        margins = (anchors * (positives - negatives)).sum(dim=-1) * self.scale
        return softplus(-margins)
