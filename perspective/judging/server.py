"""Judge by one or more OpenAI-compatible chat servers: vLLM, llama.cpp, Ollama, OpenAI."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from perspective.artifacts import LABELS, Judgment, Triplet
from perspective.errors import DataError, JudgeError
from perspective.judging.label_reply import read_probability
from perspective.judging.protocol import (
    ANSWER_FORM,
    NO_ANSWER,
    Question,
    judgment_from_answers,
    judgment_from_probabilities,
    write_question,
)
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
_CONTROL_TOKEN = re.compile(
    r"</?(?:think|thinking|reasoning|tool_call|tool_response|tool_calls|tools|function_call|answer)>"
    r"|<(?:[bes]os|[bse]op|pad|unk|mask|cls|sep|eot|eod|image|(?:start|end)_of_\w{1,20}|unused_?\d+|extra_id_\d+)>"
    r"|\[/?(?:TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|AVAILABLE_TOOLS|SYSTEM_PROMPT|THINK|ARGS|CALL_ID"
    r"|IMG|IMG_BREAK|IMG_END|PREFIX|MIDDLE|SUFFIX|[BES]OS|PAD|UNK|MASK|G?MASK|CLS|SEP)\]",
    re.IGNORECASE,
)


class ServerJudge:
    """Select the choice that a chat server answers, asked in both orders.

    If the server returns log-probabilities, those of the labels are compared at the position of the
    label; otherwise the text is parsed. The key is read from the environment only (`OPENAI_API_KEY` for
    OpenAI, `LLM_SERVER_KEY` for any other server) and never stored.

    Args:
        settings: Addresses and request settings.
        model: Name of the model on the servers.
        instruction: The sentence that states the data set's perspective.
        orders: 2 to ask with the choices in both orders, 1 to ask in the file's order only.
        logprobs: Whether to request log-probabilities.

    Raises:
        DataError: A setting is invalid.
        JudgeError: OpenAI is used and `OPENAI_API_KEY` is not set.
    """

    def __init__(
        self, settings: ServerSettings, model: str, instruction: str, orders: int = 2, logprobs: bool = True
    ) -> None:
        # Importing `openai` takes a second, so other judges do not import it.
        from perspective.llm.server.client import MAX_TOKENS, public_url, read_key

        if not model.strip():
            raise DataError("the server's model has no name")
        if orders not in (1, len(LABELS)):
            raise DataError(f"orders {orders}: choose 1 or 2")
        self.settings = settings
        self.model = model
        self.instruction = instruction
        self.orders = orders
        self.logprobs = logprobs
        # Duplicate addresses are one server.
        self.base_urls = list(dict.fromkeys(settings.base_url or [os.environ.get("OPENAI_BASE_URL") or OPENAI_URL]))
        for base_url in self.base_urls:
            check_url(base_url)
            read_key(base_url)  # report a missing key before the texts are loaded
        self.identity: dict[str, Any] = {
            "kind": "server",
            "base_url": [public_url(base_url) for base_url in self.base_urls],
            "model": model,
            "instruction": instruction,
            "answer_form": ANSWER_FORM,
            "orders": orders,
            "logprobs": logprobs,
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        self.facts: dict[str, Any] = dict.fromkeys(
            (
                *("n_requests", "n_retries", "n_estimated", "n_answered", "n_unanswered", "n_not_asked"),
                *("prompt_tokens", "completion_tokens", "token_ratio", "longest_answer"),
            ),
            0,
        )
        self.facts["limits"] = settings.limits()

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Yield judgments in the order of completion.

        A question that is refused, or answered with an empty reply after all retries, is an
        abstention. Questions beyond the budget get no judgment.

        Raises:
            JudgeError: No server can be reached, all fail on all questions, or one rejects the key
                or the model. Earlier answers have already been yielded.
        """
        try:
            yield from iterate_async(partial(self._ask_all, questions))
        finally:
            self._sum_up()

    async def _ask_all(self, questions: Sequence[Question], emit: Callable[[Judgment], None]) -> None:
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
                    ChatClient(connection, self.model, settings.timeout_seconds, self.logprobs, account, secrets)
                )
            pool = ServerPool(clients, settings.max_retries, self.facts)
            outbox = _Outbox(pool, emit, max(MIN_FAILURES, settings.concurrency), self.facts)
            pending = iter(questions)
            n_workers = min(settings.concurrency, len(questions))
            await run_together([self._ask_pending(pending, pool, account, outbox) for _ in range(n_workers)])
            outbox.finish()
        if self.facts["n_not_asked"] and not self.facts["n_answered"]:
            raise JudgeError(f"--budget {settings.budget:g}: not enough for one answer")

    async def _ask_pending(
        self, pending: Iterator[Question], pool: ServerPool, account: Account, outbox: _Outbox
    ) -> None:
        for question in pending:
            prompts = self._write_prompts(question)
            try:
                replies = await self._ask(prompts, pool, account)
            except BudgetExhausted:
                self.facts["n_not_asked"] += 1
            except Failure as failure:
                outbox.give_up(Judgment(question.triplet, (), prompts[0], f"{NO_ANSWER}{failure.message}"), failure)
            else:
                outbox.send(_join_replies(question.triplet, replies, prompts[0]))

    def _write_prompts(self, question: Question) -> list[str]:
        texts = (question.query, question.choice1, question.choice2)
        markers = sorted({match for text in texts for match in _CONTROL_TOKEN.findall(text)})
        questions = [question, question.swapped()][: self.orders]
        return [write_question(one, self.instruction, markers) for one in questions]

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
    """Emit judgments, and hold back failed questions until an answer shows that a server works.

    If only some questions fail, the cause is the question, and each becomes an abstention that the next
    run asks again. If many fail in a row, or a large share, or all, the cause is the servers: the run
    stops, and the questions stay open.
    """

    def __init__(
        self, pool: ServerPool, emit: Callable[[Judgment], None], max_held: int, facts: dict[str, Any]
    ) -> None:
        self._pool = pool
        self._emit = emit
        self._max_held = max_held
        self._facts = facts
        self._n_done = 0  # questions of this run, answered and failed
        self._n_failed = 0
        self._held: list[tuple[Judgment, Failure]] = []

    def send(self, judgment: Judgment) -> None:
        self._n_done += 1
        self._release()
        self._facts["n_answered"] += 1
        self._emit(judgment)

    def give_up(self, judgment: Judgment, failure: Failure) -> None:
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
        self._held.append((judgment, failure))
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
        for judgment, failure in self._held:
            if not self._facts["n_unanswered"]:
                logger.warning("questions without an answer count as abstentions (first failure: %s)", failure.message)
            self._facts["n_unanswered"] += 1
            self._emit(judgment)
        self._held.clear()

    def _explain(self, questions: str, failure: Failure) -> JudgeError:
        return JudgeError(
            f"{self._pool.url}: no answer to {questions} ({failure.message}); "
            "fix the server or the settings and run the same command again; finished answers are kept"
        )


def _join_replies(triplet: Triplet, replies: Sequence[Reply], prepared: str) -> Judgment:
    first, swapped = replies[0], replies[1] if len(replies) > 1 else None
    probability, other = (None if reply is None else read_probability(reply) for reply in (first, swapped))
    if probability is not None and (swapped is None or other is not None):
        return judgment_from_probabilities(triplet, probability, other, prepared, first.content)
    return judgment_from_answers(triplet, first.content, None if swapped is None else swapped.content, prepared)
