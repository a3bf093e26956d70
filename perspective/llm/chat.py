"""Prompts for chat models: chat template, special tokens, context length."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from perspective.errors import ModelError
from perspective.llm.loading import LLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 20  # for a generated answer, as published
MAX_PROMPT_TOKENS = 2048
CHAT_PARAMETERS = 10**9  # LLMs with fewer follow an instruction less reliably than they continue examples


def fit_texts(
    llm: LLM,
    texts: Sequence[str],
    write: Callable[[Sequence[str]], str],
    tokenize: Callable[[str], Sequence[int]],
    n_new_tokens: int = MAX_NEW_TOKENS,
) -> tuple[str, tuple[int, ...]]:
    """Truncate texts until the prompt fits the model's context.

    Args:
        llm: The model that reads the prompt.
        texts: The texts to truncate.
        write: Builds the whole prompt from the texts.
        tokenize: Converts the prompt to token ids.
        n_new_tokens: Tokens to reserve after the prompt.

    Returns:
        The prompt and its token ids.

    Raises:
        ModelError: The context is too short even for the question without texts.
    """
    limit = min(llm.max_tokens, MAX_PROMPT_TOKENS) - n_new_tokens
    max_chars = max(map(len, texts))
    while True:
        prompt = write([text[:max_chars] for text in texts])
        ids = tokenize(prompt)
        if len(ids) <= limit:
            if max_chars < max(map(len, texts)):
                _warn_of_cut(llm.name, limit)
            return prompt, tuple(ids)
        if max_chars <= 1:
            raise ModelError(f"{llm.name}: its context of {llm.max_tokens} tokens cannot hold the question")
        max_chars = max(1, int(max_chars * 0.8))


@cache
def _warn_of_cut(name: str, limit: int) -> None:
    logger.warning("%s: prompts of more than %d tokens are cut; the ends of their texts are not read", name, limit)


def follows_instructions(llm: LLM) -> bool:
    """Return whether a model is better asked than given examples to continue: a chat model, and a large one."""
    return bool(llm.tokenizer.chat_template) and llm.model.num_parameters() >= CHAT_PARAMETERS


# Templates that write today's date into the prompt would make answers depend on the day.
FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"


def render_chat(tokenizer: PreTrainedTokenizerBase, user: str, assistant: str | None = None) -> str:
    """Apply the model's chat template to a question, or a plain format if it has none.

    Args:
        tokenizer: With or without a chat template.
        user: The question.
        assistant: A complete answer to append; None ends the prompt where the answer begins.
    """
    if not tokenizer.chat_template:
        return f"{tokenizer.bos_token or ''}{user}\nAnswer: {assistant or ''}"
    messages = [{"role": "user", "content": user}]
    if assistant is not None:
        messages.append({"role": "assistant", "content": assistant})
    template = tokenizer.chat_template
    if isinstance(template, str) and "strftime_now" in template:
        template = FIXED_DATE + template
    options = {"chat_template": template} if isinstance(template, str) else {}
    prompt = str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=assistant is None, enable_thinking=False, **options
        )
    )
    # Answers are short, so models that think first would be cut off; some templates begin a thought in any case.
    return f"{prompt.rstrip()}\n\n</think>\n\n" if prompt.rstrip().endswith("<think>") else prompt


def tokenize_beginning(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of the beginning of a prompt: with special tokens put first (BOS), without those put last."""
    with_special = tokenizer(text)["input_ids"]
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = next((i for i in range(len(with_special)) if with_special[i : i + len(plain)] == plain), 0)
    return list(with_special[: start + len(plain)])


def tokenize_continuations(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of texts as they are after the beginning of a prompt.

    SentencePiece puts a space before everything that it tokenizes, which would stand in the middle of the prompt here:
    such tokenizers get a sign before each text, whose tokens are taken away again.
    """
    sign = tokenizer(":", add_special_tokens=False)["input_ids"]
    adds_space = tokenizer.convert_ids_to_tokens(sign)[0].startswith("\u2581")
    written = [f":{text}" for text in texts] if adds_space else list(texts)
    rows = tokenizer(written, add_special_tokens=False)["input_ids"]
    return [row[len(sign) :] for row in rows] if adds_space else rows


def list_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the special tokens, which must not occur in texts, longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True))


MAX_TEXT_CHARS = 4000  # far more than a judge needs; limits the time to tokenize
# Markers of common chat templates. The tokenizer's own special tokens are passed separately.
_MARKERS = re.compile(
    r"<\|[^<>|]{1,40}\|>|</?s>|<</?SYS>>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^<>｜]{1,40}｜>", re.IGNORECASE
)

_WHITESPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def make_harmless(text: str, markers: Iterable[str] = (), max_chars: int = MAX_TEXT_CHARS) -> str:
    r"""Sanitise a text for a prompt: one line, no control characters, no active chat markers.

    A line break could start a false `Choice 2:` line, and a chat marker could end the user's turn.
    A space after the first character of a marker prevents tokenizers from reading it as a special
    token. Long texts are truncated.

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
