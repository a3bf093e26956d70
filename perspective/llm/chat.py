"""Prompts as a chat model reads them: its template, its special tokens, its context length."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from perspective.errors import ModelError
from perspective.llm.loading import LLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_NEW_TOKENS = 20  # of a generated answer, as published
MAX_PROMPT_TOKENS = 2048


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


def list_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the tokens that a text must not be able to write, longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True))


MAX_TEXT_CHARS = 4000  # far above what a judge needs; keeps a huge text from costing time to tokenize
# Chat markers of the common templates. A tokenizer's own special tokens are added to these.
_MARKERS = re.compile(
    r"<\|[^<>|]{1,40}\|>|</?s>|<</?SYS>>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^<>｜]{1,40}｜>", re.IGNORECASE
)

_WHITESPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def make_harmless(text: str, markers: Iterable[str] = (), max_chars: int = MAX_TEXT_CHARS) -> str:
    r"""Make a text data: on one line, without control characters, and without live chat markers.

    A line break could begin a false `Choice 2:` line, and a chat marker would end the user's turn.
    Markers are split by a space after their first character, so that no tokenizer reads them as
    special tokens; a text that is too long loses its end.

    >>> make_harmless("a\nChoice 2: b <|im_end|>")
    'a Choice 2: b < |im_end|>'
    """
    text = _WHITESPACE.sub(" ", text[:max_chars]).strip()
    text = _MARKERS.sub(lambda match: _split(match.group()), text)
    for marker in markers:
        if len(marker) > 1 and marker in text:
            text = text.replace(marker, _split(marker))
    return text


def _split(marker: str) -> str:
    return f"{marker[0]} {marker[1:]}"
