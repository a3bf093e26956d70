"""A judge that answers by the labels, with a chosen amount of noise. For analysis only."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from perspective.artifacts import LABELS, Judgment, Triplet, mirror_prediction
from perspective.errors import DataError
from perspective.judging.protocol import ANSWERS, Question

MAX_NOISE = 0.5  # a random answer; above it, most answers would be wrong


class OracleJudge:
    """Answer with the triplets' gold answers, each inverted with a given probability.

    Measures what a judge of known accuracy is worth: the upper bound for any LLM and the curve below
    it. Because it reads labels, it must not be used to adapt an embedder: it is selected by name only,
    never by default, and the provenance of everything made from it has `"uses_labels": True`.

    Args:
        triplets: The triplets to judge, with their gold answers.
        noise: Probability that an answer is inverted, 0 to 0.5.
        seed: Seed of the noise. An answer depends only on seed, triplet and noise; an answer that is
            inverted at one noise level is also inverted at every higher level.

    Raises:
        DataError: No triplet has a gold answer, or the noise is out of range.
    """

    def __init__(self, triplets: Sequence[Triplet], noise: float, seed: int) -> None:
        if not 0 <= noise <= MAX_NOISE:
            raise DataError(f"the oracle's noise is {noise}; it must be between 0 and {MAX_NOISE}")
        n_gold = sum(bool(_read_gold(triplet)) for triplet in triplets)
        if not n_gold:
            raise DataError(f"none of the {len(triplets)} triplets has a gold answer: an oracle needs labels")
        self.noise = noise
        self.seed = seed
        self.identity: dict[str, Any] = {"kind": "oracle", "noise": noise, "seed": seed, "uses_labels": True}
        self.facts: dict[str, Any] = {"n_gold": n_gold, "n_turned": 0}

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer in the given order; abstain if the labels do not decide a triplet."""
        for question in questions:
            gold = _read_gold(question.triplet)
            if not gold:
                yield Judgment(question.triplet, (), content="not decided by the labels")
                continue
            inverted = self._is_inverted(question.triplet)
            self.facts["n_turned"] += inverted
            prediction = mirror_prediction(gold) if inverted else gold
            # No probability: every answer has the same weight, and the noise is the only uncertainty.
            yield Judgment(question.triplet, prediction, content=ANSWERS[LABELS.index(prediction[0])])

    def _is_inverted(self, triplet: Triplet) -> bool:
        # One generator per triplet, so that question order and resuming do not change the answers.
        return random.Random(f"oracle {self.seed} {triplet.key}").random() < self.noise


def _read_gold(triplet: Triplet) -> tuple[str, ...]:
    gold = (triplet.gold or "").strip()
    return (gold,) if gold in LABELS else ()
