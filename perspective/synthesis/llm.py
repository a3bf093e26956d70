"""LLMs that write data: a local one by batched generation, or one on OpenAI-compatible servers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perspective.errors import DataError
from perspective.llm.batching import batch_by_length, choose_limit
from perspective.llm.chat import (
    MAX_PROMPT_TOKENS,
    fit_texts,
    follows_instructions,
    list_special_tokens,
    render_chat,
    tokenize_beginning,
    tokenize_continuations,
)
from perspective.llm.loading import LLM, load_llm
from perspective.llm.packing import takes_packs
from perspective.llm.replies import ReplyLog
from perspective.llm.server.asking import CONTROL_TOKEN, ServerAsker
from perspective.llm.server.settings import ServerSettings
from perspective.llm.writing import AnswerWriter
from perspective.models.registry import describe_model
from perspective.options import LLMOptions
from perspective.synthesis.forms import response_format
from perspective.synthesis.questions import Prompter, WritingRequest
from perspective.synthesis.recipe import Recipe
from perspective.synthesis.settings import WritingSettings, describe_asking

logger = logging.getLogger(__name__)


class LocalWriter:
    """A local causal LM.

    Args:
        llm: Model and tokenizer.
        recipe: Prompts.
        settings: Style and temperature.
    """

    def __init__(self, llm: LLM, recipe: Recipe, settings: WritingSettings) -> None:
        self.is_chat = settings.style == "chat" or (settings.style == "auto" and follows_instructions(llm))
        self.prompter = Prompter(recipe, self.is_chat, list_special_tokens(llm.tokenizer))
        self.facts: dict[str, Any] = {"n_prompts": 0, "n_tokens": 0}
        self._llm = llm
        self._temperature = settings.temperature or 0.0
        self._limit = choose_limit(llm, settings.llm_batch_size)
        self._shares = takes_packs(llm, min(llm.max_tokens, MAX_PROMPT_TOKENS))

    def write_prompt(self, ask: WritingRequest) -> str:
        """Return the prompt; with the number of the question if replies to equal prompts differ."""
        before, rest = self.prompter.split(ask)
        return f"{before}{rest}" + (f"\n#{ask.number}" if self._temperature else "")

    def reply(self, asks: Sequence[WritingRequest]) -> Iterator[tuple[int, str]]:
        """Yield the replies, batch by batch; what the prompts of a type share is read once.

        Raises:
            ModelError: The LLM's context is too short for the prompt.
        """
        groups: dict[tuple[str, int, str], list[int]] = defaultdict(list)
        for place, ask in enumerate(asks):
            stop = "" if self.is_chat else "\n\n" if ask.asks_tasks else "\n"
            groups[self.prompter.split(ask)[0], self._count_new(ask), stop].append(place)
        for (before, n_new, stop), places in groups.items():
            head = tokenize_beginning(self._llm.tokenizer, before) if before else []
            rows = {place: self._fit(asks[place], len(head), n_new) for place in places}
            writer = AnswerWriter(self._llm, n_new, self.facts, self._temperature, stop)
            if head and self._shares:
                writer.begin(head)
            for batch in batch_by_length(places, rows.__getitem__, self._limit):
                seeds = [_seed(self.write_prompt(asks[place])) for place in batch]
                written = writer.write([[*head, *rows[place]] for place in batch], seeds)
                replies = self._llm.tokenizer.batch_decode(written, skip_special_tokens=True)
                yield from zip(batch, replies, strict=True)

    def _count_new(self, ask: WritingRequest) -> int:
        longest = ask.max_new_tokens
        if not self.is_chat and not ask.asks_tasks:  # twice an example: what is longer repeats itself
            replies = [json.dumps(shot.reply) for shot in self.prompter.recipe.types[ask.kind].shots]
            longest = min(longest, 2 * max(len(self._llm.tokenizer(reply)["input_ids"]) for reply in replies))
        return min(longest, self._llm.max_tokens // 2)

    def _fit(self, ask: WritingRequest, n_before: int, n_new: int) -> tuple[int, ...]:
        tokenizer = self._llm.tokenizer

        def write(texts: Sequence[str]) -> str:
            shown = self.prompter.shorten(ask, texts[0]) if texts[0] else ask
            rest = self.prompter.split(shown)[1]
            return render_chat(tokenizer, rest) if self.is_chat else rest

        def tokenize(prompt: str) -> list[int]:
            if n_before:
                return tokenize_continuations(tokenizer, [prompt])[0]
            return list(tokenizer(prompt, add_special_tokens=not self.is_chat)["input_ids"])

        text = ask.values[self.prompter.long_value(ask)] if ask.values else ""
        return fit_texts(self._llm, [text], write, tokenize, n_new + n_before)[1]


class ServerWriter:
    """A model on OpenAI-compatible chat servers, which may enforce the form of the replies.

    Args:
        server: Addresses and request settings.
        model: Name of the model on the servers.
        recipe: Prompts.
        temperature: Of sampling.
    """

    is_chat = True

    def __init__(self, server: ServerSettings, model: str, recipe: Recipe, temperature: float) -> None:
        self._ask = (server, model)
        self._temperature = temperature
        self.prompter = Prompter(recipe, self.is_chat)
        self.facts = ServerAsker(server, model, logprobs=False).facts  # a missing key shows before anything is read

    def write_prompt(self, ask: WritingRequest) -> str:
        """Return the prompt; with the number of the question if replies to equal prompts differ."""
        return self._write(ask) + (f"\n#{ask.number}" if self._temperature else "")

    def reply(self, asks: Sequence[WritingRequest]) -> Iterator[tuple[int, str]]:
        """Yield the replies in the order of completion.

        Raises:
            JudgeError: As `ServerAsker.ask`.
        """
        groups: dict[tuple[Any, bool], list[int]] = defaultdict(list)
        for place, ask in enumerate(asks):
            groups[ask.kind, ask.asks_tasks].append(place)
        for (kind, asks_tasks), places in groups.items():
            options: dict[str, Any] = {"max_tokens": asks[places[0]].max_new_tokens, "temperature": self._temperature}
            if not asks_tasks:
                options["response_format"] = response_format(kind)
            asker = ServerAsker(*self._ask, logprobs=False, options=options)
            asker.facts = self.facts  # one budget for all types
            answers = asker.ask([self._write(asks[place])] for place in places)
            with contextlib.closing(answers):
                for place, _, replies, failure in answers:
                    if failure is None:
                        yield places[place], replies[0].content

    def _write(self, ask: WritingRequest) -> str:
        text = "\n".join(ask.values.values())
        prompter = Prompter(self.prompter.recipe, self.is_chat, tuple(sorted(set(CONTROL_TOKEN.findall(text)))))
        return prompter.split(ask)[1]


Writer = LocalWriter | ServerWriter


def load_writer(llm: LLMOptions, server: ServerSettings, settings: WritingSettings, recipe: Recipe) -> Writer:
    """Return the LLM of the settings: on a server if there is an address, otherwise a local one."""
    if server.base_url:
        if settings.style == "shots":
            raise DataError("--style shots: servers take chat only; leave it out")
        return ServerWriter(server, llm.llm, recipe, settings.temperature or 0.0)
    writer = LocalWriter(load_llm(llm.llm, **llm.loading()), recipe, settings)
    writer.facts |= describe_model(llm.llm)
    return writer


def ask_all(
    questions: Sequence[WritingRequest],
    log: Path,
    recipe: Recipe,
    llm: LLMOptions,
    server: ServerSettings,
    settings: WritingSettings,
    purpose: str,
) -> tuple[list[str | None], Prompter, dict[str, Any]]:
    """Ask what the log does not hold.

    Args:
        questions: All questions.
        log: Log of replies.
        recipe: Prompts.
        llm: The LLM.
        server: The server, if there is one.
        settings: Style and temperature.
        purpose: Shown with the progress.

    Returns:
        The replies in order, None for questions that stay open; the prompter; and counts, "n_open" among them.
    """
    writer = load_writer(llm, server, settings, recipe)
    n_prompts = len(questions)
    known = ReplyLog(log, describe_asking(llm, server, settings), writer.facts, purpose)
    replies = known.ask(writer, questions)
    n_open = replies.count(None)
    if n_open:
        logger.warning("%d of %d questions are open; the same command asks only these", n_open, n_prompts)
    return replies, writer.prompter, {**writer.facts, "n_open": n_open}


def _seed(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "replace")).digest()[:8], "big")
