"""Questions as a local LLM reads them: its chat template, its tokens, its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perspective.errors import ModelError
from perspective.judging.protocol import ANSWER_FORM, Question, write_question
from perspective.models.registry import LLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_NEW_TOKENS = 20  # of a generated answer, as published
MAX_PROMPT_TOKENS = 2048


@dataclass(frozen=True)
class Prompt:
    """A question as the model reads it.

    Attributes:
        row: The question's place.
        swapped: Whether the choices stand in the other order than in the file.
        text: The whole prompt.
        ids: Its tokens.
    """

    row: int
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
    markers = special_tokens(llm.tokenizer)

    def write(texts: Sequence[str]) -> str:
        words = write_question(Question(question.row, *texts), instruction, markers)
        return render(words.removesuffix(ANSWER_FORM) + answer_form)

    texts = (question.query, question.choice1, question.choice2)
    text, ids = fit_texts(llm, texts, write, tokenize, n_new_tokens)
    return Prompt(question.row, swapped, text, ids)


def fit_texts(
    llm: LLM,
    texts: Sequence[str],
    write: Callable[[Sequence[str]], str],
    tokenize: Callable[[str], Sequence[int]],
    n_new_tokens: int = MAX_NEW_TOKENS,
) -> tuple[str, tuple[int, ...]]:
    """Cut the ends of texts until the prompt that holds them fits the model.

    Args:
        llm: Whose context counts.
        texts: What may be cut.
        write: Makes the whole prompt from the texts.
        tokenize: Turns the prompt into tokens.
        n_new_tokens: Room to leave for what follows the prompt.

    Returns:
        The prompt and its tokens.

    Raises:
        ModelError: The context cannot hold even the bare question.
    """
    limit = min(llm.max_tokens, MAX_PROMPT_TOKENS) - n_new_tokens
    max_chars = max(map(len, texts))
    while True:
        prompt = write([text[:max_chars] for text in texts])
        ids = tokenize(prompt)
        if len(ids) <= limit:
            return prompt, tuple(ids)
        if max_chars <= 1:
            raise ModelError(f"{llm.name}: its context of {llm.max_tokens} tokens cannot hold the question")
        max_chars = max(1, int(max_chars * 0.8))


def render_chat(tokenizer: PreTrainedTokenizerBase, user: str, assistant: str | None = None) -> str:
    """Put a question into the model's own chat template; a plain form where it has none.

    Args:
        tokenizer: With or without a chat template.
        user: The question.
        assistant: An answer to append as finished; None leaves the answer open.
    """
    if not tokenizer.chat_template:
        return f"{tokenizer.bos_token or ''}{user}\nAnswer: {assistant or ''}"
    messages = [{"role": "user", "content": user}]
    if assistant is not None:
        messages.append({"role": "assistant", "content": assistant})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=assistant is None))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the tokens that a text must not be able to write, longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True))
