"""Gold answers of triplets, from the labels. For analysis only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from perspective.artifacts import OPTIONS, Triplet
from perspective.evaluation.labels import Labels


def add_gold_answers(triplets: list[Triplet], labels: Labels | None) -> list[Triplet]:
    """Add the gold answers, for analysis alone: called after the draw, so that no label can influence it.

    A triplet with an unlabelled text gets none.
    """
    if labels is None:
        return triplets
    return [Triplet(*triplet.key, gold=_gold(*(labels[row] for row in triplet.key))) for triplet in triplets]


def keep_labelled(triplets: Iterable[Triplet], labels: Labels) -> list[Triplet]:
    """Return the triplets whose three texts all have a label."""
    return [triplet for triplet in triplets if all(labels[row] is not None for row in triplet.key)]


def measure_answerable(triplets: Sequence[Triplet]) -> float | None:
    """Return the fraction of triplets with exactly one right choice; None without gold answers.

    For analysis alone.

    >>> measure_answerable([Triplet(0, 1, 2, " 1"), Triplet(0, 1, 2, "both"), Triplet(0, 1, 2)])
    0.3333333333333333
    """
    if all(triplet.gold is None for triplet in triplets):
        return None
    return sum(triplet.gold in OPTIONS for triplet in triplets) / len(triplets)


def _gold(query: str | None, choice1: str | None, choice2: str | None) -> str | None:
    if query is None or choice1 is None or choice2 is None:
        return None
    if query == choice1:
        return "both" if query == choice2 else " 1"
    return " 2" if query == choice2 else None
