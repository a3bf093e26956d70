"""Batch sizes: estimated from the device's memory, halved on out-of-memory errors."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from perspective.errors import ModelError

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 2**16  # smaller batches already saturate a GPU; a killed run loses less
FREE_SHARE = 0.5  # share of the free memory; the rest covers what the estimate leaves out
# PyTorch's messages on CUDA, ROCm and MPS; on a CPU under Linux; on a CPU under Windows.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class BatchLimit:
    """The maximum size of one batch.

    Attributes:
        items: Number of texts or prompts.
        tokens: Number of tokens with padding: length of the longest item times the number of items.
        padding: Largest share of an item's padded length that may be padding.
        n_shared: Tokens of a cached common prefix, which take memory for each item.
    """

    items: float = math.inf
    tokens: float = math.inf
    padding: float = 1.0
    n_shared: int = 0


def limit_batches(
    model: Any,  # noqa: ANN401
    on_cpu: BatchLimit,
    keeps_cache: bool = True,
    n_shared: int = 0,
) -> BatchLimit:
    """Return the batch limit for a loaded model.

    On CPUs and Macs (shared memory), small batches are as fast as large ones and little padding
    matters more: `on_cpu`, which was measured. On CUDA, as many tokens as fit, up to
    `MAX_BATCH_TOKENS`:

        tokens = FREE_SHARE * free bytes / bytes per token
        bytes per token = bytes per number * (8 * hidden + 3 * intermediate + keys and values)

    The widest part of a layer holds about 8 hidden and 3 intermediate vectors at a time. Keys and
    values of all layers, 2 * layers * key-value heads * head size, count if the model keeps them.
    This is an estimate; `halve_on_out_of_memory` corrects it.

    Args:
        model: A transformers model, or None for anything else.
        on_cpu: Limit to return without CUDA.
        keeps_cache: Whether a forward pass keeps keys and values, as in a causal LM.
        n_shared: Tokens of a common prefix whose cache is repeated for each item.
    """
    device = getattr(model, "device", None)
    if device is None or device.type != "cuda":
        return on_cpu
    import torch

    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # reserved, but unused
    tokens = FREE_SHARE * free / count_token_bytes(model.config, model.dtype.itemsize, keeps_cache)
    return BatchLimit(tokens=max(1, min(MAX_BATCH_TOKENS, int(tokens))), n_shared=n_shared)


def count_token_bytes(config: Any, number_bytes: int, keeps_cache: bool) -> int:  # noqa: ANN401
    """Estimate the memory of one token in a forward pass, by the formula of `limit_batches`.

    Args:
        config: Config of a transformers model.
        number_bytes: Bytes per number; 2 in half precision.
        keeps_cache: Whether keys and values are kept.

    >>> from transformers import MistralConfig
    >>> count_token_bytes(MistralConfig(), 2, keeps_cache=True)  # Mistral-7B: 276 KiB
    282624
    """
    config = config.get_text_config()
    hidden = config.hidden_size
    numbers = 8 * hidden + 3 * _read_size(config, "intermediate_size", 4 * hidden)
    if keeps_cache:
        n_heads = _read_size(config, "num_attention_heads", 1)  # recurrent models have none
        head_size = _read_size(config, "head_dim", hidden // n_heads)
        n_key_value_heads = _read_size(config, "num_key_value_heads", n_heads)
        numbers += 2 * config.num_hidden_layers * n_key_value_heads * head_size
    return number_bytes * numbers


def _read_size(config: Any, name: str, default: int) -> int:  # noqa: ANN401
    """Return a number of a config, the largest where layers differ; the default where it has none."""
    try:
        found = getattr(config, name, None)
    except Exception:  # noqa: BLE001  configs whose layers differ refuse in their own ways
        return default
    return int(max(found) if isinstance(found, list | tuple) else found or default)


def make_batches(items: Iterable[T], size: Callable[[T], int], limit: BatchLimit) -> Iterator[list[T]]:
    """Split a sequence into batches within a limit, in order; an item over the limit is a batch of one.

    Args:
        items: Items, best sorted by size to reduce padding.
        size: Returns the number of tokens of an item.
        limit: Limit of one batch.

    >>> list(make_batches(["ccc", "bb", "bb", "a"], len, BatchLimit(tokens=6)))
    [['ccc', 'bb'], ['bb', 'a']]
    >>> list(make_batches(["ccc", "bb", "bb", "a"], len, BatchLimit(padding=0)))
    [['ccc'], ['bb', 'bb'], ['a']]
    """
    batch: list[T] = []
    longest = 0
    for item in items:
        length = size(item)
        longest = max(longest, length)
        n_tokens = (longest + limit.n_shared) * (len(batch) + 1)
        is_full = len(batch) >= limit.items or n_tokens > limit.tokens
        if batch and (is_full or length < (1 - limit.padding) * longest):
            yield batch
            batch, longest = [], length
        batch.append(item)
    if batch:
        yield batch


def halve_on_out_of_memory(
    run: Callable[[list[T]], Iterable[R]], size: Callable[[T], int]
) -> Callable[[Sequence[T]], list[R]]:
    """Wrap a function over a batch: on an out-of-memory error it retries with half of the tokens.

    The reduced limit is kept for later batches.

    Args:
        run: Returns one result per item. It is called again with a part of the batch after an
            out-of-memory error, so it must leave no side effects when it fails.
        size: Returns the number of tokens of an item.

    Returns:
        A function that takes a batch and returns one result per item, in order. It raises
        `ModelError` if a single item does not fit.
    """
    limit = BatchLimit()

    def run_in_parts(items: Sequence[T]) -> list[R]:
        nonlocal limit
        results: list[R] = []
        while len(results) < len(items):
            batch = next(make_batches(items[len(results) :], size, limit))
            try:
                results.extend(run(batch))
                continue
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Outside `except`: the traceback, which kept the failed pass's tensors alive, is gone.
            free_cache()
            n_tokens = max(map(size, batch)) * len(batch)
            if len(batch) == 1:
                raise ModelError(
                    f"out of memory with a single text of {n_tokens} tokens: stop other programs on the device, "
                    "use a smaller model, or on a CUDA GPU load the LLM with --load_in 4bit"
                )
            limit = BatchLimit(tokens=n_tokens // 2)
            logger.info("out of memory with %d tokens per batch; continuing with %d", n_tokens, limit.tokens)
        return results

    return run_in_parts


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that a device or the machine is out of memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def free_cache() -> None:
    """Release device memory that PyTorch has reserved but does not use."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
