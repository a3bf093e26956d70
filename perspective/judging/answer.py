"""A judge of triplets that asks about texts: whose answer lies closer to the query's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Judgment, Triplet, stack_rows
from perspective.judging.protocol import Question, sigmoid
from perspective.vectors import half_whiten, score_margins

# A choice counts as near if it is among this share of the texts, those closest to the query: about
# one cluster's share of all, at the hundred and more that the sampler finds. Of few texts, ten.
NEAR_SHARE = 0.01
MIN_NEAR = 10
QUESTIONS_AT_A_TIME = 64  # of the cosines to all texts, to bound memory


class AnswerJudge:
    """Judge by the answer states: the choice whose state is nearer, by cosine, is the closer one.

    Where neither choice is near, the question has most likely no right answer, and the judge
    abstains: as every text may be compared with every other, "neither" is told, not asked.

    Args:
        states: Answer states `(n_texts, dim)` of all texts, as read.
        triplets: What will be judged.
        identity: What was asked, for the provenance.
    """

    def __init__(self, states: np.ndarray, triplets: Sequence[Triplet], identity: dict[str, Any]) -> None:
        told = half_whiten(states)
        self.margins = score_margins(told, triplets)  # (n_triplets,)
        self.neither = ~_find_near(told, triplets)  # (n_triplets,)
        self._rows = {triplet.key: row for row, triplet in enumerate(triplets)}
        self.identity = {"kind": "answer", **identity}
        self.facts: dict[str, Any] = {"n_neither": int(self.neither.sum())}
        # Margins have no scale of their own; their spread over the questions is the only one there is.
        self.scale = (float(self.margins.std()) if triplets else 0.0) or 1.0

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer the questions; no text is read anew."""
        for question in questions:
            row = self._rows[question.triplet.key]
            margin, neither = float(self.margins[row]), self.neither[row]
            prediction = () if neither or margin == 0 else (LABELS[0],) if margin > 0 else (LABELS[1],)
            content = f"cosine to choice 1 minus to choice 2: {margin:+.4f}"
            if neither:
                content += "; neither is among the texts nearest to the query"
            yield Judgment(question.triplet, prediction, content=content, probability=sigmoid(margin / self.scale))


def _find_near(unit: np.ndarray, triplets: Sequence[Triplet]) -> np.ndarray:
    """Return whether either choice is among the texts nearest to the query, `(n_triplets,)`.

    Args:
        unit: Unit rows `(n_texts, dim)`.
        triplets: Of these rows.
    """
    n_near = max(MIN_NEAR, round(NEAR_SHARE * len(unit)))
    rows = stack_rows(triplets)
    near = np.empty(len(rows), dtype=bool)
    for start in range(0, len(rows), QUESTIONS_AT_A_TIME):
        block = rows[start : start + QUESTIONS_AT_A_TIME]
        cosines = unit[block[:, 0]] @ unit.T  # (n_block, n_texts)
        best = np.take_along_axis(cosines, block[:, 1:], axis=1).max(axis=1, keepdims=True)
        # The query is closer to itself than any choice, unless one is its twin.
        near[start : start + len(block)] = (cosines > best).sum(axis=1) <= n_near
    return near
