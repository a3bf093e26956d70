"""Many prompts in one forward pass of a local LLM: labels compared, answers written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from perspective.llm.loading import LLM
from perspective.runtime.memory import BatchLimit, limit_batches, make_batches

T = TypeVar("T")

CPU_LIMIT = BatchLimit(items=32)


def choose_limit(llm: LLM, batch_size: int | None) -> BatchLimit:
    """Return how many prompts one forward pass takes: as said, or by the device when None."""
    return BatchLimit(items=batch_size) if batch_size else limit_batches(llm.model, CPU_LIMIT)


def batch_by_length(items: Iterable[T], ids: Callable[[T], Sized], limit: BatchLimit) -> Iterator[list[T]]:
    """Group items by the length of their tokens, longest first, so that little is padded.

    >>> list(batch_by_length(["a", "ccc", "bb", "dd"], lambda text: [1] * len(text), BatchLimit(items=2)))
    [['ccc', 'bb'], ['dd', 'a']]
    """
    # Longest first: what does not fit the memory fails at once, not after an hour.
    ordered = sorted(items, key=lambda item: -len(ids(item)))
    return make_batches(ordered, lambda item: len(ids(item)), limit)
