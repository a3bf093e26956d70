"""Triplets, judgments and training triplets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

LABELS = ("1", "2")


@dataclass(frozen=True)
class Triplet:
    """A question: is `choice1_idx` or `choice2_idx` closer to `query_idx`?

    Attributes:
        query_idx: Row of the query in the corpus; likewise the choices.
        gold: Answer of the labels (`" 1"`, `" 2"`, `"both"` or None). For analysis only: no judge, conversion
            or training reads it.
    """

    query_idx: int
    choice1_idx: int
    choice2_idx: int
    gold: str | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        """The three rows; they identify a triplet within a run."""
        return self.query_idx, self.choice1_idx, self.choice2_idx


@dataclass(frozen=True)
class Judgment:
    """A judge's answer to one triplet.

    Attributes:
        triplet: The question.
        prediction: `("1",)`, `("2",)` or `()` for an abstention.
        prepared: The prompt with the choices in the order of the file.
        content: The judge's reply, or a description of its score.
        probability: Probability that choice 1 is closer, averaged over both orders; None if the judge gave
            words only.
        swapped_probability: The same, from the prompt with the choices in swapped order.
    """

    triplet: Triplet
    prediction: tuple[str, ...]
    prepared: str = ""
    content: str = ""
    probability: float | None = None
    swapped_probability: float | None = None

    @property
    def confidence(self) -> float | None:
        """Probability of the likelier choice, 0.5 to 1."""
        return None if self.probability is None else max(self.probability, 1 - self.probability)

    @property
    def leaning(self) -> str | None:
        """Label of the likelier choice, also if the judge abstains; a tie goes to choice 2."""
        if self.probability is None:
            return None
        return LABELS[0] if self.probability > 0.5 else LABELS[1]

    @property
    def forward_probability(self) -> float | None:
        """Probability that choice 1 is closer, in the order of the file; None if one order was asked."""
        if self.probability is None or self.swapped_probability is None:
            return None
        return 2 * self.probability - self.swapped_probability


@dataclass(frozen=True)
class TrainingTriplet:
    """Anchor, positive and negative with the instruction that is put before each of them."""

    instruction: str
    anchor: str
    positive: str
    negative: str
    triplet: Triplet
    weight: float = 1.0


def stack_rows(triplets: Iterable[Triplet]) -> np.ndarray:
    """Return the rows of query, choice 1 and choice 2, `(n_triplets, 3)`."""
    return np.array([triplet.key for triplet in triplets], dtype=np.int64).reshape(-1, 3)


def parse_prediction(value: object) -> tuple[str, ...]:
    """Read a published or own `prediction` field.

    Published files write `["1"]`, `[" 1"]`, both labels or none. Anything but exactly one choice is an
    abstention.

    >>> parse_prediction([" 1"]), parse_prediction(["1", "2"]), parse_prediction([])
    (('1',), (), ())
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return ()
    named = {str(item).strip() for item in value} & set(LABELS)
    return tuple(named) if len(named) == 1 else ()


def mirror_prediction(prediction: tuple[str, ...]) -> tuple[str, ...]:
    """Return the prediction for the choices in swapped order.

    >>> mirror_prediction(("1",)), mirror_prediction(())
    (('2',), ())
    """
    return tuple(LABELS[1 - LABELS.index(label)] for label in prediction)
