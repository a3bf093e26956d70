"""Contrastive losses over (anchor, positive, negative) with triplet weights, one loss per file."""

from perspective.training.losses.base import WeightedTripletLoss
from perspective.training.losses.infonce import InfoNCELoss
from perspective.training.losses.logistic import LogisticTripletLoss
from perspective.training.losses.published import PublishedLoss

LOSSES: dict[str, type[WeightedTripletLoss]] = {
    "published": PublishedLoss,
    "infonce": InfoNCELoss,
    "triplet": LogisticTripletLoss,
}

__all__ = ["LOSSES", "InfoNCELoss", "LogisticTripletLoss", "PublishedLoss", "WeightedTripletLoss"]
