"""Distribute questions over several servers of one model: the least busy working server is asked."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perspective.llm.server.budget import Reservation
from perspective.llm.server.client import ChatClient
from perspective.llm.server.reply import Failure, FailureKind, Reply

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0  # doubled after each failure of a question
MAX_WAIT_SECONDS = 60.0  # also limits the wait that a server requests
MAX_FIRST_RETRIES = 1  # of servers that cannot be reached and never answered: most likely a wrong address
REST_SECONDS = 30.0  # before a failed server is tried again


@dataclass(eq=False)
class _Server:
    """A server and its state.

    Attributes:
        chat: Client of the server.
        n_busy: Questions in progress.
        n_asked: Questions sent so far, so that idle servers take turns.
        n_failures: Consecutive failures.
        rests_until: Monotonic time of the next try; 0 while it works.
    """

    chat: ChatClient
    n_busy: int = 0
    n_asked: int = 0
    n_failures: int = 0
    rests_until: float = 0.0


class ServerPool:
    """Ask one of several servers, and another if it fails.

    A server is suspended if it cannot be reached or has more than `max_retries` consecutive failures.
    Periodically, one question tries it again. If all servers are suspended, they are asked in turn,
    like a single server.

    Args:
        clients: One client per server.
        max_retries: Retries of a question that failed on all working servers.
        facts: Counters to update.
    """

    def __init__(self, clients: Sequence[ChatClient], max_retries: int, facts: dict[str, Any]) -> None:
        self.url = ", ".join(client.url for client in clients)
        self.n_answers = 0
        self._servers = [_Server(client) for client in clients]
        self._max_retries = max_retries
        self._facts = facts

    @property
    def n_new_tokens(self) -> int:
        """The longest answer that is requested, in tokens."""
        return max(server.chat.n_new_tokens for server in self._servers)

    async def ask(self, prompt: str, reservation: Reservation) -> Reply:
        """Ask until there is an answer.

        Args:
            prompt: The question.
            reservation: Made for it; covers one try at a time.

        Raises:
            BudgetExhausted: The budget does not cover another try.
            Failure: No answer after all retries, or a retry cannot help.
            JudgeError: A server cannot answer any question: rejected key or unknown model.
        """
        n_failures, n_answers = 0, self.n_answers
        tried: list[_Server] = []
        while True:
            server = self._choose(tried)
            try:
                return await self._send(server, prompt, reservation)
            except Failure as failure:
                if failure.kind is FailureKind.REFUSED:
                    raise
                self._note(server, failure)
                tried.append(server)
                wait_seconds = 0.0
                if not self._find_working(tried):
                    # Rate limits do not count as failures while other questions succeed between tries.
                    if failure.kind is not FailureKind.LIMITED or n_answers == self.n_answers:
                        n_failures += 1
                    n_answers = self.n_answers
                    never_there = failure.kind is FailureKind.UNREACHABLE and not self.n_answers
                    if n_failures > (min(self._max_retries, MAX_FIRST_RETRIES) if never_there else self._max_retries):
                        raise
                    wait_seconds = _choose_wait(max(n_failures, 1), failure.retry_after_seconds)
                    tried.clear()
            self._facts["n_retries"] += 1
            await asyncio.sleep(wait_seconds)

    def _choose(self, tried: Sequence[_Server]) -> _Server:
        working = self._find_working(tried)
        if not working:
            return min(self._servers, key=lambda server: server.rests_until)
        server = min(working, key=lambda server: (server.n_busy, server.n_asked))
        if server.rests_until:
            server.rests_until = time.monotonic() + REST_SECONDS  # only one question tries it
        return server

    def _find_working(self, tried: Sequence[_Server]) -> list[_Server]:
        """Return the servers that are not suspended and have not failed on this question."""
        now = time.monotonic()
        return [server for server in self._servers if server not in tried and server.rests_until <= now]

    async def _send(self, server: _Server, prompt: str, reservation: Reservation) -> Reply:
        server.n_busy += 1
        server.n_asked += 1
        try:
            reply = await server.chat.send(prompt, reservation)
        finally:
            server.n_busy -= 1
        if server.rests_until and len(self._servers) > 1:
            logger.info("%s: answers again", server.chat.url)
        server.n_failures, server.rests_until = 0, 0.0
        self.n_answers += 1
        return reply

    def _note(self, server: _Server, failure: Failure) -> None:
        if failure.kind not in (FailureKind.DOWN, FailureKind.UNREACHABLE):
            return  # the server works, though not for this question or not now
        server.n_failures += 1
        if failure.kind is FailureKind.UNREACHABLE or server.n_failures > self._max_retries:
            if not server.rests_until and len(self._servers) > 1:
                logger.warning(
                    "%s: suspended after failures (%s); using the other servers", server.chat.url, failure.message
                )
            server.rests_until = time.monotonic() + REST_SECONDS


def _choose_wait(n_failures: int, retry_after_seconds: float | None) -> float:
    """Return the seconds to wait, with jitter so that simultaneous failures do not retry together."""
    if retry_after_seconds is not None:
        return min(retry_after_seconds * random.uniform(1.0, 1.1), MAX_WAIT_SECONDS)
    # The exponent is bounded to avoid overflow.
    return min(FIRST_WAIT_SECONDS * 2 ** min(n_failures - 1, 30), MAX_WAIT_SECONDS) * random.uniform(0.5, 1.0)
