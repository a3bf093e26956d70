"""The choice and its probability, read off a server's reply."""

import math

import pytest
from fake_server import completion, position

from perspective.judging.label_reply import compare_labels, read_probability
from perspective.llm.server.reply import read_reply


def read_tokens(content, *positions):
    return read_probability(read_reply(completion(content, {"content": list(positions)})))


def test_missing_label_is_bounded_by_the_cut():
    listed = [("2", -0.2), ("Both", -2.0), ("I", -7.0)]
    assert read_tokens("2", position("2", *listed)) == pytest.approx(1 / (1 + math.exp(6.8)))


def test_spellings_of_a_label_add_up():
    listed = [("1", math.log(0.4)), (" 1", math.log(0.2)), (" 2", math.log(0.3)), ("\n2", math.log(0.05))]
    assert read_tokens("1", position("1", *listed)) == pytest.approx(0.6 / 0.95)


def test_label_is_found_after_choice_not_before():
    number = position("1", ("1", -0.1), ("2", -9.0))  # a digit that is no label
    label = position("2", ("2", -0.1), ("1", -1.0))
    tokens = [position("Of "), number, position("0: "), position("Choice"), position(" "), label]
    assert read_tokens("Of 10: Choice 2", *tokens) == pytest.approx(1 / (1 + math.exp(0.9)))


def test_label_that_is_not_in_the_list_itself_counts():
    odd = position("1", ("2", -3.0), ("x", -4.0)) | {"logprob": -0.2}
    assert read_tokens("1", odd) == pytest.approx(1 / (1 + math.exp(-2.8)))


def test_very_unlikely_is_no_cut():
    listed = [("1", -0.1), ("x", -4.0), ("y", -9999.0)]
    assert read_tokens("1", position("1", *listed)) == pytest.approx(1 / (1 + math.exp(-3.9)))


@pytest.mark.parametrize(
    "content, positions",
    [
        ("Choice 1", None),
        ("Choice 1", []),
        ("Choice 1", [position("Choice 1", ("Choice 1", -0.1), ("Choice 2", -2.0))]),  # one token
        ("Choice 1", [{"token": "1"}]),
        ("Choice 1", [position("1", ("1", "high"), ("2", "low"))]),
        ("Choice 1", "nonsense"),
        ("Choice 1", [position("1")]),  # a list of one compares nothing
        ("Choice 1 or Choice 2", [position("Choice"), position(" 1", (" 1", -0.1), (" 2", -1.0))]),
    ],
)
def test_no_probability_where_none_can_be_read(content, positions):
    assert read_probability(read_reply(completion(content, {"content": positions}))) is None


def test_labels_that_nobody_lists_compare_nothing():
    assert compare_labels([("The", -0.1), ("A", -2.0)]) is None
