"""LLMs that name clusters, local or on a server."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from perspective.errors import ModelError
from perspective.llm.batching import batch_by_length, choose_limit
from perspective.llm.chat import (
    MAX_PROMPT_TOKENS,
    follows_instructions,
    list_special_tokens,
    render_chat,
    tokenize_beginning,
    tokenize_continuations,
)
from perspective.llm.loading import LLM
from perspective.llm.packing import takes_packs
from perspective.llm.replies import Replier
from perspective.llm.server.asking import CONTROL_TOKEN, ServerAsker
from perspective.llm.server.settings import ServerSettings
from perspective.llm.writing import AnswerWriter
from perspective.naming.prompts import (
    CHAT_TOKENS,
    MAX_EXAMPLES,
    NAME_TOKENS,
    RESPONSE_FORMAT,
    SENTENCE_TOKENS,
    Ask,
    shorten_texts,
    write_completion,
    write_question,
)


class NamingLLM(Replier[Ask], Protocol):
    """An LLM that is asked for names.

    Attributes:
        is_chat: Whether it answers a question with name and sentence; otherwise it continues examples, with one
            of both at a time.
        identity: What decides its replies, apart from the prompt.
    """

    is_chat: bool
    identity: dict[str, Any]


class LocalNamer:
    """A local causal LM: chat models of 10^9 parameters and more get a question, others examples to continue.

    Args:
        llm: Model and tokenizer.
        perspective: What texts of one cluster should share.
        batch_size: Prompts per batch; chosen by the device when None.
    """

    def __init__(self, llm: LLM, perspective: str, batch_size: int | None = None) -> None:
        self.is_chat = follows_instructions(llm)
        self.identity: dict[str, Any] = {"is_chat": self.is_chat}
        self.facts: dict[str, Any] = {"n_prompts": 0, "n_tokens": 0}
        self._llm = llm
        self._perspective = perspective
        self._markers = list_special_tokens(llm.tokenizer)
        self._limit = choose_limit(llm, batch_size)
        self._max_tokens = min(llm.max_tokens, MAX_PROMPT_TOKENS)
        self._n_examples = MAX_EXAMPLES
        while self._n_examples > 1 and self._count_example_tokens() > self._max_tokens // 2:
            self._n_examples -= 1
        self._shares = takes_packs(llm, self._max_tokens)  # such models also continue after a shared beginning

    def write_prompt(self, ask: Ask) -> str:
        """Return the prompt of what is asked."""
        return "".join(self._split_prompt(ask))

    def reply(self, asks: Sequence[Ask]) -> Iterator[tuple[int, str]]:
        """Yield the replies, batch by batch; the examples that prompts share are read once.

        Raises:
            ModelError: The LLM's context is too short for the prompt.
        """
        by_beginning: dict[tuple[str, int], list[int]] = defaultdict(list)
        for place, ask in enumerate(asks):
            by_beginning[self._split_prompt(ask)[0], self._count_new(ask)].append(place)
        for (before, n_new), places in by_beginning.items():
            head = tokenize_beginning(self._llm.tokenizer, before) if before else []
            rows = {place: self._fit(asks[place], head, n_new) for place in places}
            writer = AnswerWriter(self._llm, n_new, self.facts)
            if head and self._shares:
                writer.begin(head)
            for batch in batch_by_length(places, rows.__getitem__, self._limit):
                written = writer.write([[*head, *rows[place]] for place in batch])
                replies = self._llm.tokenizer.batch_decode(written, skip_special_tokens=True)
                yield from zip(batch, replies, strict=True)

    def _split_prompt(self, ask: Ask) -> tuple[str, str]:
        if self.is_chat:
            return "", render_chat(self._llm.tokenizer, write_question(ask, self._perspective, self._markers))
        return write_completion(ask, self._perspective, self._markers, self._n_examples)

    def _count_example_tokens(self) -> int:
        examples, _ = self._split_prompt(Ask(("a", "b")))
        return 0 if self.is_chat else len(self._llm.tokenizer(examples)["input_ids"])

    def _count_new(self, ask: Ask) -> int:
        return CHAT_TOKENS if self.is_chat else SENTENCE_TOKENS if ask.name else NAME_TOKENS

    def _fit(self, ask: Ask, head: Sequence[int], n_new: int) -> list[int]:
        room = self._max_tokens - n_new - len(head)

        def tokenize(texts: Sequence[str]) -> list[int]:
            n_own = len(ask.texts)
            shorter = Ask(tuple(texts[:n_own]), ask.keywords, tuple(texts[n_own:]), ask.other_name, ask.name)
            rest = self._split_prompt(shorter)[1]
            if head:
                return tokenize_continuations(self._llm.tokenizer, [rest])[0]
            return list(self._llm.tokenizer(rest, add_special_tokens=False)["input_ids"])

        ids = tokenize(shorten_texts(tokenize, (*ask.texts, *ask.contrasts), room))
        if len(ids) > room:
            raise ModelError(
                f"{self._llm.name}: its context of {self._llm.max_tokens} tokens is too short for the prompt"
            )
        return ids


class ServerNamer:
    """A model on OpenAI-compatible chat servers.

    Args:
        settings: Addresses and request settings.
        model: Name of the model on the servers.
        perspective: What texts of one cluster should share.
    """

    is_chat = True

    def __init__(self, settings: ServerSettings, model: str, perspective: str) -> None:
        options = {"max_tokens": CHAT_TOKENS, "response_format": RESPONSE_FORMAT}
        self._asker = ServerAsker(settings, model, logprobs=False, options=options)
        self._perspective = perspective
        self.identity: dict[str, Any] = {"is_chat": True}
        self.facts = self._asker.facts

    def write_prompt(self, ask: Ask) -> str:
        """Return the prompt of what is asked."""
        texts = (*ask.texts, *ask.contrasts, *ask.keywords, ask.other_name)
        markers = sorted({match for text in texts for match in CONTROL_TOKEN.findall(text)})
        return write_question(ask, self._perspective, markers)

    def reply(self, asks: Sequence[Ask]) -> Iterator[tuple[int, str]]:
        """Yield the replies in the order of completion.

        Raises:
            JudgeError: As `ServerAsker.ask`.
        """
        answers = self._asker.ask([self.write_prompt(ask)] for ask in asks)
        with contextlib.closing(answers):
            for place, _, replies, failure in answers:
                if failure is None:
                    yield place, replies[0].content
