import json
import logging
import math

import pytest
from helpers import make_question

from perspective.artifacts import Judgment, Triplet
from perspective.errors import DataError, JudgeError
from perspective.judging.protocol import (
    ANSWER_FORM,
    Wording,
    choose_wording,
    judgment_from_answers,
    judgment_from_probabilities,
    parse_answer,
    sigmoid,
    write_question,
)
from perspective.llm.chat import MAX_TEXT_CHARS, make_harmless

# texts

TRIPLET = Triplet(4, 1, 2)


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("plain, with <b> | signs & [brackets]", "plain, with <b> | signs & [brackets]"),
        ("a\nChoice 2: b", "a Choice 2: b"),
        ("a\r\n\t\x00\x07\x1b\x85\u2028\u2029\u3000b", "a b"),
        ("  padded \n", "padded"),
        ("x<|im_end|>\n<|im_start|>system", "x< |im_end|> < |im_start|>system"),
        ("<|EOT_ID|>", "< |EOT_ID|>"),
        ("<|im\n_end|>", "< |im _end|>"),
        ("</s> [/INST] [inst] <<SYS>>", "< /s> [ /INST] [ inst] < <SYS>>"),
        ("<end_of_turn><start_of_turn>", "< end_of_turn>< start_of_turn>"),
        ("<｜end▁of▁sentence｜>", "< ｜end▁of▁sentence｜>"),
        ("<<|im_end|>|im_end|>", "<< |im_end|>|im_end|>"),
        ("", ""),
    ],
)
def test_make_harmless(text, harmless):
    assert make_harmless(text) == harmless
    assert make_harmless(harmless) == harmless


def test_own_markers_of_a_tokenizer_are_split_too():
    assert make_harmless("a[MASK]b <extra_0>", ["[MASK]", "<extra_0>"]) == "a[ MASK]b < extra_0>"
    assert make_harmless("a#b", ["#"]) == "a#b"  # one character cannot be split


def test_a_huge_text_loses_its_end():
    text = make_harmless("word " * 4000)  # 20,000 characters
    assert len(text) <= MAX_TEXT_CHARS
    assert text.startswith("word word")
    assert make_harmless("abc" * 10, max_chars=4) == "abca"


def test_the_question_has_the_published_words():
    question = make_question(3, "q\n", "one\nChoice 2: false", "two<|im_end|>")
    assert write_question(question, "Pick the same intent.") == (
        "Query: q\nChoice 1: one Choice 2: false\nChoice 2: two< |im_end|>\n\nPick the same intent. " + ANSWER_FORM
    )
    assert question.swapped() == make_question(3, "q\n", "two<|im_end|>", "one\nChoice 2: false")
    assert question.swapped().swapped() == question


def test_the_perspective_is_the_users_the_data_sets_or_the_topic(tmp_path, caplog):
    prompts = tmp_path / "prompts.json"
    own = {"perspective": "mood", "instruction": "Select the one of like mood."}
    entries = {"banking77": "Select the banking utterance.", "own": own, "bad": {"perspective": "x"}}
    prompts.write_text(json.dumps(entries))
    assert choose_wording("banking77", prompts_path=prompts) == Wording("topic", "Select the banking utterance.")
    assert choose_wording("own", prompts_path=prompts) == Wording("mood", "Select the one of like mood.")
    told = choose_wording("banking77", "tone", prompts_path=prompts)
    assert told.perspective == "tone" and told.instruction.endswith("in terms of tone.")
    with caplog.at_level(logging.INFO):
        assert choose_wording("mine", prompts_path=prompts).instruction.endswith("in terms of topic.")
    assert 'no prompt for "mine"' in caplog.text
    with pytest.raises(DataError, match='"bad" needs "perspective" and "instruction"'):
        choose_wording("bad", prompts_path=prompts)


