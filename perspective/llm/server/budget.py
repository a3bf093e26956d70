"""Count the tokens that servers bill, and keep a budget: money is reserved before a request is sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from perspective.llm.server.settings import ServerSettings

# Facts that a later run of the same file continues.
COUNTED = (
    *("n_requests", "n_retries", "n_estimated", "prompt_tokens", "completion_tokens", "cost"),
    *("token_ratio", "longest_answer"),
)
BYTES_PER_TOKEN = 3  # of UTF-8: English has four to five, Korean and Chinese about three


def take_counts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts among the facts of an LLM, to be written beside its answers."""
    return {name: facts[name] for name in COUNTED if name in facts}


def read_counts(written: object) -> dict[str, Any]:
    """Return the counts that an earlier run wrote, without what is no count."""
    if not isinstance(written, dict):
        return {}
    return {
        name: value
        for name, value in take_counts(written).items()
        if isinstance(value, int | float) and 0 <= value < math.inf
    }


class BudgetExhausted(Exception):
    """The budget does not cover a request."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text, rather too many than too few.

    >>> estimate_tokens(""), estimate_tokens("Choice 1"), estimate_tokens("한국어")
    (1, 3, 3)
    """
    return max(1, math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN))


class Reservation:
    """Estimated tokens of one request, reserved until it is released; covers one try at a time."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.n_read, self.n_written = 0, 0

    def cover(self, prompt: str, n_new_tokens: int) -> None:
        """Reserve enough for one more try.

        Raises:
            BudgetExhausted: The budget does not cover it.
        """
        self.n_read = max(self.n_read, estimate_tokens(prompt))
        self.n_written = max(self.n_written, n_new_tokens)
        if not self._account.fits():
            raise BudgetExhausted

    def release(self) -> None:
        """Free what is reserved, after the request; can be called twice."""
        self._account.release(self)


class Account:
    """Tokens billed and reserved, against the budget.

    A request is sent only if its estimated cost, the cost of all requests in progress and what was
    spent before are within the budget. The estimate is the length of the prompt, times the largest
    ratio of billed to estimated tokens so far, and the maximum length of the answer. Before the first
    reply the ratio is 1.

    Args:
        settings: Prices and budget.
        facts: Counters to update: `prompt_tokens`, `completion_tokens`, `n_estimated`, and the largest
            `token_ratio` and `longest_answer` (some servers ignore the maximum), 0 if unknown.
    """

    def __init__(self, settings: ServerSettings, facts: dict[str, Any]) -> None:
        self.facts = facts
        self._settings = settings
        self._reserved: list[Reservation] = []
        self._freed = asyncio.Event()

    async def reserve(self, prompts: Sequence[str], n_new_tokens: int) -> list[Reservation]:
        """Reserve the cost of one question's requests; wait as long as requests in progress may leave enough.

        Raises:
            BudgetExhausted: The budget does not cover them.
        """
        while True:
            reservations = [Reservation(self) for _ in prompts]
            before = self._reserved
            self._reserved = before + reservations
            try:
                for reservation, prompt in zip(reservations, prompts, strict=True):
                    reservation.cover(prompt, n_new_tokens)
                return reservations
            except BudgetExhausted:
                self._reserved = before
                if not before:
                    raise
            self._freed.clear()
            await self._freed.wait()

    def release(self, reservation: Reservation) -> None:
        """Free a reservation; nothing happens if it is free already."""
        if reservation in self._reserved:
            self._reserved.remove(reservation)
            self._freed.set()

    def fits(self) -> bool:
        """Tell whether everything spent and reserved is within the budget."""
        if self._settings.budget is None:
            return True
        n_read = self._scale(sum(one.n_read for one in self._reserved))
        n_written = sum(max(one.n_written, self.facts["longest_answer"]) for one in self._reserved)
        cost = self._settings.cost(
            {
                "prompt_tokens": self.facts["prompt_tokens"] + n_read,
                "completion_tokens": self.facts["completion_tokens"] + n_written,
            }
        )
        return cost is None or cost <= self._settings.budget

    def bill(self, prompt: str, n_read: int, n_written: int) -> None:
        """Count a request with the tokens that the server reports."""
        self.facts["token_ratio"] = max(self.facts["token_ratio"], n_read / estimate_tokens(prompt))
        self.facts["longest_answer"] = max(self.facts["longest_answer"], n_written)
        self._add(n_read, n_written)

    def bill_estimate(self, prompt: str, n_written: int) -> None:
        """Count a request for which the server reports no tokens, or whose reply never came."""
        self.facts["n_estimated"] += 1
        self._add(self._scale(estimate_tokens(prompt)), n_written)

    def _scale(self, n_tokens: int) -> int:
        return math.ceil(n_tokens * (self.facts["token_ratio"] or 1.0))

    def _add(self, n_read: int, n_written: int) -> None:
        self.facts["prompt_tokens"] += n_read
        self.facts["completion_tokens"] += n_written
