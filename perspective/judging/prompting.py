"""Questions as a local LLM reads them: its chat template, its tokens, its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perspective.artifacts import Triplet
from perspective.judging.protocol import ANSWER_FORM, Question, write_question
from perspective.llm.chat import MAX_NEW_TOKENS, fit_texts, list_special_tokens
from perspective.llm.loading import LLM


@dataclass(frozen=True)
class Prompt:
    """A question as the model reads it.

    Attributes:
        triplet: What is asked.
        swapped: Whether the choices stand in the other order than in the file.
        text: The whole prompt.
        ids: Its tokens.
    """

    triplet: Triplet
    swapped: bool
    text: str
    ids: tuple[int, ...]


def fit_question(
    llm: LLM,
    question: Question,
    instruction: str,
    swapped: bool,
    render: Callable[[str], str],
    tokenize: Callable[[str], Sequence[int]],
    answer_form: str = ANSWER_FORM,
    n_new_tokens: int = MAX_NEW_TOKENS,
) -> Prompt:
    """Word a question so that it fits the model: texts lose their ends, the question nothing.

    Args:
        llm: Whose context and special tokens count.
        question: In the order in which it is asked.
        instruction: The data set's perspective.
        swapped: Recorded in the prompt.
        render: Puts the user's words into the model's template.
        tokenize: Turns the rendered prompt into tokens.
        answer_form: The sentence that says how to answer.
        n_new_tokens: Room to leave for what follows the prompt.

    Raises:
        ModelError: The context cannot hold even the bare question.
    """
    markers = list_special_tokens(llm.tokenizer)

    def write(texts: Sequence[str]) -> str:
        words = write_question(Question(question.triplet, *texts), instruction, markers)
        return render(words.removesuffix(ANSWER_FORM) + answer_form)

    texts = (question.query, question.choice1, question.choice2)
    text, ids = fit_texts(llm, texts, write, tokenize, n_new_tokens)
    return Prompt(question.triplet, swapped, text, ids)