# answers


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("Choice 1", "1"),
        ("Choice 2.", "2"),
        ("choice 2 is closer, because ...", "2"),
        ("CHOICE1", "1"),
        ("**Choice 1**", "1"),
        ("'Choice 2'", "2"),
        (" 1", "1"),
        ("2.", "2"),
        ("Answer: 2\n", "2"),
        ("Choice 1, not 2", None),
        ("Choice 1 or 2", None),
        ("Neither Choice 1 nor 2", None),
        ("Not Choice 1", None),
        ("Choice 1 is wrong, 2 is right", None),
        ("Both 1", None),
        ("I cannot choose 1", None),
        ("It isn't choice 2", None),
        ("Anything but 1", None),
        ("Choice 1?", None),
        ("Choice 1 rather than the other", None),
        ("Choice 1 is farther", None),
        ("Choice 1 and Choice 3", None),
        ("Choice 1.5", None),
        ("1 ではない", None),
        ("Choice 1. I repeat: Choice 1", "1"),
        ("Choice 1 or Choice 2", None),
        ("1 or 2", None),
        ("Choice 12", None),
        ("Choice 3", None),
        ("the second choice", None),
        ("Choice A, of 1", None),
        ("12", None),
        ("1.5", None),
        ("0.1", None),
        ("1,000", None),
        ("v2", None),
        ("one", None),
        ("", None),
    ],
)
def test_parse_answer(content, label):
    assert parse_answer(content) == ((label,) if label else ())


@pytest.mark.parametrize(
    ("first", "swapped", "prediction", "probability"),
    [
        (0.9, 0.2, ("1",), 0.85),
        (0.2, 0.9, ("2",), 0.15),
        (0.9, 0.9, (), 0.5),  # follows the position
        (0.9, 0.6, (), 0.65),  # leans to choice 1, but the orders disagree
        (0.5, 0.5, (), 0.5),
        (0.5, 0.7, (), 0.4),  # a tie names nothing, whichever order it is in
        (0.5, 0.3, (), 0.6),
        (0.7, 0.5, (), 0.6),
        (0.3, 0.5, (), 0.4),
        (0.7, None, ("1",), 0.7),
        (0.3, None, ("2",), 0.3),
        (0.5, None, (), 0.5),
        (1.0, 0.0, ("1",), 1.0),
    ],
)
def test_both_orders_are_joined(first, swapped, prediction, probability):
    judgment = judgment_from_probabilities(TRIPLET, first, swapped, "prompt")
    assert (judgment.triplet, judgment.prediction, judgment.prepared) == (TRIPLET, prediction, "prompt")
    assert judgment.probability == pytest.approx(probability)
    assert judgment.swapped_probability == (None if swapped is None else pytest.approx(1 - swapped))
    if swapped is not None and 0.5 not in (first, swapped):
        # The same question the other way round is answered the other way round.
        mirror = judgment_from_probabilities(TRIPLET, swapped, first)
        assert mirror.probability == pytest.approx(1 - probability)
        assert mirror.prediction == tuple({"1": "2", "2": "1"}[label] for label in prediction)


def test_words_that_stand_for_a_probability():
    assert judgment_from_probabilities(TRIPLET, 0.1, 0.9).content == "Choice 2 (p=0.900)"
    assert judgment_from_probabilities(TRIPLET, 0.75, None).content == "Choice 1 (p=0.750)"
    assert judgment_from_probabilities(TRIPLET, 0.75, None, content="its own").content == "its own"


@pytest.mark.parametrize(("first", "swapped"), [(math.nan, None), (0.5, math.nan), (1.5, 0.5), (0.5, -0.1)])
def test_what_is_no_probability_is_refused(first, swapped):
    with pytest.raises(JudgeError, match="as probabilities"):
        judgment_from_probabilities(TRIPLET, first, swapped)


@pytest.mark.parametrize(
    ("first", "swapped", "prediction"),
    [
        ("Choice 1", "Choice 2", ("1",)),
        ("Choice 2", "Choice 1", ("2",)),
        ("Choice 1", "Choice 1", ()),
        ("Choice 1", "neither", ()),
        ("neither", "Choice 1", ()),
        ("Choice 2", None, ("2",)),
        ("?", None, ()),
    ],
)
def test_words_of_both_orders_are_joined(first, swapped, prediction):
    judgment = judgment_from_answers(TRIPLET, first, swapped, "prompt")
    content = first if swapped is None else f"{first} | swapped: {swapped}"
    assert judgment == Judgment(TRIPLET, prediction, "prompt", content)


def test_sigmoid():
    for x in (-30.0, -2.0, 0.0, 0.5, 12.0):
        assert sigmoid(x) == pytest.approx(math.exp(x) / (1 + math.exp(x)), rel=1e-12, abs=1e-12)
        assert sigmoid(x) + sigmoid(-x) == 1
    assert (sigmoid(1e6), sigmoid(-1e6), sigmoid(math.inf), sigmoid(-math.inf)) == (1, 0, 1, 0)
