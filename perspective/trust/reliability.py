"""Reliability of a judge, measured without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from perspective.artifacts import Judgment

MIN_DECIDED_FRACTION = 0.1
MIN_ORDER_KAPPA = 0.1
MIN_BOTH_ORDERS = 30  # with fewer judgments in both orders, agreement is not measured


@dataclass(frozen=True)
class Reliability:
    """Agreement of a judge with itself when the order of the choices is swapped.

    Attributes:
        n_judgments: Number of judgments.
        n_decided: Number of judgments with exactly one choice.
        order_kappa: Cohen's kappa between the choices in the two orders: 0 for answers that depend
            on position or chance, 1 for answers that depend on the texts. None with fewer than
            `MIN_BOTH_ORDERS` judgments in both orders.
        position1_fraction: Fraction of all answers, over both orders, that name the choice in
            first position; 0.5 without position bias. None as above.
        n_in_both_orders: Number of judgments that kappa is of.
    """

    n_judgments: int
    n_decided: int
    order_kappa: float | None
    position1_fraction: float | None
    n_in_both_orders: int = 0

    @property
    def decided_fraction(self) -> float:
        """Fraction of the judgments with exactly one choice."""
        return self.n_decided / self.n_judgments if self.n_judgments else 0.0

    @property
    def is_reliable(self) -> bool:
        """Whether the judgments are better than noise, and worth training on.

        Kappa must exceed what guesses reach: its standard error is 1 / sqrt(n) for answers that do not depend on the
        texts, and two of these are asked for.
        """
        if self.order_kappa is not None:
            noise = 2 * self.n_in_both_orders**-0.5 if self.n_in_both_orders else 0.0
            if self.order_kappa < max(MIN_ORDER_KAPPA, noise):
                return False
        return self.decided_fraction >= MIN_DECIDED_FRACTION

    @property
    def agrees_beyond_guessing(self) -> bool:
        """Whether answers in both orders agree in more than half of the triplets, by two standard errors.

        Answers that do not depend on the texts agree in 2 q (1 - q) of them, with the share q of the first position:
        in half at most. For answers without probabilities, which leave no other trace of the two orders.
        """
        return self.decided_fraction > 0.5 + self.n_judgments**-0.5

    def facts(self) -> dict[str, float | int | bool | None]:
        """Return the figures for the provenance."""
        return {**asdict(self), "is_reliable": self.is_reliable}

    def describe(self) -> str:
        """Return the figures in one line."""
        parts = [f"{self.n_decided} of {self.n_judgments} judgments name one choice ({self.decided_fraction:.0%})"]
        if self.order_kappa is not None and self.position1_fraction is not None:
            parts.append(f"agreement between the two orders {self.order_kappa:.2f} (kappa)")
            parts.append(f"{self.position1_fraction:.0%} of the answers name the first position")
        return ", ".join(parts)


def assess_reliability(judgments: Sequence[Judgment]) -> Reliability:
    """Compare a judge's answers in the two orders; no labels are used."""
    from sklearn.metrics import cohen_kappa_score

    n_decided = sum(len(judgment.prediction) == 1 for judgment in judgments)
    both = np.array(
        [
            (judgment.forward_probability, judgment.swapped_probability)
            for judgment in judgments
            if judgment.forward_probability is not None
        ],
        dtype=float,
    ).reshape(-1, 2)
    both = both[~np.isclose(both, 0.5, rtol=0, atol=1e-9).any(axis=1)]  # a tie is no answer
    if len(both) < MIN_BOTH_ORDERS:
        return Reliability(len(judgments), n_decided, None, None)
    is_choice1 = both > 0.5  # (n, 2): order of the file, swapped order
    # If all answers are the same choice, scikit-learn's kappa is undefined: no agreement beyond chance.
    kappa = float(cohen_kappa_score(*is_choice1.T)) if np.ptp(is_choice1.astype(int)) else 0.0
    rates = is_choice1.mean(axis=0)
    # Choice 1 is first in the order of the file and second in the swapped order.
    position1 = float((rates[0] + 1 - rates[1]) / 2)
    return Reliability(len(judgments), n_decided, kappa, position1, len(both))
