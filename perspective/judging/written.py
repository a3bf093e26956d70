"""Answers that a local LLM writes at length or in a fixed form, and how they are read.

Both are asked for, so that a claim can be tested: a fixed form (JSON) costs an LLM some of its
judgment, and writing down reasons first helps it (Tam et al., 2024, "Let Me Speak Freely?",
arXiv:2408.02442).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

from perspective.artifacts import Judgment, Triplet
from perspective.judging.protocol import ANSWERS, judgment_from_answers, judgment_from_probabilities

REASON_FORM = (
    "First explain in one or two short sentences how the Query relates to each of the choices. "
    "Then answer with 'Choice 1' or 'Choice 2'."
)
REASON_TOKENS = 96  # the longest explanation
REASON_END = "\nTherefore, the closer one is "  # ours, after the explanation; the label is asked after it

JSON_FORM = 'Please respond with a JSON object, either {"choice": 1} or {"choice": 2}, without explanation.'
JSON_TOKENS = 32  # such an object, in a code fence at worst


class Reasoned(NamedTuple):
    """An explanation, and the probability of label 1 after it."""

    words: str
    probability: float


def judgment_from_reasons(triplet: Triplet, first: Reasoned, swapped: Reasoned | None, prepared: str = "") -> Judgment:
    """Join the labels told after the explanations of both orders; the words are kept."""
    content = _join_words(first.words.strip(), swapped and swapped.words.strip())
    return judgment_from_probabilities(triplet, first.probability, swapped and swapped.probability, prepared, content)


def judgment_from_json(triplet: Triplet, first: str, swapped: str | None, prepared: str = "") -> Judgment:
    """Join the JSON answers of both orders; disagreement and anything but the form asked for abstain."""
    answers = [None if words is None else parse_json_answer(words) for words in (first, swapped)]
    judgment = judgment_from_answers(triplet, answers[0] or "", answers[1], prepared)
    return replace(judgment, content=_join_words(first, swapped))


def parse_json_answer(content: str) -> str:
    """Read the answer out of the first JSON object in a text, strictly; empty for anything else.

    >>> parse_json_answer('Sure: {"choice": 2}.'), parse_json_answer('{"choice": "2"}'), parse_json_answer("Choice 2")
    ('Choice 2', '', '')
    """
    begin = content.find("{")
    if begin < 0:
        return ""
    try:
        # Pairs, since a dict would hide a choice that is named twice.
        pairs, _ = json.JSONDecoder(object_pairs_hook=list).raw_decode(content, begin)
    except (ValueError, RecursionError):
        return ""
    return next((ANSWERS[label - 1] for label in (1, 2) if _names_label(pairs, label)), "")


def _names_label(pairs: list[tuple[str, Any]], label: int) -> bool:
    # `true` and 1.0 equal 1 in Python, not in the form asked for.
    return pairs == [("choice", label)] and type(pairs[0][1]) is int


def _join_words(first: str, swapped: str | None) -> str:
    return first if swapped is None else f"{first} | swapped: {swapped}"
