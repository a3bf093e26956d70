"""Batching of prompts for a local LLM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from perspective.llm.loading import LLM
from perspective.runtime.memory import BatchLimit, limit_batches, make_batches

T = TypeVar("T")

CPU_LIMIT = BatchLimit(items=32)


def choose_limit(llm: LLM, batch_size: int | None) -> BatchLimit:
    """Return the limit of a forward pass: the given batch size, or one chosen by the device when None."""
    return BatchLimit(items=batch_size) if batch_size else limit_batches(llm.model, CPU_LIMIT)


def batch_by_length(items: Iterable[T], ids: Callable[[T], Sized], limit: BatchLimit) -> Iterator[list[T]]:
    """Batch items by number of tokens, longest first, to minimise padding.

    >>> list(batch_by_length(["a", "ccc", "bb", "dd"], lambda text: [1] * len(text), BatchLimit(items=2)))
    [['ccc', 'bb'], ['dd', 'a']]
    """
    # Longest first, so that running out of memory shows at the start of a run.
    ordered = sorted(items, key=lambda item: -len(ids(item)))
    return make_batches(ordered, lambda item: len(ids(item)), limit)
