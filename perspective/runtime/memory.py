"""How much goes into one forward pass: what the device holds, and half of it where that was too much."""

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

MAX_BATCH_TOKENS = 2**16  # a GPU is busy long before that; more is only more to lose in a kill
FREE_SHARE = 0.5  # of the free memory; the rest is for what the estimate leaves out
# As PyTorch words it on CUDA, ROCm and MPS; on a CPU under Linux; on a CPU under Windows.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class BatchLimit:
    """The most that one batch may hold.

    Attributes:
        items: Texts or prompts.
        tokens: Tokens, with the padding: the longest item's times the number of items.
        padding: Share of an item's place that may be padding.
        n_shared: Tokens that each item takes beside its own: the cache of a common beginning.
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
    """Return how large batches of a loaded model should be.

    On a CPU, and on a Mac whose memory is everybody's, small batches are as fast as large ones and
    little padding is worth more: `on_cpu`, which was measured. On CUDA as many tokens as fit, up to
    `MAX_BATCH_TOKENS`:

        tokens = FREE_SHARE * free bytes / bytes a token
        bytes a token = bytes a number * (8 * hidden + 3 * intermediate + keys and values)

    where 8 hidden and 3 intermediate vectors are what the widest part of a layer holds at a time,
    and the keys and values of all layers, 2 * layers * key-value heads * head size, are there if
    the model keeps them. It is an estimate: `halve_on_out_of_memory` mends it.

    Args:
        model: A model of transformers, or None for what is not one.
        on_cpu: What to return where there is no CUDA.
        keeps_cache: Whether keys and values of a forward pass are kept, as a causal LM's are.
        n_shared: Tokens before each item that were read once, and whose cache is repeated for it.
    """
    device = getattr(model, "device", None)
    if device is None or device.type != "cuda":
        return on_cpu
    import torch

    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # ours, unused
    tokens = FREE_SHARE * free / count_token_bytes(model.config, model.dtype.itemsize, keeps_cache)
    return BatchLimit(tokens=max(1, min(MAX_BATCH_TOKENS, int(tokens))), n_shared=n_shared)


def count_token_bytes(config: Any, number_bytes: int, keeps_cache: bool) -> int:  # noqa: ANN401
    """Estimate the memory that one token takes in a forward pass, as `limit_batches` says.

    Args:
        config: Of a model of transformers.
        number_bytes: 2 in half precision.
        keeps_cache: Whether keys and values are kept.

    >>> from transformers import MistralConfig
    >>> count_token_bytes(MistralConfig(), 2, keeps_cache=True)  # Mistral-7B: 276 KiB
    282624
    """
    config = config.get_text_config()
    hidden = config.hidden_size
    numbers = 8 * hidden + 3 * (getattr(config, "intermediate_size", None) or 4 * hidden)
    if keeps_cache:
        n_heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or hidden // n_heads
        n_kept = getattr(config, "num_key_value_heads", None) or n_heads
        numbers += 2 * config.num_hidden_layers * n_kept * head_size
    return number_bytes * numbers


def make_batches(items: Iterable[T], size: Callable[[T], int], limit: BatchLimit) -> Iterator[list[T]]:
    """Cut a sequence into batches within a limit, in order; what exceeds it alone goes alone.

    Args:
        items: Best sorted by size, so that little is padded.
        size: Tokens of an item.
        limit: Of one batch.

    >>> list(make_batches(["ccc", "bb", "bb", "a"], len, BatchLimit(tokens=6)))
    [['ccc', 'bb'], ['bb', 'a']]
    >>> list(make_batches(["ccc", "bb", "bb", "a"], len, BatchLimit(padding=0)))
    [['ccc'], ['bb', 'bb'], ['a']]
    """
    batch: list[T] = []
    longest = 0
    for item in items:
        own = size(item)
        longest = max(longest, own)
        n_tokens = (longest + limit.n_shared) * (len(batch) + 1)
        is_full = len(batch) >= limit.items or n_tokens > limit.tokens
        if batch and (is_full or own < (1 - limit.padding) * longest):
            yield batch
            batch, longest = [], own
        batch.append(item)
    if batch:
        yield batch


def halve_on_out_of_memory(
    run: Callable[[list[T]], Iterable[R]], size: Callable[[T], int]
) -> Callable[[Sequence[T]], list[R]]:
    """Make a function over a batch survive one that does not fit the memory: it goes on with halves.

    What did not fit is remembered: later batches are cut to half its tokens at once.

    Args:
        run: Returns one result an item; run anew on a part of the batch where the memory is full,
            so it must leave nothing behind when it fails.
        size: Tokens of an item.

    Returns:
        A function that takes a batch and returns one result an item, in order. It raises
        `ModelError` where a single item does not fit.
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
            # Here the error is gone, and with its traceback what the failed pass held.
            free_cache()
            n_tokens = max(map(size, batch)) * len(batch)
            if len(batch) == 1:
                raise ModelError(
                    f"out of memory with a single text of {n_tokens} tokens: end what else runs on the device, "
                    "take a smaller model, or on a CUDA GPU load the LLM with --load_in 4bit"
                )
            limit = BatchLimit(tokens=n_tokens // 2)
            logger.info("out of memory with %d tokens at a time; going on with %d", n_tokens, limit.tokens)
        return results

    return run_in_parts


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error says that the memory of a device, or of the machine, is full."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def free_cache() -> None:
    """Give back what PyTorch keeps of the device's memory though no tensor is in it."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
