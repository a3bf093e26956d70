import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from perspective.artifacts import Judgment, Triplet
from perspective.judging.protocol import judgment_from_probabilities
from perspective.trust.reliability import Reliability, assess_reliability


def judge(firsts, swappeds):
    """Return judgments from the probability of the answer "1" in the two orders."""
    judgments = []
    for first, swapped in zip(firsts, swappeds, strict=True):
        judgment = judgment_from_probabilities(0, first, swapped)
        judgments.append(
            Judgment(
                Triplet(0, 1, 2),
                judgment.prediction,
                probability=judgment.probability,
                swapped_probability=judgment.swapped_probability,
            )
        )
    return judgments


def draw(n, seed):
    return np.random.default_rng(seed).random(n).tolist()


def test_kappa_and_position_bias_follow_their_definitions():
    firsts, swappeds = draw(200, 0), [0.6 * x for x in draw(200, 1)]
    reliability = assess_reliability(judge(firsts, swappeds))
    by_order = [first > 0.5 for first in firsts], [swapped < 0.5 for swapped in swappeds]
    assert reliability.order_kappa == pytest.approx(cohen_kappa_score(*by_order))
    named_first = [first > 0.5 for first in firsts] + [swapped > 0.5 for swapped in swappeds]
    assert reliability.position1_fraction == pytest.approx(np.mean(named_first))
    assert reliability.n_decided == sum(a == b for a, b in zip(*by_order, strict=True))


def test_a_judge_that_follows_the_texts_is_reliable():
    firsts = draw(100, 2)
    reliability = assess_reliability(judge(firsts, [1 - first for first in firsts]))
    assert (reliability.order_kappa, reliability.decided_fraction) == (1, 1)
    assert reliability.position1_fraction == 0.5
    assert reliability.is_reliable
    assert reliability.describe().startswith("100 of 100 judgments name one choice (100%), agreement")
    assert reliability.facts()["is_reliable"] is True


@pytest.mark.parametrize(
    ("firsts", "swappeds"),
    [
        ([0.9] * 100, [0.9] * 100),  # always the first position
        ([0.9] * 100, [0.1] * 100),  # always choice 1 of the file: no agreement beyond chance
        (draw(4000, 3), draw(4000, 4)),  # noise
    ],
)
def test_position_and_chance_are_not_reliable(firsts, swappeds):
    reliability = assess_reliability(judge(firsts, swappeds))
    assert abs(reliability.order_kappa) < 0.05
    assert not reliability.is_reliable


@pytest.mark.parametrize("n", [30, 60, 200])
def test_few_guesses_seldom_look_like_agreement(n):
    rng = np.random.default_rng(n)
    found = [assess_reliability(judge(rng.random(n), rng.random(n))).is_reliable for _ in range(200)]
    assert np.mean(found) < 0.06


def test_ties_of_half_precision_do_not_look_like_agreement():
    """Random answers, with log-odds rounded to the steps of bfloat16 around 20."""
    rng = np.random.default_rng(0)
    log_odds = np.round(rng.normal(scale=0.2, size=(4000, 2)) / 0.125) * 0.125
    firsts, swappeds = (1 / (1 + np.exp(-log_odds))).T.tolist()
    reliability = assess_reliability(judge(firsts, swappeds))
    assert abs(reliability.order_kappa) < 0.05
    assert not reliability.is_reliable


def test_with_one_order_or_few_judgments_kappa_is_none():
    one_order = judge([0.9] * 50, [None] * 50)
    for judgments in (one_order, judge([0.9] * 29, [0.9] * 29), [Judgment(Triplet(0, 1, 2), ("1",))] * 40):
        reliability = assess_reliability(judgments)
        assert reliability.order_kappa is reliability.position1_fraction is None
    assert assess_reliability(one_order).is_reliable
    assert not assess_reliability([Judgment(Triplet(0, 1, 2), ())] * 40).is_reliable  # abstentions only
    assert not assess_reliability([]).is_reliable
    assert assess_reliability([]).describe() == "0 of 0 judgments name one choice (0%)"


@pytest.mark.parametrize(
    ("kappa", "n_both", "n_decided", "is_reliable"),
    [
        (0.12, 10_000, 1000, True),
        (0.08, 10_000, 1000, False),  # beyond chance, but too little to train on
        (0.25, 50, 1000, False),  # no more than guesses reach
        (None, 0, 120, True),
        (None, 0, 80, False),  # hardly an answer
    ],
)
def test_agreement_and_answers_must_be_enough(kappa, n_both, n_decided, is_reliable):
    assert Reliability(1000, n_decided, kappa, 0.5, n_both).is_reliable is is_reliable


@pytest.mark.parametrize(("n", "n_decided", "agrees"), [(100, 55, False), (100, 61, True), (10_000, 5200, True)])
def test_agreement_of_words_must_exceed_a_coin_by_two_errors(n, n_decided, agrees):
    assert Reliability(n, n_decided, None, None).agrees_beyond_guessing is agrees
