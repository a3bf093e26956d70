"""The protocol of all judges: questions, answers, and how the answers of both orders are combined."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from perspective.artifacts import LABELS, Judgment, Triplet, mirror_prediction, read_json, stack_rows
from perspective.artifacts.names import source_dataset
from perspective.errors import DataError, JudgeError
from perspective.layout import PREDICT_STAGE
from perspective.llm.chat import MAX_TEXT_CHARS, make_harmless

logger = logging.getLogger(__name__)

PROMPTS = PREDICT_STAGE / "prompts.json"

DEFAULT_PERSPECTIVE = "topic"

# The wording of the published judge.
ANSWER_FORM = "Please respond with 'Choice 1' or 'Choice 2' without explanation."
ANSWERS = tuple(f"Choice {label}" for label in LABELS)
NO_ANSWER = "no answer: "  # begins the content of a judgment whose question failed


# "1" and "2" as words of their own or after "choice": not in "12", "1.5" or "v1".
_NAMED_CHOICE = re.compile(r"(?:(?<![\w.,])|(?<=choice))([12])(?!\w|[.,]\d)", re.IGNORECASE)
_UNDECIDED = re.compile(
    r"\b(?:not|never|no|neither|nor|none|both|either|or|but|cannot|unable|instead|rather|except|without|unless|wrong"
    r"|incorrect|false|unclear|unsure|uncertain|undecided|equal(?:ly)?|depends|impossible|less|worse|farther|further"
    r"|unrelated|irrelevant)\b|n['\u2019]t\b|\?|아니|않|ない|不|没",
    re.IGNORECASE,
)
_OTHER_CHOICE = re.compile(r"\bchoice\W*(?![12]\b)\d", re.IGNORECASE)


def count_long_texts(texts: Sequence[str], triplets: Sequence[Triplet]) -> dict[str, int]:
    """Count the texts of triplets of which judges read only the beginning; log a warning if there are any.

    Args:
        texts: All texts.
        triplets: Row numbers.

    Returns:
        `n_cut_texts`, for the provenance.
    """
    rows = {int(row) for row in stack_rows(triplets).ravel()} if triplets else set()
    n_cut = sum(len(texts[row]) > MAX_TEXT_CHARS for row in rows)
    if n_cut:
        logger.warning(
            "judges read the first %s characters: %s of %s texts are longer, and their ends are not read",
            *(f"{count:,}" for count in (MAX_TEXT_CHARS, n_cut, len(rows))),
        )
    return {"n_cut_texts": n_cut}


@dataclass(frozen=True)
class Question:
    """The texts of a triplet.

    Attributes:
        triplet: The row indices of the texts, in the file's order.
        query: The text to compare with.
        choice1: The first choice in this question.
        choice2: The second choice.
    """

    triplet: Triplet
    query: str
    choice1: str
    choice2: str

    def swapped(self) -> Question:
        """Return the same question with its choices swapped."""
        return Question(self.triplet, self.query, self.choice2, self.choice1)


class Judge(Protocol):
    """A source of judgments.

    Attributes:
        identity: Settings of the judge (model, prompt, orders ...), for the provenance.
        facts: Figures recorded after judging (tokens, money ...).
    """

    identity: dict[str, Any]
    facts: dict[str, Any]

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Yield one judgment per question, in any order, each as soon as it is available."""


def write_question(question: Question, instruction: str, markers: Iterable[str] = ()) -> str:
    """Write a question in the wording of the published judge, with sanitised texts.

    Args:
        question: The texts.
        instruction: The sentence of `prompts.json` that states the data set's perspective.
        markers: Special tokens of the judge's tokenizer.
    """
    query, choice1, choice2 = (
        make_harmless(text, markers) for text in (question.query, question.choice1, question.choice2)
    )
    return f"Query: {query}\nChoice 1: {choice1}\nChoice 2: {choice2}\n\n{instruction} {ANSWER_FORM}"


@dataclass(frozen=True)
class Wording:
    """The wording of a data set's perspective.

    Attributes:
        perspective: The property to compare, in one or a few words ("intent").
        instruction: The sentence that asks for the closer choice.
    """

    perspective: str
    instruction: str


