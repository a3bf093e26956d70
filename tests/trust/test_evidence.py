import numpy as np
import pytest
from scipy.special import expit

from perspective.artifacts import Judgment, Triplet
from perspective.errors import DataError
from perspective.evaluation.calibration import measure_calibration_error
from perspective.trust.evidence import (
    DEFAULT_RELIABILITY,
    MAX_LOGIT,
    MAX_RELIABILITY,
    STATES,
    TYPICAL_RELIABILITY,
    combine_sources,
    gather_evidence,
    is_noise,
    score_judgments,
)
from perspective.vectors import half_whiten, score_margins

N = 6000
TRIPLET = Triplet(0, 1, 2)


def draw(mus, seed=0, n=N, shared=0.0):
    """Draw right answers and one source per mu; `shared` is the correlation between the errors of the last two."""
    rng = np.random.default_rng(seed)
    z = rng.choice([-1.0, 1.0], n)
    noise = rng.normal(size=(len(mus), n))
    noise[-1] = shared * noise[-2] + np.sqrt(1 - shared**2) * noise[-1]
    return z, [mu * z + np.sqrt(1 - mu**2) * one for mu, one in zip(mus, noise, strict=True)]


def accuracy(evidence, z):
    return ((evidence.probability > 0.5) == (z > 0)).mean()


def calibration_error(evidence, z):
    return measure_calibration_error(evidence.probability, z > 0)


@pytest.mark.parametrize("mus", [(0.3, 0.5, 0.7), (0.5, 0.4, 0.6, 0.2), (0.4, 0.4)])
def test_reliabilities_of_data_from_the_model_are_recovered(mus):
    z, sources = draw(mus)
    evidence = combine_sources({f"source {i}": x for i, x in enumerate(sources)})
    assert list(evidence.reliability.values()) == pytest.approx(mus, abs=0.05)
    assert calibration_error(evidence, z) < 0.03
    assert accuracy(evidence, z) > max(((x > 0) == (z > 0)).mean() for x in sources)
    np.testing.assert_allclose(evidence.probability, expit(sum(evidence.log_odds.values())))
    np.testing.assert_allclose(evidence.confidence, abs(2 * evidence.probability - 1))


@pytest.mark.parametrize("seed", range(3))
def test_a_random_source_is_not_trusted(seed):
    z, (a, b, c) = draw((0.4, 0.5, 0.6), seed)
    random = np.random.default_rng(seed + 100).normal(size=N)
    evidence = combine_sources({"a": a, "b": b, "c": c, "random": random})
    assert evidence.reliability["random"] < 0.1
    assert [evidence.reliability[name] for name in "abc"] == pytest.approx([0.4, 0.5, 0.6], abs=0.06)
    with_two = combine_sources({"llm": random, "embedder": a})
    assert with_two.reliability["llm"] < 0.15
    assert accuracy(with_two, z) > ((a > 0) == (z > 0)).mean() - 0.02


