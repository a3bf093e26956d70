"""Many prompts in one forward pass of a local LLM: labels compared, answers written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from perspective.errors import ModelError
from perspective.memory import BatchLimit, halve_on_out_of_memory, limit_batches, make_batches
from perspective.models import LLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

CPU_LIMIT = BatchLimit(items=16)


class LabelReader:
    """Read off an LLM how much likelier one label is than another where an answer would begin.

    What all prompts of a batch begin with is computed once, and kept for the next batch.

    Args:
        llm: Model and tokenizer.
        label_ids: The labels' tokens, as `find_labels` returns them.
        facts: Where prompts and tokens are counted ("n_prompts", "n_tokens").
    """

    def __init__(self, llm: LLM, label_ids: tuple[int, int], facts: dict[str, Any]) -> None:
        self.llm = llm
        self.label_ids = label_ids
        self.facts = facts
        self._kept: tuple[tuple[int, ...], Any] | None = None
        self._read_fitting = halve_on_out_of_memory(self._read_batch, len)

    def read(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """Return the log-odds of the first label against the second, one a prompt.

        Args:
            prompts: Token ids of one batch, each up to where its label would stand.

        Raises:
            ModelError: A single prompt does not fit the memory.
        """
        return self._read_fitting(prompts)

    @torch.inference_mode()
    def _read_batch(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        n_shared = _count_shared(prompts)
        cache = self._read_shared(prompts[0][:n_shared])
        rests = [prompt[n_shared:] for prompt in prompts]
        ids, lengths = pad_right(rests)
        if cache is not None:
            cache.batch_repeat_interleave(len(prompts))
        first, last = int(lengths.min()) - 1, int(lengths.max()) - 1
        # Logits only where an answer begins: the vocabulary is the largest matrix of a small model.
        logits = self.llm.model(
            ids.to(self.llm.device),
            past_key_values=cache,
            logits_to_keep=torch.arange(first, last + 1, device=self.llm.device),
        ).logits
        at_answer = logits[torch.arange(len(rests)), lengths - 1 - first].float()  # (n, vocabulary)
        log_odds = at_answer[:, self.label_ids[0]] - at_answer[:, self.label_ids[1]]
        self.facts["n_prompts"] += len(prompts)
        self.facts["n_tokens"] += n_shared + int(lengths.sum())
        return list(log_odds.tolist())

    def _read_shared(self, ids: Sequence[int]) -> Any:  # noqa: ANN401  a cache of transformers, or None
        if not ids:
            return None
        if self._kept is None or self._kept[0] != tuple(ids):
            cache = self.llm.model(
                torch.tensor([list(ids)], device=self.llm.device), use_cache=True, logits_to_keep=1
            ).past_key_values
            self._kept = (tuple(ids), cache)
        return copy.deepcopy(self._kept[1])


class AnswerWriter:
    """Let an LLM go on after prompts, greedily.

    Args:
        llm: Model and tokenizer.
        max_new_tokens: The longest answer.
        facts: Where prompts and tokens read are counted ("n_prompts", "n_tokens").
    """

    def __init__(self, llm: LLM, max_new_tokens: int, facts: dict[str, Any]) -> None:
        self.llm = llm
        self.max_new_tokens = max_new_tokens
        self.facts = facts
        self._write_fitting = halve_on_out_of_memory(self._write_batch, lambda prompt: len(prompt) + max_new_tokens)

    def write(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the new tokens of each prompt, with the end and the padding after it.

        Args:
            prompts: Token ids of one batch.

        Raises:
            ModelError: A single prompt does not fit the memory.
        """
        return self._write_fitting(prompts)

    @torch.inference_mode()
    def _write_batch(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        tokenizer = self.llm.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        longest = max(map(len, prompts))
        # Padded on the left: what is written follows the prompt at once.
        ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        written = self.llm.model.generate(
            ids.to(self.llm.device),
            attention_mask=mask.to(self.llm.device),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
        )
        self.facts["n_prompts"] += len(prompts)
        self.facts["n_tokens"] += int(mask.sum())
        return list(written[:, longest:].tolist())


def pad_right(rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the tokens of n prompts into one array, padded on the right.

    With causal attention no earlier token sees the padding, so that no mask is needed.

    Returns:
        Token ids `(n, longest)` and lengths `(n,)`.
    """
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.as_tensor(row)
    return ids, lengths


def find_labels(
    tokenizer: PreTrainedTokenizerBase, prompt: str, ways: Iterable[tuple[str, tuple[str, str]]]
) -> tuple[str, tuple[int, int]]:
    """Find what to put before the label and the labels' tokens there.

    Tokenizers differ in whether a space belongs to the word after it: each way is tried in place.

    Args:
        tokenizer: Whose tokens count.
        prompt: What stands before the answer.
        ways: Beginnings of an answer, each with the two answers that would follow the prompt; the
            first is taken whose beginning is kept whole and leaves the answers apart.

    Raises:
        ModelError: No way tells the answers apart.
    """
    ways = list(ways)
    for begin, answers in ways:
        context = tokenizer(prompt + begin, add_special_tokens=False)["input_ids"]
        asked = [tokenizer(prompt + answer, add_special_tokens=False)["input_ids"] for answer in answers]
        if all(len(ids) > len(context) and ids[: len(context)] == context for ids in asked):
            first, second = (ids[len(context)] for ids in asked)
            if first != second:
                return begin, (first, second)
    raise ModelError(
        f"{tokenizer.name_or_path}: its tokenizer cannot tell {' from '.join(answer.strip() for answer in ways[0][1])}"
    )


def choose_limit(llm: LLM, batch_size: int | None) -> BatchLimit:
    """Return how many prompts one forward pass takes: as said, or by the device when None."""
    return BatchLimit(items=batch_size) if batch_size else limit_batches(llm.model, CPU_LIMIT)


def batch_by_length(items: Iterable[T], ids: Callable[[T], Sequence[int]], limit: BatchLimit) -> Iterator[list[T]]:
    """Group items by the length of their tokens, longest first, so that little is padded.

    >>> list(batch_by_length(["a", "ccc", "bb", "dd"], lambda text: [1] * len(text), BatchLimit(items=2)))
    [['ccc', 'bb'], ['dd', 'a']]
    """
    # Longest first: what does not fit the memory fails at once, not after an hour.
    ordered = sorted(items, key=lambda item: -len(ids(item)))
    return make_batches(ordered, lambda item: len(ids(item)), limit)


def _count_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with; each keeps at least one of its own."""
    limit = min(map(len, prompts)) - 1
    for place in range(limit):
        if len({prompt[place] for prompt in prompts}) > 1:
            return place
    return limit