def choose_wording(dataset: str, perspective: str | None = None, prompts_path: Path = PROMPTS) -> Wording:
    """Return the wording of a data set's perspective.

    Args:
        dataset: Key of the data set in the file of prompts.
        perspective: The property to compare ("intent") as given by the user; overrides the file.
        prompts_path: The file. An entry is an object with "perspective" and "instruction", or, as published, only
            the instruction.

    Raises:
        DataError: The data set's entry has another form.
    """
    entry = read_json(prompts_path).get(source_dataset(dataset)) if perspective is None else None
    if isinstance(entry, str):
        return Wording(DEFAULT_PERSPECTIVE, entry)
    if isinstance(entry, dict):
        if not all(isinstance(entry.get(name), str) for name in ("perspective", "instruction")):
            raise DataError(f'{prompts_path}: "{dataset}" needs "perspective" and "instruction", both texts')
        return Wording(entry["perspective"], entry["instruction"])
    if entry is not None:
        raise DataError(f'{prompts_path}: "{dataset}" is neither a sentence nor an object')
    if perspective is None:
        perspective = DEFAULT_PERSPECTIVE
        logger.info('no prompt for "%s": judging by %s; set another with --perspective "..."', dataset, perspective)
    return Wording(perspective, f"Select the text that better corresponds with the Query in terms of {perspective}.")


def parse_answer(content: str) -> tuple[str, ...]:
    """Parse the choice from free text; abstain unless the answer is unambiguous.

    The text must name exactly one of the choices as a whole word, and hold no word that denies,
    hedges or joins ("not", "neither", "both", "or" ...).

    >>> parse_answer("Choice 2."), parse_answer(" 1"), parse_answer("Choice 12"), parse_answer("Choice 1 or 2")
    (('2',), ('1',), (), ())
    """
    named = set(_NAMED_CHOICE.findall(content))
    if _UNDECIDED.search(content) or _OTHER_CHOICE.search(content) or len(named) != 1:
        return ()
    # A text about choices must say "choice 1", not merely hold the number.
    if re.search(r"\bchoice\b", content, re.IGNORECASE) and not re.search(r"\bchoice\W*[12]\b", content, re.IGNORECASE):
        return ()
    return tuple(named)


def is_unanswered(judgment: Judgment) -> bool:
    """Tell whether a question failed, which is an abstention that the next run asks again."""
    return not judgment.prediction and judgment.probability is None and judgment.content.startswith(NO_ANSWER)


def judgment_from_probabilities(
    triplet: Triplet, first: float, swapped: float | None, prepared: str = "", content: str = ""
) -> Judgment:
    """Combine the probabilities of both orders.

    Args:
        triplet: The triplet in question.
        first: Probability of label 1 in the file's order.
        swapped: Probability of label 1 with the choices swapped, or None.
        prepared: The prompt.
        content: The judge's text. If empty, the more likely answer in the file's order and its
            probability.

    Returns:
        A judgment with the mean probability of both orders. It abstains if they disagree, because
        LLMs have a position bias and such an answer follows the position. It also abstains on ties,
        which are frequent in half precision.

    Raises:
        JudgeError: A probability is NaN or out of range.
    """
    if not all(0 <= value <= 1 for value in (first, swapped) if value is not None):
        raise JudgeError(f"the judge gave {first} and {swapped} as probabilities; its weights or precision are broken")
    if swapped is None:
        probability, by_order = first, [first]
    else:
        probability, by_order = (first + 1 - swapped) / 2, [first, 1 - swapped]
    votes = {value > 0.5 for value in by_order}
    decided = len(votes) == 1 and 0.5 not in by_order
    prediction = (LABELS[0] if votes.pop() else LABELS[1],) if decided else ()
    return Judgment(
        triplet,
        prediction=prediction,
        prepared=prepared,
        content=content or f"{ANSWERS[0] if first > 0.5 else ANSWERS[1]} (p={max(first, 1 - first):.3f})",
        probability=probability,
        swapped_probability=None if swapped is None else 1 - swapped,
    )


def judgment_from_answers(triplet: Triplet, first: str, swapped: str | None, prepared: str = "") -> Judgment:
    """Combine the generated answers of both orders; abstain on disagreement or unclear text."""
    label = parse_answer(first)
    if swapped is not None:
        label = label if label == mirror_prediction(parse_answer(swapped)) else ()
    return Judgment(triplet, label, prepared, join_answers(first, swapped))


def join_answers(first: str, swapped: str | None) -> str:
    """Return the answers of both orders as they are saved."""
    return first if swapped is None else f"{first} | swapped: {swapped}"


def sigmoid(log_odds: float) -> float:
    """Return the probability for the given log-odds, without overflow.

    >>> sigmoid(0.0), sigmoid(-1000.0)
    (0.5, 0.0)
    """
    # scipy's expit differs in the last digit for one value in three, and files hold all digits.
    return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else 1 - 1 / (1 + math.exp(max(log_odds, -700.0)))
