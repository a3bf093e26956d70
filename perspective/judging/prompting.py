"""Turn questions into prompts that fit a local LLM: chat template, tokens, context length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perspective.artifacts import Triplet
from perspective.judging.protocol import ANSWER_FORM, Question, write_question
from perspective.llm.chat import MAX_NEW_TOKENS, fit_texts, list_special_tokens
from perspective.llm.loading import LLM


@dataclass(frozen=True)
class Prompt:
    """A question as model input.

    Attributes:
        triplet: The triplet in question.
        swapped: Whether the choices are swapped compared with the file.
        text: The whole prompt.
        ids: Its token ids.
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
    """Build a prompt that fits the model's context, truncating the texts but never the question.

    Args:
        llm: The model that reads the prompt.
        question: The question, with the choices in the order to ask.
        instruction: The sentence that states the data set's perspective.
        swapped: Recorded in the prompt.
        render: Inserts the user message into the model's template.
        tokenize: Converts the rendered prompt to token ids.
        answer_form: The sentence that specifies the form of the answer.
        n_new_tokens: Tokens to reserve after the prompt.

    Raises:
        ModelError: The context is too short even for the question without texts.
    """
    markers = list_special_tokens(llm.tokenizer)

    def write(texts: Sequence[str]) -> str:
        message = write_question(Question(question.triplet, *texts), instruction, markers)
        return render(message.removesuffix(ANSWER_FORM) + answer_form)

    texts = (question.query, question.choice1, question.choice2)
    text, ids = fit_texts(llm, texts, write, tokenize, n_new_tokens)
    return Prompt(question.triplet, swapped, text, ids)
