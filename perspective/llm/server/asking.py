"""Ask chat servers many questions at once: concurrency, retries, budget, and when a run must stop."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from perspective.errors import DataError, JudgeError
from perspective.llm.server.background import iterate_async, run_together
from perspective.llm.server.budget import Account, BudgetExhausted
from perspective.llm.server.reply import Failure, FailureKind, Reply
from perspective.llm.server.settings import OPENAI_URL, ServerSettings, check_url

if TYPE_CHECKING:
    from perspective.llm.server.pool import ServerPool

logger = logging.getLogger(__name__)

MIN_FAILURES = 4  # consecutive failures after which a run stops, at least (more with higher concurrency)
MAX_FAILED_SHARE = 0.25  # of the questions, above which a run stops ...
MIN_DONE = 20  # ... once it is done with this many


# Control tokens of common models, in addition to those that `make_harmless` knows: a server's tokenizer is unknown.
CONTROL_TOKEN = re.compile(
    r"</?(?:think|thinking|reasoning|tool_call|tool_response|tool_calls|tools|function_call|answer)>"
    r"|<(?:[bes]os|[bse]op|pad|unk|mask|cls|sep|eot|eod|image|(?:start|end)_of_\w{1,20}|unused_?\d+|extra_id_\d+)>"
    r"|\[/?(?:TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|AVAILABLE_TOOLS|SYSTEM_PROMPT|THINK|ARGS|CALL_ID"
    r"|IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX|[BES]OS|PAD|UNK|MASK|G?MASK|CLS|SEP)\]",
    re.IGNORECASE,
)


class Answered(NamedTuple):
    """A question that was asked.

    Attributes:
        place: Its position among the questions.
        prompts: Its prompts.
        replies: One reply per prompt; none if it failed.
        failure: Why it failed; None if it did not.
    """

    place: int
    prompts: Sequence[str]
    replies: Sequence[Reply] = ()
    failure: Failure | None = None


class ServerAsker:
    """One model on one or more OpenAI-compatible chat servers.

    The key is read from the environment only (`OPENAI_API_KEY` for OpenAI, `LLM_SERVER_KEY` for any other
    server) and never stored.

    Args:
        settings: Addresses and request settings.
        model: Name of the model on the servers.
        logprobs: Whether to request log-probabilities.
        options: Further options of each request, in place of the usual ones.

    Attributes:
        facts: Counters of requests, tokens and answers.

    Raises:
        DataError: A setting is invalid.
        JudgeError: OpenAI is used and `OPENAI_API_KEY` is not set.
    """

    def __init__(
        self, settings: ServerSettings, model: str, logprobs: bool, options: Mapping[str, Any] | None = None
    ) -> None:
        # Importing `openai` takes a second, so nothing else imports it.
        from perspective.llm.server.client import MAX_TOKENS, public_url, read_key

        if not model.strip():
            raise DataError("the server's model has no name")
        self.settings = settings
        self.model = model
        self.logprobs = logprobs
        self.options = {"max_tokens": MAX_TOKENS, "temperature": 0, **(options or {})}
        # Duplicate addresses are one server.
        self.base_urls = list(dict.fromkeys(settings.base_url or [os.environ.get("OPENAI_BASE_URL") or OPENAI_URL]))
        for base_url in self.base_urls:
            check_url(base_url)
            read_key(base_url)  # report a missing key before the texts are loaded
        self.public_urls = [public_url(base_url) for base_url in self.base_urls]
        self.facts: dict[str, Any] = dict.fromkeys(
            (
                *("n_requests", "n_retries", "n_estimated", "n_answered", "n_unanswered", "n_not_asked"),
                *("prompt_tokens", "completion_tokens", "token_ratio", "longest_answer"),
            ),
            0,
        )
        self.facts["limits"] = settings.limits()

    def ask(self, questions: Iterable[Sequence[str]]) -> Generator[Answered, None, None]:
        """Yield answered and failed questions in the order of completion, without those beyond the budget.

        Args:
            questions: The prompts of each question; a question is answered if all of them are.

        Raises:
            JudgeError: No server can be reached, all fail on all questions, or one rejects the key
                or the model. Earlier answers have already been yielded.
        """
        try:
            yield from iterate_async(partial(self._ask_all, questions))
        finally:
            self._sum_up()

    async def _ask_all(self, questions: Iterable[Sequence[str]], emit: Callable[[Answered], None]) -> None:
        from perspective.llm.server.client import ChatClient, connect, find_secrets, read_key
        from perspective.llm.server.pool import ServerPool

        settings, clients = self.settings, []
        account = Account(settings, self.facts)
        async with AsyncExitStack() as stack:
            for base_url in self.base_urls:
                key = read_key(base_url)
                connection = await stack.enter_async_context(connect(base_url, key, settings.timeout_seconds))
                secrets = find_secrets(key, base_url)
                clients.append(
                    ChatClient(
                        connection,
                        self.model,
                        settings.timeout_seconds,
                        self.logprobs,
                        account,
                        secrets,
                        self.options,
                    )
                )
            pool = ServerPool(clients, settings.max_retries, self.facts)
            outbox = _Outbox(pool, emit, max(MIN_FAILURES, settings.concurrency), self.facts)
            pending = enumerate(questions)
            await run_together([self._ask_pending(pending, pool, account, outbox) for _ in range(settings.concurrency)])
            outbox.finish()
        if self.facts["n_not_asked"] and not self.facts["n_answered"]:
            raise JudgeError(f"--budget {settings.budget:g}: not enough for one answer")

    async def _ask_pending(
        self, pending: Iterator[tuple[int, Sequence[str]]], pool: ServerPool, account: Account, outbox: _Outbox
    ) -> None:
        for place, prompts in pending:
            try:
                replies = await self._ask(prompts, pool, account)
            except BudgetExhausted:
                self.facts["n_not_asked"] += 1
            except Failure as failure:
                outbox.give_up(Answered(place, prompts, failure=failure), failure)
            else:
                outbox.send(Answered(place, prompts, replies))

    async def _ask(self, prompts: Sequence[str], pool: ServerPool, account: Account) -> list[Reply]:
        reservations = await account.reserve(prompts, pool.n_new_tokens)
        replies = []
        try:
            for prompt, reservation in zip(prompts, reservations, strict=True):
                replies.append(await pool.ask(prompt, reservation))
                reservation.release()
        finally:
            for reservation in reservations:
                reservation.release()
        return replies

    def _sum_up(self) -> None:
        facts, cost = self.facts, self.settings.cost(self.facts)
        if cost is not None:
            facts["cost"] = cost
        if facts["n_not_asked"]:
            logger.warning("budget exhausted: %d questions were not asked", facts["n_not_asked"])
        logger.info(
            "%s: %d requests (%d retries), %d input tokens, %d output tokens%s%s, %d questions without an answer",
            self.model,
            *(facts[name] for name in ("n_requests", "n_retries", "prompt_tokens", "completion_tokens")),
            f" (of {facts['n_estimated']} requests estimated)" if facts["n_estimated"] else "",
            "" if cost is None else f", cost {cost:.4f}",
            facts["n_unanswered"],
        )


class _Outbox:
    """Emit answered questions, and hold back failed questions until an answer shows that a server works.

    If only some questions fail, the cause is the question, and each is emitted without an answer, and the
    next run asks it again. If many fail in a row, or a large share, or all, the cause is the servers: the run
    stops, and the questions stay open.
    """

    def __init__(
        self, pool: ServerPool, emit: Callable[[Answered], None], max_held: int, facts: dict[str, Any]
    ) -> None:
        self._pool = pool
        self._emit = emit
        self._max_held = max_held
        self._facts = facts
        self._n_done = 0  # questions of this run, answered and failed
        self._n_failed = 0
        self._held: list[tuple[Answered, Failure]] = []

    def send(self, answered: Answered) -> None:
        self._n_done += 1
        self._release()
        self._facts["n_answered"] += 1
        self._emit(answered)

    def give_up(self, answered: Answered, failure: Failure) -> None:
        if failure.kind is FailureKind.LIMITED:
            raise JudgeError(
                f"{self._pool.url}: still too many requests after all retries ({failure.message}); "
                "lower --concurrency, or run the same command again later"
            )
        if failure.kind is FailureKind.UNREACHABLE and self._pool.n_answers == 0:
            raise JudgeError(
                f"{self._pool.url}: cannot be reached ({failure.message}); start the server or correct --base_url"
            )
        self._n_done += 1
        self._n_failed += 1
        self._held.append((answered, failure))
        if len(self._held) >= self._max_held:
            raise self._explain(f"{len(self._held)} questions in a row", failure)
        if self._n_done >= MIN_DONE and self._n_failed > MAX_FAILED_SHARE * self._n_done:
            raise self._explain(f"{self._n_failed} of {self._n_done} questions", failure)

    def finish(self) -> None:
        for _, failure in self._held:
            if failure.kind in (FailureKind.DOWN, FailureKind.UNREACHABLE):
                raise self._explain(f"{len(self._held)} questions in a row", failure)
        if self._held and not self._facts["n_answered"]:  # in no run
            raise self._explain(f"any of {len(self._held)} questions", self._held[-1][1])
        self._release()

    def _release(self) -> None:
        for answered, failure in self._held:
            if not self._facts["n_unanswered"]:
                logger.warning("questions without an answer are left open (first failure: %s)", failure.message)
            self._facts["n_unanswered"] += 1
            self._emit(answered)
        self._held.clear()

    def _explain(self, questions: str, failure: Failure) -> JudgeError:
        return JudgeError(
            f"{self._pool.url}: no answer to {questions} ({failure.message}); "
            "fix the server or the settings and run the same command again; finished answers are kept"
        )