def test_a_source_below_chance_is_not_trusted():
    _, (a, b, c) = draw((0.5, 0.5, 0.5))
    evidence = combine_sources({"a": a, "b": b, "against": -c})
    assert evidence.reliability["against"] == 0 and not evidence.log_odds["against"].any()
    assert evidence.reliability["a"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("scale", [1e-300, 1e-6, 1e6, 1e306])
def test_the_scale_of_a_source_does_not_matter(scale):
    _, sources = draw((0.4, 0.5, 0.6))
    plain = combine_sources(dict(zip("abc", sources, strict=True)))
    scaled = combine_sources(dict(zip("abc", [sources[0], sources[1] * scale, sources[2]], strict=True)))
    np.testing.assert_allclose(scaled.probability, plain.probability, atol=1e-6)


def test_outliers_do_not_change_the_reliabilities():
    z, sources = draw((0.4, 0.5, 0.6))
    sources[2][:5] = [1e308, -1e308, 1e9, 1e200, -1e9]
    evidence = combine_sources(dict(zip("abc", sources, strict=True)))
    assert list(evidence.reliability.values()) == pytest.approx((0.4, 0.5, 0.6), abs=0.06)
    assert calibration_error(evidence, z) < 0.04


def test_an_abstention_adds_no_evidence():
    z, sources = draw((0.4, 0.5, 0.6))
    abstains = np.random.default_rng(1).random(N) < 0.4
    sources[2][abstains] = 0
    sources[0][:10] = sources[1][:10] = sources[2][:10] = 0
    evidence = combine_sources(dict(zip("abc", sources, strict=True)))
    assert not evidence.log_odds["c"][abstains].any()
    assert (evidence.probability[:10] == 0.5).all() and not evidence.confidence[:10].any()
    assert list(evidence.reliability.values()) == pytest.approx((0.4, 0.5, 0.6), abs=0.06)
    assert calibration_error(evidence, z) < 0.04


def test_votes_without_a_strength_are_calibrated():
    rng = np.random.default_rng(0)
    z = rng.choice([-1.0, 1.0], N)
    accuracies = (0.7, 0.75, 0.8)  # mu = 2 * accuracy - 1
    votes = [np.where(rng.random(N) < one, z, -z) for one in accuracies]
    evidence = combine_sources(dict(zip("abc", votes, strict=True)))
    assert list(evidence.reliability.values()) == pytest.approx([0.4, 0.5, 0.6], abs=0.05)
    assert abs(evidence.log_odds["c"]).max() == pytest.approx(np.log(0.8 / 0.2), abs=0.2)
    assert calibration_error(evidence, z) < 0.03


def test_known_shared_errors_count_once():
    z, (llm, embedder, states) = draw((0.45, 0.5, 0.4), shared=0.6)
    sources = {"llm": llm, "embedder": embedder, "states": states}
    evidence = combine_sources(sources)
    assert list(evidence.reliability.values()) == pytest.approx((0.45, 0.5, 0.4), abs=0.07)
    assert calibration_error(evidence, z) < 0.04
    as_if_independent = combine_sources(sources, dependent=())
    assert as_if_independent.reliability["embedder"] > 0.65
    assert accuracy(evidence, z) > accuracy(as_if_independent, z)
    assert calibration_error(evidence, z) < calibration_error(as_if_independent, z)


def test_a_copy_of_a_source_adds_nothing():
    _, (llm, embedder) = draw((0.5, 0.5))
    once = combine_sources({"llm": llm, "embedder": embedder})
    twice = combine_sources({"llm": llm, "embedder": embedder, "states": embedder * 7})
    assert abs(twice.probability - once.probability).mean() < 0.03
    assert ((twice.probability > 0.5) == (once.probability > 0.5)).mean() > 0.98


def test_without_agreement_only_the_embedder_is_used():
    rng = np.random.default_rng(3)
    x = rng.normal(size=1000)
    evidence = combine_sources({"llm": -x + rng.normal(size=1000), "embedder": x})
    assert evidence.reliability == {"llm": 0, "embedder": DEFAULT_RELIABILITY}
    none_left = combine_sources({"llm": -x, "states": x})
    assert none_left.reliability == {"llm": 0, "states": 0} and (none_left.probability == 0.5).all()


def test_one_source_abstaining_sources_and_few_triplets():
    assert combine_sources({"llm": np.array([2.0, -1.0])}).reliability == {"llm": DEFAULT_RELIABILITY}
    assert combine_sources({"embedder": np.zeros(3)}).reliability == {"embedder": 0}
    same = np.ones(10)  # ten triplets are too few to establish agreement
    evidence = combine_sources({"llm": same, "embedder": same})
    assert evidence.reliability == {"llm": 0, "embedder": DEFAULT_RELIABILITY}
    assert combine_sources({"llm": np.zeros(0), "embedder": np.zeros(0)}).probability.shape == (0,)


def test_full_agreement_gives_at_most_the_maximal_reliability():
    votes = np.random.default_rng(0).choice([-1.0, 1.0], 2000)
    evidence = combine_sources({"a": votes, "b": votes, "c": votes})
    assert max(evidence.reliability.values()) <= MAX_RELIABILITY
    assert np.isfinite(evidence.probability).all() and ((evidence.probability > 0.5) == (votes > 0)).all()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "no source of evidence"),
        ({"a": np.ones(3), "b": np.ones(2)}, r'source "b": scores must have shape \(3,\), got \(2,\)'),
        ({"a": np.ones((2, 2))}, r'source "a": scores must have shape \(2,\), got \(2, 2\)'),
        ({"a": np.array([0.0, np.nan])}, 'source "a": score 1 is NaN or infinite'),
        ({"a": np.array([np.inf, 0.0])}, 'source "a": score 0 is NaN or infinite'),
    ],
)
def test_invalid_scores_are_refused(sources, message):
    with pytest.raises(DataError, match=message):
        combine_sources(sources)


def test_scores_of_a_judge():
    def judge(prediction, probability=None):
        return Judgment(TRIPLET, prediction, probability=probability)

    assert score_judgments([judge(("1",)), judge(()), judge(("2",))]).tolist() == [1, 0, -1]
    rated = [judge(("1",), 0.8), judge((), 0.4), judge(("2",), 0.0), judge((), 0.5), judge(("1",), 1.0)]
    expected = [np.log(4), np.log(2 / 3), -MAX_LOGIT, 0, MAX_LOGIT]
    np.testing.assert_allclose(score_judgments(rated), expected)
    # Answers without a probability get the median log-odds; abstentions without one stay 0.
    np.testing.assert_allclose(score_judgments([*rated, judge(("2",)), judge(())])[5:], [-np.log(4), 0])
    assert score_judgments([]).shape == (0,)


def test_margins_are_differences_of_cosines():
    vectors = np.array([[2, 0], [5, 0], [0, 1], [0, 0], [-1, 0]], dtype=np.float32)
    triplets = [Triplet(0, 1, 2), Triplet(0, 2, 1), Triplet(0, 1, 4), Triplet(3, 1, 2), Triplet(0, 3, 4)]
    np.testing.assert_allclose(score_margins(vectors, triplets), [1, -1, 2, 0, 1])
    assert score_margins(vectors, []).shape == (0,)


