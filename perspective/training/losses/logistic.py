"""Pure triplet loss without in-batch negatives."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from perspective.training.losses.base import WeightedTripletLoss


class LogisticTripletLoss(WeightedTripletLoss):
    """Negative log-likelihood, in a logistic model, that the positive is nearer than the negative.

    For one triplet, with s(x, y) = cos(x, y) / temperature::

        log(1 + exp(s(a, n) - s(a, p)))

    Only texts that the judge compared are compared: other triplets of the batch play no part.
    Unlike a hinge loss it needs no margin, which normalised vectors may not be able to reach.

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
