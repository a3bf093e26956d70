import numpy as np
import pytest

from perspective.errors import DataError
from perspective.trust.specificity import (
    FULL_SPECIFICITY,
    MAX_WEIGHT,
    Trust,
    decide_trust,
    gather_control,
    sample_control_rows,
)
from perspective.vectors import half_whiten

N = 400


@pytest.fixture
def draw():
    """Draw states that group the texts by the given classes; each question adds its own noise."""
    rng = np.random.default_rng(0)

    def of(*classes, noise=0.5):
        rows = sum(rng.normal(size=(one.max() + 1, 64))[one] for one in classes)
        return (rows + noise * rng.normal(size=(N, 64))).astype(np.float32)

    return of


@pytest.fixture
def kinds():
    rng = np.random.default_rng(1)
    return rng.integers(0, 20, N), rng.integers(0, 6, N)  # of the perspective, and of a property that nobody asked for


def test_states_that_follow_the_question_get_weight(draw, kinds):
    asked, other = kinds
    trust = decide_trust(draw(asked), draw(asked), draw(asked), [draw(other), draw(other)])
    assert trust.weight == MAX_WEIGHT
    assert trust.consistency > 0.4 > trust.background
    assert "trusted with weight 2.00" in trust.describe()


def test_states_that_show_the_same_whatever_is_asked_get_none(draw, kinds):
    """Language, length or style group the texts under every question."""
    shared = draw(kinds[1], noise=2.0)
    states = [shared + draw(kinds[1], noise=0.3) * 0.1 for _ in range(4)]
    assert decide_trust(states[0], states[0], states[1], states[2:]).weight < 0.05


def test_states_that_do_not_agree_with_themselves_get_none(draw, kinds):
    noise = [draw(kinds[0] * 0, noise=1.0) for _ in range(4)]
    assert decide_trust(noise[0], noise[0], noise[1], noise[2:]).weight < 0.3


def test_states_of_other_texts_get_none(draw, kinds):
    """However consistent they are: they share no neighbours with the embedder."""
    asked, other = kinds
    vectors, order = draw(asked), np.random.default_rng(3).permutation(N)
    states = [draw(asked)[order], draw(asked)[order], draw(other)[order], draw(other)[order]]
    trust = decide_trust(vectors, states[0], states[1], states[2:])
    assert trust.weight < 0.1 and trust.relation < 0.1 < MAX_WEIGHT
    assert "hardly a neighbour" in trust.describe()
    noise = np.random.default_rng(4).normal(size=(N, 64)).astype(np.float32)
    seen = [decide_trust(part * vectors + 3 * noise, *states[:2], states[2:]).relation for part in (0, 1)]
    in_order = [one[np.argsort(order)] for one in states]
    half = decide_trust(vectors + 3 * noise, *in_order[:2], in_order[2:]).relation
    assert max(seen) < 0.2 < half  # it moves with what they share


def test_few_texts_say_nothing(draw, kinds):
    few = [draw(kinds[0])[:50] for _ in range(4)]
    assert decide_trust(few[0], few[0], few[1], few[2:]) == Trust(0.0)
    assert "nothing to measure it by" in Trust(0.0).describe()


def test_the_sample_is_fixed_and_sorted():
    rows = sample_control_rows(10_000)
    assert len(rows) == 512 and (np.diff(rows) > 0).all() and (rows == sample_control_rows(10_000)).all()
    assert sample_control_rows(3).tolist() == [0, 1, 2]


def test_control_states_are_gathered_by_question():
    states = np.random.default_rng(0).normal(size=(600, 8))
    answers = np.random.default_rng(1).normal(size=(512, 24))
    asked, reworded, *others = gather_control(states, answers)
    assert (asked == states[sample_control_rows(600)]).all() and (reworded == answers[:, :8]).all()
    assert len(others) == 2 and (others[1] == answers[:, 16:]).all()


@pytest.mark.parametrize("width", [1, 8, 20, 30])
def test_control_states_of_another_llm_are_refused(width):
    with pytest.raises(DataError, match=f"control states of {width} numbers a text do not belong"):
        gather_control(np.ones((600, 8)), np.ones((512, width)))


def test_the_control_sample_is_that_of_the_files_that_exist():
    """Another draw would compare finished control states with the states of other texts."""
    assert sample_control_rows(600)[:6].tolist() == [0, 2, 4, 5, 6, 8]
    assert sample_control_rows(10_000)[:4].tolist() == [36, 38, 42, 47]


def find_by_hand(states):
    rows = half_whiten(states)
    cosines = rows @ rows.T
    return [set(sorted(set(range(len(rows))) - {i}, key=lambda j: -cosines[i, j])[:10]) for i in range(len(rows))]


@pytest.fixture
def questions():
    """States of a question, of it in other words, and of two others that partly see the same: a weight below 2."""
    rng = np.random.default_rng(1)
    asked, other = rng.integers(0, 20, 400), rng.integers(0, 6, 400)
    drawn = np.random.default_rng(0)
    of_asked, of_other = drawn.normal(size=(20, 64)), drawn.normal(size=(6, 64))
    return [
        (share * of_asked[asked] + of_other[other] + 0.5 * drawn.normal(size=(400, 64))).astype(np.float32)
        for share in (0.3, 0.3, 0.0, 0.15)
    ]


def test_the_weight_is_that_computed_by_hand(questions):
    asked, reworded, *others = map(find_by_hand, questions)

    def share(one, other):
        return np.mean([len(a & b) / 10 for a, b in zip(one, other, strict=True)])

    consistency = share(asked, reworded)
    background = np.mean([share(one, other) for one in (asked, reworded) for other in others])
    trust = decide_trust(questions[0], questions[0], questions[1], questions[2:])
    assert (trust.consistency, trust.background) == pytest.approx((consistency, background), abs=2e-4)
    assert trust.weight == pytest.approx(((1 - background / consistency) / FULL_SPECIFICITY) ** 2, abs=0.02)
    assert 0.5 < trust.weight < MAX_WEIGHT


def test_the_weight_moves_smoothly(questions):
    rng = np.random.default_rng(2)
    noisy = [one + rng.normal(scale=1e-2, size=one.shape).astype(np.float32) for one in questions]
    before, after = (decide_trust(questions[0], *some[:2], some[2:]).weight for some in (questions, noisy))
    assert before < MAX_WEIGHT and after == pytest.approx(before, abs=0.05)
