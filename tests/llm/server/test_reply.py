"""What a server's reply says."""

import math

import pytest
from fake_server import (
    completion,
    position,
)

from perspective.llm.server.reply import Failure, compare_labels, read_reply, read_usage


def read_tokens(content, *positions):
    return read_reply(completion(content, {"content": list(positions)})).probability


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
    assert read_reply(completion(content, {"content": positions})).probability is None


def test_labels_that_nobody_lists_compare_nothing():
    assert compare_labels([("The", -0.1), ("A", -2.0)]) is None


def test_reasoning_is_skipped():
    thought = "<think>Choice 2 perhaps</think>\n\nChoice 1"
    tokens = ["<think>", "Choice", " 2", " perhaps", "</think>", "\n\n", "Choice", " 1"]
    top = {" 1": [(" 1", -0.1), (" 2", -2.1)], " 2": [(" 2", -0.1), (" 1", -3.0)]}
    read = read_reply(completion(thought, {"content": [position(token, *top.get(token, ())) for token in tokens]}))
    assert read.content == "Choice 1" and read.probability == pytest.approx(1 / (1 + math.exp(-2.0)))
    with pytest.raises(Failure, match="ends within its reasoning"):
        read_reply(completion("<think>Choice 2 perhaps"))


def test_usage_that_is_missing_counts_nothing():
    assert [read_usage(body) for body in (None, [], {}, {"usage": None}, {"usage": {"prompt_tokens": None}})] == [
        (0, 0)
    ] * 5


def test_a_reply_cut_within_a_character_can_be_written():
    reply = read_reply(completion("Choice 1 \ud83d", {"content": []}))
    assert reply.content.encode("utf-8") == b"Choice 1 ?"
