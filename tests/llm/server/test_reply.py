"""What a server's reply says."""

import math

import pytest
from fake_server import completion, position

from perspective.judging.label_reply import read_probability
from perspective.llm.server.reply import Failure, read_reply, read_usage


def test_reasoning_is_skipped():
    thought = "<think>Choice 2 perhaps</think>\n\nChoice 1"
    tokens = ["<think>", "Choice", " 2", " perhaps", "</think>", "\n\n", "Choice", " 1"]
    top = {" 1": [(" 1", -0.1), (" 2", -2.1)], " 2": [(" 2", -0.1), (" 1", -3.0)]}
    read = read_reply(completion(thought, {"content": [position(token, *top.get(token, ())) for token in tokens]}))
    assert read.content == "Choice 1"
    assert read_probability(read) == pytest.approx(1 / (1 + math.exp(-2.0)))
    with pytest.raises(Failure, match="ends within its reasoning"):
        read_reply(completion("<think>Choice 2 perhaps"))


def test_usage_that_is_missing_counts_nothing():
    assert [read_usage(body) for body in (None, [], {}, {"usage": None}, {"usage": {"prompt_tokens": None}})] == [
        (0, 0)
    ] * 5
    assert read_usage({"usage": {"prompt_tokens": 10**400, "completion_tokens": -1}}) == (0, 0)


def test_a_reply_cut_within_a_character_can_be_written():
    reply = read_reply(completion("Choice 1 \ud83d", {"content": []}))
    assert reply.content.encode("utf-8") == b"Choice 1 ?"
