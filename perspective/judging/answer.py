"""Judge triplets by the cosine similarity of answer states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Judgment, Triplet, stack_rows
from perspective.judging.protocol import Question, sigmoid
from perspective.vectors import half_whiten, score_margins

# A choice is near if it is among this share of the texts that are closest to the query. With the 100 or
# more clusters that the sampler finds, the share is about one cluster. The minimum is for small data sets.
NEAR_SHARE = 0.01
MIN_NEAR = 10
QUESTIONS_AT_A_TIME = 64  # bounds the memory for cosines to all texts


class AnswerJudge:
    """Select the choice whose answer state has the higher cosine similarity to the query's.

    If neither choice is near the query, the question most likely has no right answer, and the judge
    abstains. This is inferred from the cosines to all texts; the LLM is not asked.

    Args:
        states: Raw answer states `(n_texts, dim)` of all texts.
        triplets: The triplets to judge.
        identity: Settings of the answer states, for the provenance.
    """

    def __init__(self, states: np.ndarray, triplets: Sequence[Triplet], identity: dict[str, Any]) -> None:
        whitened = half_whiten(states)
        self.margins = score_margins(whitened, triplets)  # (n_triplets,)
        self.neither = ~_find_near(whitened, triplets)  # (n_triplets,)
        self._rows = {triplet.key: row for row, triplet in enumerate(triplets)}
        self.identity = {"kind": "answer", **identity}
        self.facts: dict[str, Any] = {"n_neither": int(self.neither.sum())}
        # Margins have no natural unit; their standard deviation over the questions sets the scale.
        self.scale = (float(self.margins.std()) if triplets else 0.0) or 1.0

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer the questions from the stored states, without running a model."""
        for question in questions:
            row = self._rows[question.triplet.key]
            margin, neither = float(self.margins[row]), self.neither[row]
            prediction = () if neither or margin == 0 else (LABELS[0],) if margin > 0 else (LABELS[1],)
            content = f"cosine to choice 1 minus to choice 2: {margin:+.4f}"
            if neither:
                content += "; neither is among the texts nearest to the query"
            yield Judgment(question.triplet, prediction, content=content, probability=sigmoid(margin / self.scale))


def _find_near(unit: np.ndarray, triplets: Sequence[Triplet]) -> np.ndarray:
    """Return whether either choice is among the texts nearest to the query, as `(n_triplets,)`.

    Args:
        unit: Unit rows `(n_texts, dim)`.
        triplets: Triplets of row indices.
    """
    n_near = max(MIN_NEAR, round(NEAR_SHARE * len(unit)))
    rows = stack_rows(triplets)
    near = np.empty(len(rows), dtype=bool)
    for start in range(0, len(rows), QUESTIONS_AT_A_TIME):
        block = rows[start : start + QUESTIONS_AT_A_TIME]
        cosines = unit[block[:, 0]] @ unit.T  # (n_block, n_texts)
        best = np.take_along_axis(cosines, block[:, 1:], axis=1).max(axis=1, keepdims=True)
        # The query itself is counted too, unless a choice is identical to it.
        near[start : start + len(block)] = (cosines > best).sum(axis=1) <= n_near
    return near
