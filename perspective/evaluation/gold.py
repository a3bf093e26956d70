"""What the labels answer to a triplet. For analysis only."""

from __future__ import annotations

from collections.abc import Sequence

from perspective.artifacts import OPTIONS, Triplet


def answer_by_labels(triplets: list[Triplet], labels: list[str] | None) -> list[Triplet]:
    """Add the gold answers, for analysis alone: drawn first, so that no label can steer the draw."""
    if labels is None:
        return triplets
    return [Triplet(*triplet.key, gold=_gold(*(labels[row] for row in triplet.key))) for triplet in triplets]


def measure_answerable(triplets: Sequence[Triplet]) -> float | None:
    """Return the fraction of triplets with exactly one right choice; None without gold answers.

    For analysis alone: it joins after the draw.

    >>> measure_answerable([Triplet(0, 1, 2, " 1"), Triplet(0, 1, 2, "both"), Triplet(0, 1, 2)])
    0.3333333333333333
    """
    if all(triplet.gold is None for triplet in triplets):
        return None
    return sum(triplet.gold in OPTIONS for triplet in triplets) / len(triplets)


def _gold(query: str, choice1: str, choice2: str) -> str | None:
    if query == choice1:
        return "both" if query == choice2 else " 1"
    return " 2" if query == choice2 else None
