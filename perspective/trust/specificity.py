"""How much an LLM's answer states owe to the question: the weight they get, decided without labels.

The LLM answers about a sample of texts again: the same question in another wording, and questions that
have nothing to do with the perspective. Neighbours that both wordings agree on and the other questions do
not show come from the perspective. States that group texts by language, length or style do so whatever
is asked, and get no weight; states of an LLM that does not understand the question do not agree with
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perspective.errors import DataError
from perspective.vectors import find_distinct, half_whiten

N_CONTROL_TEXTS = 512  # read again with the control questions
MIN_CONTROL_TEXTS = 100  # with fewer, agreement by chance is too large
MIN_QUESTIONS = 2  # beside the question itself: another wording, and at least one about something else
N_NEIGHBORS = 10
# Specificity at which the LLM gets the embedder's own weight, and the largest weight. Chosen on the tuning sets.
FULL_SPECIFICITY = 0.28
MAX_WEIGHT = 2.0
# Share of the embedder's neighbours, above chance, with which states count in full. Not chosen by labels: states of the
# eight sets share 0.16 and more, those of other texts none.
FULL_RELATION = 0.05


@dataclass(frozen=True)
class Trust:
    """The weight of the answer states of these texts, and the figures behind it.

    Attributes:
        weight: Weight of the answer states against 1 of the embedder. With 0 they still choose among the
            embedder's own neighbours.
        consistency: Share of the nearest neighbours that both wordings of the question agree on; None if
            not measured.
        background: The same share between the question and other questions.
        relation: How far the states show any of the embedder's neighbours, 0 to 1: below 1 both weights sink, that in
            the graph of neighbours too.
    """

    weight: float
    consistency: float | None = None
    background: float | None = None
    relation: float = 1.0

    @property
    def specificity(self) -> float | None:
        """Share of the agreement of both wordings that other questions do not show."""
        if self.consistency is None or self.background is None:
            return None
        return max(0.0, 1 - self.background / max(self.consistency, 1e-6))

    def describe(self) -> str:
        """Return the decision in one line."""
        if self.specificity is None:
            return f"answer states at weight {self.weight:.2g} (given, or nothing to measure it by)"
        return (
            f"answer states trusted with weight {self.weight:.2f} (two wordings share {self.consistency:.2f} of the "
            f"neighbours, other questions {self.background:.2f}: {self.specificity:.0%} is due to the perspective)"
            + (", lowered: they share hardly a neighbour with the embedder" if self.relation < 1 else "")
        )


def sample_control_rows(n_texts: int) -> np.ndarray:
    """Return the rows of the texts that the control questions are asked about, sorted."""
    return np.sort(np.random.default_rng(0).permutation(n_texts)[:N_CONTROL_TEXTS])


def gather_control(states: np.ndarray, answers: np.ndarray) -> list[np.ndarray]:
    """Return the states of each control question, `(n_sample, state_dim)` each; those of the question itself first.

    Args:
        states: Answer states of all texts, `(n_texts, state_dim)`.
        answers: States of the other control questions side by side, `(n_sample, n_questions * state_dim)`.

    Raises:
        DataError: They are not of these states' LLM.
    """
    n_questions, rest = divmod(answers.shape[1], states.shape[1])
    if rest or n_questions < MIN_QUESTIONS:
        raise DataError(
            f"control states of {answers.shape[1]} numbers a text do not belong to answer states of {states.shape[1]}; "
            "run read_states.sh --overwrite"
        )
    return [states[sample_control_rows(len(states))], *np.split(answers, n_questions, axis=1)]


def decide_trust(vectors: np.ndarray, states: np.ndarray, reworded: np.ndarray, others: list[np.ndarray]) -> Trust:
    """Decide the weight of answer states from control questions about a sample of texts.

    The weight is (s / `FULL_SPECIFICITY`)^2, at most `MAX_WEIGHT`, with s the specificity. States that show none of the
    embedder's neighbours, however consistent, say nothing about these texts; their weight sinks to 0 with the share of
    neighbours that they have in common, above chance.

    Args:
        vectors: Unit rows of the embedder for the sample, `(n_sample, dim)`.
        states: Answer states of the sample `(n_sample, state_dim)`, not whitened.
        reworded: The same question in another wording.
        others: Answers to other questions.
    """
    first, _ = find_distinct(vectors)
    vectors, states, reworded, *others = (rows[first] for rows in (vectors, states, reworded, *others))
    if len(states) < MIN_CONTROL_TEXTS:
        return Trust(0.0)
    asked = [_find_nearest(half_whiten(one)) for one in (states, reworded)]
    unrelated = [_find_nearest(half_whiten(one)) for one in others]
    consistency = _share(asked[0], asked[1])
    background = float(np.mean([_share(one, other) for one in asked for other in unrelated]))
    trust = Trust(0.0, round(consistency, 4), round(background, 4))
    chance = N_NEIGHBORS / (len(states) - 1)
    shared = _share(asked[0], _find_nearest(vectors)) - chance
    relation = float(np.clip(shared / FULL_RELATION, 0, 1))
    weight = relation * min(MAX_WEIGHT, ((trust.specificity or 0.0) / FULL_SPECIFICITY) ** 2)
    return Trust(round(weight, 4), trust.consistency, trust.background, round(relation, 4))


def _find_nearest(rows: np.ndarray) -> np.ndarray:
    """Return a Boolean matrix `(n, n)`: which rows are among the nearest of which."""
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(-cosines, N_NEIGHBORS, axis=1)[:, :N_NEIGHBORS]
    found = np.zeros(cosines.shape, dtype=bool)
    np.put_along_axis(found, nearest, True, axis=1)
    return found


def _share(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / one.sum())
