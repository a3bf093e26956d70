import numpy as np
import pytest

from perspective.trust.specificity import MAX_WEIGHT, Trust, decide_trust, sample_control_rows

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
    trust = decide_trust(draw(asked), draw(asked), [draw(other), draw(other)])
    assert trust.weight == MAX_WEIGHT
    assert trust.consistency > 0.4 > trust.background
    assert "trusted with weight 2.00" in trust.describe()


def test_states_that_show_the_same_whatever_is_asked_get_none(draw, kinds):
    """Language, length or style group the texts under every question."""
    shared = draw(kinds[1], noise=2.0)
    states = [shared + draw(kinds[1], noise=0.3) * 0.1 for _ in range(4)]
    assert decide_trust(states[0], states[1], states[2:]).weight < 0.05


def test_states_that_do_not_agree_with_themselves_get_none(draw, kinds):
    noise = [draw(kinds[0] * 0, noise=1.0) for _ in range(4)]
    assert decide_trust(noise[0], noise[1], noise[2:]).weight < 0.3


def test_the_weight_moves_smoothly(draw, kinds):
    """The same states plus rounding noise get nearly the same weight."""
    asked, other = kinds
    states = [draw(asked, other, noise=0.8) for _ in range(2)] + [draw(other, noise=0.8) for _ in range(2)]
    before = decide_trust(states[0], states[1], states[2:])
    rng = np.random.default_rng(2)
    noisy = [one + rng.normal(scale=1e-2, size=one.shape).astype(np.float32) for one in states]
    after = decide_trust(noisy[0], noisy[1], noisy[2:])
    assert after.weight == pytest.approx(before.weight, abs=0.05)


def test_few_texts_say_nothing(draw, kinds):
    few = [draw(kinds[0])[:50] for _ in range(4)]
    assert decide_trust(few[0], few[1], few[2:]) == Trust(0.0)
    assert "nothing to measure it by" in Trust(0.0).describe()


def test_the_sample_is_fixed_and_sorted():
    rows = sample_control_rows(10_000)
    assert len(rows) == 512 and (np.diff(rows) > 0).all() and (rows == sample_control_rows(10_000)).all()
    assert sample_control_rows(3).tolist() == [0, 1, 2]
