import numpy as np
import pytest

from perspective.artifacts import Triplet
from perspective.judging.answer import AnswerJudge
from perspective.judging.protocol import Question
from perspective.vectors import half_whiten, score_margins


def test_margins_of_whitened_states_are_scaled_by_their_deviation():
    rng = np.random.default_rng(0)
    states = 5 + rng.normal(size=(60, 12)) * np.linspace(6, 0.5, 12)
    triplets = [Triplet(*map(int, rng.choice(60, 3, replace=False))) for _ in range(40)]
    judge = AnswerJudge(states, triplets, {})
    judgments = list(judge.judge([Question(one, "q", "a", "b") for one in triplets]))
    margins = score_margins(half_whiten(states), triplets)
    expected = 1 / (1 + np.exp(-margins / margins.std()))
    assert [judgment.probability for judgment in judgments] == pytest.approx(expected.tolist())


def test_one_in_a_hundred_texts_is_near():
    """Of 3,000 texts the 30 nearest, not the 10 of small data sets."""
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0.1, 3.0, 3000))
    angle[0] = 0.0
    states = np.column_stack([np.cos(angle), np.sin(angle)]) + 1e-3 * rng.normal(size=(3000, 2))
    triplets = [Triplet(0, near, 2900) for near in (5, 20, 28, 40, 300)]
    judge = AnswerJudge(states, triplets, {})
    assert judge.neither.tolist() == [False, False, False, True, True]
