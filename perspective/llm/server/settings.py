"""Settings of OpenAI-compatible servers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from perspective.errors import DataError
from perspective.options import option

OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class ServerSettings:
    """Where the chat servers are and how to ask them; nothing here but the address changes an answer."""

    base_url: list[str] | None = option(
        "address of an OpenAI-compatible server, as http://localhost:8000/v1, or of several that serve "
        "the same model and share the questions; OpenAI if left out",
        default=None,
        group="model",
        extend=True,
    )
    concurrency: int = option("questions under way at a time, at all servers together", default=8, group="scale")
    timeout_seconds: float = option("longest wait for one reply", default=60.0, group="scale")
    max_retries: int = option("times that a failed request is sent again", default=6, group="scale")
    price_in: float | None = option("money for a million tokens read", default=None, group="scale")
    price_out: float | None = option("money for a million tokens written", default=None, group="scale")
    budget: float | None = option(
        "money at which no further question is asked, by both prices, over all runs of this file; requests under way "
        "then are paid too. A later run with a higher budget asks only the questions left over",
        default=None,
        group="scale",
    )

    def __post_init__(self) -> None:
        """Check ranges and the address."""
        for base_url in self.base_url or ():
            check_url(base_url)
        if self.concurrency < 1:
            raise DataError(f"--concurrency {self.concurrency}: must be at least 1")
        if not 0 < self.timeout_seconds < math.inf:
            raise DataError(f"--timeout_seconds {self.timeout_seconds}: must be above 0 and finite")
        if self.max_retries < 0:
            raise DataError(f"--max_retries {self.max_retries}: must not be negative")
        for name, price in (("price_in", self.price_in), ("price_out", self.price_out)):
            if price is not None and not 0 <= price < math.inf:
                raise DataError(f"--{name} {price}: must be finite and not negative")
        if (self.price_in is None) != (self.price_out is None):
            raise DataError("--price_in and --price_out: give both or neither")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise DataError(f"--budget {self.budget}: must be above 0 and finite")
        if self.budget is not None and self.price_in is None:
            raise DataError("--budget needs --price_in and --price_out, the money for a million tokens")

    def is_spent(self, facts: Mapping[str, Any]) -> bool:
        """Tell whether the tokens counted have cost the budget."""
        cost = self.cost(facts)
        return self.budget is not None and cost is not None and cost >= self.budget

    def cost(self, facts: Mapping[str, Any]) -> float | None:
        """Return the money for the tokens counted; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return float(facts["prompt_tokens"] * self.price_in + facts["completion_tokens"] * self.price_out) / 1e6


def check_url(base_url: str) -> None:
    """Refuse what is no address of a server, without repeating a password in it.

    Raises:
        DataError: Not http or https, no host, port 0, a query, or white space.
    """
    try:
        parts = urlsplit(base_url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        fits = False
    if not fits or any(char.isspace() for char in base_url):
        # An address may hold a password: only what follows it is repeated.
        shown = base_url.rpartition("@")[2].partition("?")[0]
        raise DataError(f'--base_url "{shown}": expected http://HOST:PORT/v1 or https://HOST/v1')
