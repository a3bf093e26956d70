"""Judge triplets by asking a causal LM about each pair of texts: same perspective, yes or no?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from perspective.artifacts import Judgment
from perspective.errors import DataError
from perspective.judging.protocol import Question, judgment_from_probabilities, sigmoid
from perspective.llm.batching import batch_by_length
from perspective.llm.chat import fit_texts, list_special_tokens, make_harmless, render_chat
from perspective.llm.labels import LabelReader, find_yes_no_token_ids
from perspective.llm.loading import LLM
from perspective.runtime.devices import describe_precision
from perspective.runtime.memory import BatchLimit

BLOCK_QUESTIONS = 64  # enough to sort by length, few enough to lose when a run is killed
MAX_PERSPECTIVE_CHARS = 200


class PairJudge:
    r"""Judge a triplet by its two pairs: does the query share the perspective with each choice?

    Each pair is asked in both text orders. The score is the difference of the log-probabilities of
    ' Yes' and ' No' at the first position of the answer:

        s(a, b) = log p(Yes | a first) - log p(No | a first)
        forward = sigmoid(s(q, c1) - s(q, c2)),  swapped = sigmoid(s(c1, q) - s(c2, q))

    The triplet's probability is the mean of both; if they disagree, the judge abstains. A bias towards
    Yes affects both pairs and cancels out, and there is no position bias between choices. A pair that
    occurs in several triplets is asked once.

    Args:
        llm: Model and tokenizer.
        perspective: The property to compare, in a few words ("intent").
        batch_size: Prompts per forward pass; chosen by device memory when None.

    Raises:
        DataError: The perspective is empty.
        ModelError: The tokenizer cannot tell Yes from No.
    """

    def __init__(self, llm: LLM, perspective: str, batch_size: int | None = None) -> None:
        self.llm = llm
        self._markers = list_special_tokens(llm.tokenizer)
        self.perspective = make_harmless(perspective, self._markers, MAX_PERSPECTIVE_CHARS)
        if not self.perspective:
            raise DataError(f'perspective "{perspective}": say in a few words what should be alike, such as "intent"')
        self._limit = BatchLimit(items=batch_size or math.inf)  # the reader limits batches by memory
        self.identity: dict[str, Any] = {"kind": "pair", "perspective": self.perspective, "orders": 2}
        self.facts: dict[str, Any] = {**describe_precision(llm.model), "n_prompts": 0, "n_tokens": 0}
        prompt = self._render(["x", "y"])
        self.answer_begin, label_ids = find_yes_no_token_ids(llm.tokenizer, prompt)
        self._labels = LabelReader(llm, label_ids, self.facts)
        self._answers: dict[tuple[str, str], _Answer] = {}

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer the questions in blocks, longest first."""
        ordered = sorted(questions, key=lambda question: -_count_chars(question))
        for start in range(0, len(ordered), BLOCK_QUESTIONS):
            block = ordered[start : start + BLOCK_QUESTIONS]
            self._ask(block)
            for question in block:
                yield self._join(question)

    def _ask(self, questions: Sequence[Question]) -> None:
        """Ask about all pairs that have no answer yet, in both orders."""
        pairs = dict.fromkeys(
            pair
            for question in questions
            for choice in (question.choice1, question.choice2)
            for pair in ((question.query, choice), (choice, question.query))
            if pair not in self._answers
        )
        prompts = [self._prepare(pair) for pair in pairs]
        for batch in batch_by_length(prompts, lambda prompt: prompt.ids, self._limit):
            for prompt, log_odds in zip(batch, self._labels.read([prompt.ids for prompt in batch]), strict=True):
                self._answers[prompt.pair] = _Answer(prompt.text, log_odds)

    def _join(self, question: Question) -> Judgment:
        query, choices = question.query, (question.choice1, question.choice2)
        query_first = [self._answers[query, choice] for choice in choices]
        choice_first = [self._answers[choice, query] for choice in choices]
        first, second = (
            (one.log_odds + other.log_odds) / 2 for one, other in zip(query_first, choice_first, strict=True)
        )
        return judgment_from_probabilities(
            question.triplet,
            sigmoid(query_first[0].log_odds - query_first[1].log_odds),
            # Probability of label 1 with the choices swapped, that is, of choice 2.
            sigmoid(choice_first[1].log_odds - choice_first[0].log_odds),
            prepared="\n".join(answer.text for answer in query_first),
            content=f"same {self.perspective} by log-odds: {first:+.3f} for Choice 1, {second:+.3f} for Choice 2",
        )

    def _prepare(self, pair: tuple[str, str]) -> _PairPrompt:
        def tokenize(text: str) -> list[int]:
            # The template already contains the special tokens.
            return list(self.llm.tokenizer(text + self.answer_begin, add_special_tokens=False)["input_ids"])

        return _PairPrompt(pair, *fit_texts(self.llm, pair, self._render, tokenize))

    def _render(self, texts: Sequence[str]) -> str:
        first, second = (make_harmless(text, self._markers) for text in texts)
        # The constant part is first, so that it is computed once; the question is last, where small
        # LLMs follow it best.
        message = (
            f"Compare two texts in terms of {self.perspective}.\nText 1: {first}\nText 2: {second}\n\n"
            f"Do both texts share the same {self.perspective}? Please respond with 'Yes' or 'No' without explanation."
        )
        # A trailing space would change the tokenization of the answer.
        return render_chat(self.llm.tokenizer, message).rstrip(" ")


@dataclass(frozen=True)
class _PairPrompt:
    """The prompt for an ordered pair of texts."""

    pair: tuple[str, str]
    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class _Answer:
    """The prompt for an ordered pair and the log-odds that both texts share the perspective."""

    text: str
    log_odds: float


def _count_chars(question: Question) -> int:
    return len(question.query) + max(len(question.choice1), len(question.choice2))
