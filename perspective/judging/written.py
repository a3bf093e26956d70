"""Generated answers of a local LLM: explanations and JSON.

Both forms test a claim of Tam et al. (2024, "Let Me Speak Freely?", arXiv:2408.02442): a fixed format
such as JSON makes LLMs less accurate, and reasoning before the answer makes them more accurate.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

from perspective.artifacts import Judgment, Triplet
from perspective.judging.protocol import ANSWERS, join_answers, judgment_from_answers, judgment_from_probabilities

REASON_FORM = (
    "First explain in one or two short sentences how the Query relates to each of the choices. "
    "Then answer with 'Choice 1' or 'Choice 2'."
)
REASON_TOKENS = 96  # maximum length of an explanation
REASON_END = "\nTherefore, the closer one is "  # appended to the explanation; the label is read after it

JSON_FORM = 'Please respond with a JSON object, either {"choice": 1} or {"choice": 2}, without explanation.'
JSON_TOKENS = 32  # enough for the object in a code fence


class Reasoned(NamedTuple):
    """An explanation and the probability of label 1 after it."""

    words: str
    probability: float


def judgment_from_reasons(triplet: Triplet, first: Reasoned, swapped: Reasoned | None, prepared: str = "") -> Judgment:
    """Combine the probabilities after the explanations of both orders; keep the text."""
    content = join_answers(first.words.strip(), swapped and swapped.words.strip())
    return judgment_from_probabilities(triplet, first.probability, swapped and swapped.probability, prepared, content)


def judgment_from_json(triplet: Triplet, first: str, swapped: str | None, prepared: str = "") -> Judgment:
    """Combine the JSON answers of both orders; abstain on disagreement or another format."""
    answers = [None if text is None else parse_json_answer(text) for text in (first, swapped)]
    judgment = judgment_from_answers(triplet, answers[0] or "", answers[1], prepared)
    return replace(judgment, content=join_answers(first, swapped))


def parse_json_answer(content: str) -> str:
    """Parse the answer strictly from the first JSON object in a text; empty if there is none.

    >>> parse_json_answer('Sure: {"choice": 2}.'), parse_json_answer('{"choice": "2"}'), parse_json_answer("Choice 2")
    ('Choice 2', '', '')
    """
    begin = content.find("{")
    if begin < 0:
        return ""
    try:
        # Pairs, because a dict would hide duplicate keys.
        pairs, _ = json.JSONDecoder(object_pairs_hook=list).raw_decode(content, begin)
    except (ValueError, RecursionError):
        return ""
    return next((ANSWERS[label - 1] for label in (1, 2) if _names_label(pairs, label)), "")


def _names_label(pairs: list[tuple[str, Any]], label: int) -> bool:
    # `true` and 1.0 equal 1 in Python, but are not valid here.
    return pairs == [("choice", label)] and type(pairs[0][1]) is int
