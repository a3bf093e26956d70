import numpy as np
import pytest

from perspective.artifacts import Judgment, Triplet
from perspective.errors import DataError
from perspective.evaluation.calibration import (
    ConfidenceBin,
    bin_confidence,
    measure_calibration_error,
    measure_confidence,
)
from perspective.evaluation.judge_accuracy import analyse_judgments, format_analysis
from perspective.vectors import find_nearer_choices

VECTORS = np.array([[0.0], [1.0], [3.0], [-1.0]])  # the nearer of texts 1 and 2 to text 0 is 1; 1 and 3 tie


def judgment(gold, prediction, probability=None, key=(0, 1, 2)):
    return Judgment(Triplet(*key, gold), (prediction,) if prediction else (), probability=probability)


def test_figures_of_a_small_table():
    analysis = analyse_judgments(
        [
            judgment(" 1", "1", 0.9),  # judge right, embedder right
            judgment("2", "2", 0.4),  # judge right, embedder wrong; gold without its space
            judgment(" 2", "1", 0.6),  # both wrong
            judgment(" 1", None, 0.45),  # abstains; would lean wrongly
            judgment("both", "2", 0.1),  # not decidable
            judgment(None, None, 0.5),  # not decidable
        ],
        VECTORS,
    )
    assert (analysis["n_judgments"], analysis["n_decidable"], analysis["llm_n_answered"]) == (6, 4, 3)
    assert analysis["llm_accuracy"] == pytest.approx(200 / 3)
    assert analysis["llm_leaning_accuracy"] == pytest.approx(50)
    assert analysis["embedder_accuracy_where_llm_answered"] == pytest.approx(100 / 3)
    assert analysis["embedder_accuracy"] == pytest.approx(50)
    assert analysis["consensus"] == pytest.approx(200 / 3)
    assert analysis["abstention"] == pytest.approx(100 / 3)
    assert analysis["abstention_where_decidable"] == pytest.approx(25)
    assert analysis["abstention_where_neither_is_right"] == 100
    assert analysis["answers_naming_choice_1"] == pytest.approx(50)
    assert analysis["order_kappa"] is analysis["answers_naming_first_position"] is None
    # By confidence: 0.6 (twice: right and wrong), 0.9.
    assert sorted(analysis["llm_accuracy_by_confidence_quarter"][:2]) == [0, 100]
    assert analysis["llm_accuracy_by_confidence_quarter"][2:] == [100, None]


def test_accuracy_by_quarter_goes_from_unsure_to_sure():
    judgments = [judgment(" 1", "1" if i >= 8 else "2", 0.5 + i / 40) for i in range(16)]
    np.random.default_rng(0).shuffle(judgments)
    assert analyse_judgments(judgments, VECTORS)["llm_accuracy_by_confidence_quarter"] == [0, 0, 100, 100]


def test_words_alone_and_no_answer_at_all():
    analysis = analyse_judgments([judgment(" 1", "1")], VECTORS)
    assert analysis["llm_accuracy"] == 100
    assert analysis["llm_leaning_accuracy"] is analysis["llm_accuracy_by_confidence_quarter"] is None
    analysis = analyse_judgments([judgment(" 1", None)], VECTORS)
    assert analysis["llm_accuracy"] is analysis["consensus"] is analysis["answers_naming_choice_1"] is None
    assert (analysis["abstention"], analysis["embedder_accuracy"]) == (100, 100)


def test_a_tie_of_the_embedder_goes_to_choice_2():
    assert find_nearer_choices(VECTORS, [Triplet(0, 1, 3)]).tolist() == [False]
    assert find_nearer_choices(VECTORS, [Triplet(0, 2, 1)]).tolist() == [False]
    assert find_nearer_choices(VECTORS, [Triplet(0, 1, 2)]).tolist() == [True]


def test_without_gold_answers_there_is_nothing_to_count():
    with pytest.raises(DataError, match="no triplet has a gold answer"):
        analyse_judgments([judgment(None, "1"), judgment("both", "1")], VECTORS)


def test_format_has_a_line_a_figure():
    analysis = analyse_judgments([judgment(" 1", "1", 0.9), judgment(" 1", "2", 0.3)], VECTORS)
    lines = format_analysis(analysis).split("\n")
    assert len(lines) == len(analysis)
    assert "llm accuracy                             50.0" in lines
    assert "order kappa                              -" in lines
    [quarters] = [line for line in lines if line.startswith("llm accuracy by confidence quarter")]
    assert quarters.endswith("0.0  100.0  -  -")
    assert "embedder reliability                     0.00" in lines  # text 0 lies at 0: all cosines are 0
    assert "evidence curve                           50:50 (2)" in lines


