"""How much of each text the LLM reads for its answer state."""

from __future__ import annotations

from dataclasses import dataclass

from perspective.errors import require_least
from perspective.options import option

MAX_TEXT_TOKENS = 256


@dataclass(frozen=True)
class ReadSettings:
    """How much of each text is read."""

    max_text_tokens: int = option(
        "tokens of a text that the LLM reads; the rest is cut off, with a warning", default=MAX_TEXT_TOKENS
    )

    def __post_init__(self) -> None:
        """Check the range."""
        require_least(self, max_text_tokens=1)

    def made_from(self) -> dict[str, int]:
        """Return what changes the numbers: nothing by default, as in files from before there was a choice.

        >>> ReadSettings().made_from(), ReadSettings(1024).made_from()
        ({}, {'max_text_tokens': 1024})
        """
        return {} if self.max_text_tokens == MAX_TEXT_TOKENS else {"max_text_tokens": self.max_text_tokens}
