"""Several servers of one model: each question goes to the least busy of those that are well."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perspective.llm.server.client import ChatClient
from perspective.llm.server.reply import Failure, FailureKind, Reply

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 1.0  # doubled with each failure of a question
MAX_WAIT_SECONDS = 60.0  # also of what a server asks for
REST_SECONDS = 30.0  # before a server that failed is tried again


@dataclass(eq=False)
class _Server:
    """A server and how it fares.

    Attributes:
        chat: Requests to it.
        n_busy: Questions that it is working on.
        n_asked: Questions that it was ever given, so that idle servers take turns.
        n_failures: Failures in a row.
        rests_until: When it may be tried again; 0 while it is well.
    """

    chat: ChatClient
    n_busy: int = 0
    n_asked: int = 0
    n_failures: int = 0
    rests_until: float = 0.0


class ServerPool:
    """Asks one of several servers, and another where that one fails.

    A server that cannot be reached, or fails more often in a row than a question is asked again, is
    set aside; now and then one question tries it anew. While all are set aside they are asked in
    turn, as a single server is.

    Args:
        clients: One a server.
        max_retries: Times that a question which failed on all servers that are well is asked again.
        facts: Counters to add to.
    """

    def __init__(self, clients: Sequence[ChatClient], max_retries: int, facts: dict[str, Any]) -> None:
        self.url = ", ".join(client.url for client in clients)
        self.n_answers = 0
        self._servers = [_Server(client) for client in clients]
        self._max_retries = max_retries
        self._facts = facts

    async def ask(self, prompt: str) -> Reply:
        """Ask until there is an answer.

        Raises:
            Failure: There is none after the retries, or asking again is in vain.
            JudgeError: A server can answer no question: a refused key, an unknown model.
        """
        n_failures, n_answers = 0, self.n_answers
        tried: list[_Server] = []
        while True:
            server = self._choose(tried)
            try:
                return await self._send(server, prompt)
            except Failure as failure:
                if failure.kind is FailureKind.REFUSED:
                    raise
                self._note(server, failure)
                tried.append(server)
                wait_seconds = 0.0
                if not self._find_well(tried):
                    # A limit on the rate is no failure as long as others get through between two tries.
                    if failure.kind is not FailureKind.LIMITED or n_answers == self.n_answers:
                        n_failures += 1
                    n_answers = self.n_answers
                    if n_failures > self._max_retries:
                        raise
                    wait_seconds = _choose_wait(max(n_failures, 1), failure.retry_after_seconds)
                    tried.clear()
            self._facts["n_retries"] += 1
            await asyncio.sleep(wait_seconds)

    def _choose(self, tried: Sequence[_Server]) -> _Server:
        well = self._find_well(tried)
        if not well:
            return min(self._servers, key=lambda server: server.rests_until)
        server = min(well, key=lambda server: (server.n_busy, server.n_asked))
        if server.rests_until:
            server.rests_until = time.monotonic() + REST_SECONDS  # one question alone tries it
        return server

    def _find_well(self, tried: Sequence[_Server]) -> list[_Server]:
        """Return the servers that are not set aside, or no longer, and have not failed on this question."""
        now = time.monotonic()
        return [server for server in self._servers if server not in tried and server.rests_until <= now]

    async def _send(self, server: _Server, prompt: str) -> Reply:
        server.n_busy += 1
        server.n_asked += 1
        try:
            reply = await server.chat.send(prompt)
        finally:
            server.n_busy -= 1
        if server.rests_until and len(self._servers) > 1:
            logger.info("%s: answers again", server.chat.url)
        server.n_failures, server.rests_until = 0, 0.0
        self.n_answers += 1
        return reply

    def _note(self, server: _Server, failure: Failure) -> None:
        if failure.kind not in (FailureKind.DOWN, FailureKind.UNREACHABLE):
            return  # it answers, if not this question or not now
        server.n_failures += 1
        if failure.kind is FailureKind.UNREACHABLE or server.n_failures > self._max_retries:
            if not server.rests_until and len(self._servers) > 1:
                logger.warning("%s: fails (%s); the other servers are asked instead", server.chat.url, failure.message)
            server.rests_until = time.monotonic() + REST_SECONDS


def _choose_wait(n_failures: int, retry_after_seconds: float | None) -> float:
    """Return how long to wait; jitter keeps requests that failed together from returning together."""
    if retry_after_seconds is not None:
        return min(retry_after_seconds * random.uniform(1.0, 1.1), MAX_WAIT_SECONDS)
    # The exponent is bounded: no overflow, however many retries.
    return min(FIRST_WAIT_SECONDS * 2 ** min(n_failures - 1, 30), MAX_WAIT_SECONDS) * random.uniform(0.5, 1.0)