def test_evidence_against_the_labels():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 50)
    signal = np.where(classes[:, None] == 0, 1.0, -1.0) * np.array([1.0, 0, 0, 0])
    vectors, states = (signal + rng.normal(size=(100, 4)) for _ in range(2))
    judgments = []
    for _ in range(1200):
        key = tuple(map(int, rng.choice(100, 3, replace=False)))
        alike = [classes[key[0]] == classes[row] for row in key[1:]]
        gold = (" 1" if alike[0] else " 2") if alike[0] != alike[1] else None
        is_right = rng.random() < 0.75
        says1 = (gold == " 1") == is_right if gold else rng.random() < 0.5
        judgments.append(judgment(gold, "1" if says1 else "2", 0.75 if says1 else 0.25, key))
    analysis = analyse_judgments(judgments, vectors, states)
    assert analysis["evidence_accuracy"] > max(analysis["llm_accuracy"], analysis["embedder_accuracy"])
    quarters = analysis["evidence_accuracy_by_confidence_quarter"]
    assert np.mean(quarters) == pytest.approx(analysis["evidence_accuracy"], abs=0.5) and quarters[3] > quarters[0] + 15
    assert all(analysis[f"{name}_reliability"] > 0.1 for name in ("llm", "embedder", "states"))
    assert sum(part["n"] for part in analysis["evidence_curve"]) == analysis["n_decidable"]
    assert analysis["llm_calibration_error"] == pytest.approx(abs(75 - analysis["llm_accuracy"]))
    assert 0 <= analysis["evidence_calibration_error"] < 20 and 0 <= analysis["embedder_calibration_error"] < 25
    assert "states_reliability" not in analyse_judgments(judgments, vectors)


def test_the_labels_do_not_move_the_evidence():
    judgments = [judgment(" 1", "1", 0.9), judgment(" 2", "1", 0.6), judgment(" 1", None, 0.5)]
    other = [judgment(" 2", "1", 0.9), judgment(" 1", "1", 0.6), judgment(" 2", None, 0.5)]
    first, second = (analyse_judgments(some, VECTORS) for some in (judgments, other))
    assert first["embedder_reliability"] == second["embedder_reliability"]
    assert first["evidence_accuracy"] == pytest.approx(50) and second["evidence_accuracy"] == pytest.approx(50)
    assert first["llm_calibration_error"] == pytest.approx(100 * (0.1 + 0.6 + 0) / 3)


def test_calibration_of_hand_made_answers():
    probability = np.array([0.55, 0.45, 0.95, 0.05, 0.95, 0.5])
    is_choice1 = np.array([True, True, True, False, False, True])
    confidence, right = measure_confidence(probability, is_choice1)
    np.testing.assert_allclose(confidence, [0.55, 0.55, 0.95, 0.95, 0.95, 0.5])
    assert right.tolist() == [1, 0, 1, 1, 0, 0.5]
    low, high = bin_confidence(probability, is_choice1, n_bins=2)
    assert (low.n, high.n) == (3, 3)
    assert (low.accuracy, high.accuracy) == pytest.approx((0.5, 2 / 3))
    assert (low.confidence, high.confidence) == pytest.approx((1.6 / 3, 0.95))
    expected = (abs(1.6 / 3 - 0.5) + abs(0.95 - 2 / 3)) / 2
    assert measure_calibration_error(probability, is_choice1, n_bins=2) == pytest.approx(expected)


def test_calibration_of_certain_answers_and_of_none():
    assert bin_confidence(np.array([1.0, 0.0]), np.array([True, True])) == [ConfidenceBin(1.0, 0.5, 2)]
    assert measure_calibration_error(np.array([]), np.array([])) is None
    rng = np.random.default_rng(0)
    probability = rng.random(20000)
    assert measure_calibration_error(probability, rng.random(20000) < probability) < 0.02


@pytest.mark.parametrize(
    ("probability", "is_choice1", "message"),
    [
        ([0.5], [True, False], r"shape \(1,\) for answers of shape \(2,\)"),
        ([[0.5]], [[True]], r"shape \(1, 1\)"),
        ([1.2], [True], "must be between 0 and 1"),
        ([np.nan], [True], "must be between 0 and 1"),
    ],
)
def test_calibration_refuses_what_is_no_probability(probability, is_choice1, message):
    with pytest.raises(DataError, match=message):
        measure_calibration_error(np.array(probability), np.array(is_choice1))