def test_sources_are_gathered_from_answers_vectors_and_states():
    rng = np.random.default_rng(0)
    meanings = rng.normal(size=(300, 8))  # the common signal of vectors, states and judge
    vectors = (meanings + 0.7 * rng.normal(size=meanings.shape)).astype(np.float32)
    states = (50 + meanings + 0.7 * rng.normal(size=meanings.shape)).astype(np.float32)
    triplets = [Triplet(*map(int, rng.choice(300, 3, replace=False))) for _ in range(1500)]
    truth = score_margins(meanings, triplets)
    answers = np.where(rng.random(1500) < 0.8, truth, -truth) > 0
    judgments = [Judgment(one, ("1",) if first else ("2",)) for one, first in zip(triplets, answers, strict=True)]
    evidence = gather_evidence(judgments, vectors, states)
    assert list(evidence.reliability) == ["llm", "embedder", "states"] and min(evidence.reliability.values()) > 0.3
    assert accuracy(evidence, truth) > 0.82  # the judge alone: 0.8
    assert list(gather_evidence(judgments, vectors).reliability) == ["llm", "embedder"]
    assert list(gather_evidence(judgments, vectors, states, judge=None).reliability) == ["embedder", "states"]
    # Answers inferred from states share the embedder's errors; the states themselves replace them.
    assert list(gather_evidence(judgments, vectors, judge=STATES).reliability) == ["states", "embedder"]
    without = gather_evidence(judgments, vectors, states, judge=None)
    replaced = gather_evidence(judgments, vectors, states, judge=STATES)
    np.testing.assert_allclose(replaced.probability, without.probability)


def test_random_answers_are_noise_and_correlated_answers_are_not():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8))
    triplets = [Triplet(*map(int, rng.choice(300, 3, replace=False))) for _ in range(2000)]
    margins = score_margins(vectors, triplets)

    def answer(random_share, n=2000):
        is_random = rng.random(n) < random_share
        is_choice1 = np.where(is_random, rng.random(n) < 0.5, margins[:n] > 0)
        return [Judgment(triplet, ("1" if one else "2",)) for triplet, one in zip(triplets, is_choice1, strict=False)]

    for n in (50, 300, 2000):  # one in forty by chance
        assert sum(is_noise(answer(1.0, n), vectors) for _ in range(40)) >= 36
    assert not any(is_noise(answer(0.7), vectors) for _ in range(10))
    assert not is_noise(answer(0.2, n=50), vectors)
    assert is_noise([Judgment(triplet, ()) for triplet in triplets], vectors)


def test_log_odds_grow_up_to_three_deviations():
    _, sources = draw((0.4, 0.4))
    evidence = combine_sources({"llm": sources[0], "embedder": sources[1]})
    for name, x in zip(("llm", "embedder"), sources, strict=True):
        mu, inner, outer = evidence.reliability[name], abs(x) < 2.8, x > 3.3
        np.testing.assert_allclose(evidence.log_odds[name][inner], (2 * mu * x / (1 - mu**2))[inner], rtol=0.05)
        assert np.ptp(evidence.log_odds[name][outer]) < 1e-9  # outliers count as much as one at 3


def test_opposite_errors_are_taken_for_independent_ones():
    _, sources = draw((0.5, 0.5, 0.5), shared=-0.4)
    evidence = combine_sources(dict(zip(("llm", "embedder", "states"), sources, strict=True)))
    for (name, mu), x in zip(evidence.reliability.items(), sources, strict=True):
        middle = (abs(x) > 0.2) & (abs(x) < 2)
        slopes = evidence.log_odds[name][middle] / (2 * mu * x / (1 - mu**2))[middle]
        assert np.median(slopes) == pytest.approx(1, abs=0.05)


def test_no_source_counts_against_its_own_answer():
    _, (llm, embedder, states) = draw((0.5, 0.6, 0.2), shared=0.9)
    evidence = combine_sources({"llm": llm, "embedder": embedder, "states": states})
    assert (evidence.log_odds["states"] * states).min() >= 0
    assert (evidence.log_odds["embedder"] * embedder).min() >= 0


def test_embedder_and_states_establish_each_others_trust_and_states_are_whitened():
    rng = np.random.default_rng(0)
    meanings = rng.normal(size=(300, 8))
    vectors = (meanings + 0.7 * rng.normal(size=meanings.shape)).astype(np.float32)
    states = (50 + meanings + 0.7 * rng.normal(size=meanings.shape)).astype(np.float32)
    triplets = [Triplet(*map(int, rng.choice(300, 3, replace=False))) for _ in range(1500)]
    evidence = gather_evidence([Judgment(one, ("1",)) for one in triplets], vectors, states, judge=None)
    # Their agreement says that they are better than chance, not by how much: the errors are shared.
    assert evidence.reliability == pytest.approx({"embedder": TYPICAL_RELIABILITY, "states": TYPICAL_RELIABILITY})
    whitened = score_margins(half_whiten(states), triplets)
    assert (np.sign(evidence.log_odds[STATES]) == np.sign(whitened)).all()
