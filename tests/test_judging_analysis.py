import numpy as np
import pytest

from perspective.artifacts import Judgment, Triplet
from perspective.errors import DataError
from perspective.judging.analysis import analyse_judgments, format_analysis, nearer_choice

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
    assert nearer_choice(VECTORS, judgment(None, "1", key=(0, 1, 3))) == "2"
    assert nearer_choice(VECTORS, judgment(None, "1", key=(0, 2, 1))) == "2"
    assert nearer_choice(VECTORS, judgment(None, "1", key=(0, 1, 2))) == "1"


def test_without_gold_answers_there_is_nothing_to_count():
    with pytest.raises(DataError, match="no triplet has a gold answer"):
        analyse_judgments([judgment(None, "1"), judgment("both", "1")], VECTORS)


def test_format_has_a_line_a_figure():
    analysis = analyse_judgments([judgment(" 1", "1", 0.9), judgment(" 1", "2", 0.3)], VECTORS)
    lines = format_analysis(analysis).split("\n")
    assert len(lines) == len(analysis)
    assert "llm accuracy                             50.0" in lines
    assert "order kappa                              -" in lines
    assert lines[-1].endswith("0.0  100.0  -  -")
