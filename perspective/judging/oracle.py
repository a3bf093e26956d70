"""The labels as a judge, with as much noise as is wanted. For analysis alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from perspective.artifacts import LABELS, Judgment, Triplet, mirror_prediction
from perspective.errors import DataError
from perspective.judging.protocol import ANSWERS, Question

MAX_NOISE = 0.5  # a coin; beyond it the oracle would lie


class OracleJudge:
    """Answer by the triplets' gold answers, each turned round with a given probability.

    What a judge of a known accuracy would be worth: an upper bound for any LLM, and the curve
    below it. It reads labels, so it is no judge to adapt an embedder with: it has to be asked for
    by name and with its noise, is never chosen by default, and marks all that is made from it with
    `"uses_labels": True` in the provenance.

    Args:
        triplets: The triplets to judge, with their gold answers.
        noise: Probability that an answer is turned round, 0 to 0.5.
        seed: Of the noise. An answer depends on nothing but seed, triplet and noise, and what is
            turned round at one noise is so at every higher one.

    Raises:
        DataError: No triplet has a gold answer, or the noise is out of range.
    """

    def __init__(self, triplets: Sequence[Triplet], noise: float, seed: int) -> None:
        if not 0 <= noise <= MAX_NOISE:
            raise DataError(f"the oracle's noise is {noise}; it must lie between 0 and {MAX_NOISE}")
        n_gold = sum(bool(_read_gold(triplet)) for triplet in triplets)
        if not n_gold:
            raise DataError(f"none of the {len(triplets)} triplets has a gold answer: an oracle needs labels")
        self.noise = noise
        self.seed = seed
        self.identity: dict[str, Any] = {"kind": "oracle", "noise": noise, "seed": seed, "uses_labels": True}
        self.facts: dict[str, Any] = {"n_gold": n_gold, "n_turned": 0}

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer in the order asked; a triplet that the labels do not decide is an abstention."""
        for question in questions:
            gold = _read_gold(question.triplet)
            if not gold:
                yield Judgment(question.triplet, (), content="not decided by the labels")
                continue
            turned = self._is_turned(question.triplet)
            self.facts["n_turned"] += turned
            prediction = mirror_prediction(gold) if turned else gold
            # No probability: every answer weighs the same, and an oracle's own doubt is its noise.
            yield Judgment(question.triplet, prediction, content=ANSWERS[LABELS.index(prediction[0])])

    def _is_turned(self, triplet: Triplet) -> bool:
        # A generator for each triplet, so that the order of asking and a resumed run change nothing.
        return random.Random(f"oracle {self.seed} {triplet.key}").random() < self.noise


def _read_gold(triplet: Triplet) -> tuple[str, ...]:
    gold = (triplet.gold or "").strip()
    return (gold,) if gold in LABELS else ()
