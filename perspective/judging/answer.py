"""A judge of triplets that asks about texts: whose answer lies closer to the query's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Triplet
from perspective.evidence import score_margins
from perspective.geometry import half_whiten
from perspective.judging.protocol import Opinion, Question, sigmoid


class AnswerJudge:
    """Judge by the answer states: the choice whose state is nearer, by cosine, is the closer one.

    Args:
        states: Answer states `(n_texts, dim)` of all texts, as read.
        triplets: What will be judged, to find the rows of a question's texts.
        identity: What was asked, for the provenance.
    """

    def __init__(self, states: np.ndarray, triplets: Sequence[Triplet], identity: dict[str, Any]) -> None:
        self.margins = score_margins(half_whiten(states), triplets)  # (n_triplets,)
        self.identity = {"kind": "answer", **identity}
        self.facts: dict[str, Any] = {}
        # Margins have no scale of their own; their spread over the questions is the only one there is.
        self.scale = float(self.margins.std()) or 1.0

    def judge(self, questions: Sequence[Question]) -> Iterator[Opinion]:
        """Answer the questions; no text is read anew."""
        for question in questions:
            margin = float(self.margins[question.row])
            prediction = () if margin == 0 else (LABELS[0],) if margin > 0 else (LABELS[1],)
            yield Opinion(
                question.row,
                prediction,
                content=f"cosine to choice 1 minus to choice 2: {margin:+.4f}",
                probability=sigmoid(margin / self.scale),
            )
