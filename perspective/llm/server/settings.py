"""Settings of OpenAI-compatible servers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from perspective.errors import DataError, require_least
from perspective.options import option

OPENAI_URL = "https://api.openai.com/v1"
MIN_TIMEOUT_SECONDS = 0.1  # no model answers faster


@dataclass(frozen=True)
class ServerSettings:
    """Addresses of the chat servers and request settings; only the address can change an answer."""

    base_url: list[str] | None = option(
        "address of an OpenAI-compatible server, for example http://localhost:8000/v1, or of several servers "
        "with the same model that share the questions; OpenAI by default",
        default=None,
        group="model",
        extend=True,
    )
    concurrency: int = option("concurrent questions, over all servers", default=8, group="scale")
    timeout_seconds: float = option("maximum wait for one reply", default=60.0, group="scale")
    max_retries: int = option("retries of a failed request", default=6, group="scale")
    price_in: float | None = option("price of a million input tokens", default=None, group="scale")
    price_out: float | None = option("price of a million output tokens", default=None, group="scale")
    budget: float | None = option(
        "maximum cost over all runs of this file, computed from both prices: a request is sent only if its "
        "estimated cost is still covered. Questions beyond it are left out; a higher budget later asks only these",
        default=None,
        group="scale",
    )

    def __post_init__(self) -> None:
        """Check ranges and addresses."""
        for base_url in self.base_url or ():
            check_url(base_url)
        require_least(self, concurrency=1, max_retries=0)
        if not MIN_TIMEOUT_SECONDS <= self.timeout_seconds < math.inf:
            raise DataError(f"--timeout_seconds {self.timeout_seconds}: must be at least 0.1 and finite")
        for name, price in (("price_in", self.price_in), ("price_out", self.price_out)):
            if price is not None and not 0 <= price < math.inf:
                raise DataError(f"--{name} {price}: must be finite and not negative")
        if (self.price_in is None) != (self.price_out is None):
            raise DataError("--price_in and --price_out: give both or neither")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise DataError(f"--budget {self.budget}: must be above 0 and finite")
        if self.budget is not None and self.price_in is None:
            raise DataError("--budget needs --price_in and --price_out, the prices of a million tokens")

    def limits(self) -> list[float | None]:
        """Return the budget and its prices; recorded, so that a later run knows whether they are others."""
        return [self.budget, self.price_in, self.price_out]

    def cost(self, facts: Mapping[str, Any]) -> float | None:
        """Return the cost of the counted tokens; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return float(facts["prompt_tokens"] * self.price_in + facts["completion_tokens"] * self.price_out) / 1e6


def check_url(base_url: str) -> None:
    """Refuse invalid server addresses, without quoting a password.

    Raises:
        DataError: Not http or https, no host, port 0, a query, or white space.
    """
    try:
        parts = urlsplit(base_url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.query
    except ValueError:
        fits = False
    if not fits or any(char.isspace() for char in base_url):
        # The address may contain a password, so only the part after it is quoted.
        shown = base_url.rpartition("@")[2].partition("?")[0]
        raise DataError(f'--base_url "{shown}": expected http://HOST:PORT/v1 or https://HOST/v1')
