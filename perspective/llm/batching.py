"""Many prompts in one forward pass of a local LLM: labels compared, answers written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from perspective.errors import ModelError
from perspective.judging.prompting import MAX_PROMPT_TOKENS
from perspective.llm.packing import PromptReader
from perspective.models.registry import LLM
from perspective.runtime.memory import BatchLimit, halve_on_out_of_memory, limit_batches, make_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

CPU_LIMIT = BatchLimit(items=32)


class LabelReader:
    """Read off an LLM how much likelier one label is than another where an answer would begin.

    Args:
        llm: Model and tokenizer.
        label_ids: The labels' tokens, as `find_labels` returns them.
        facts: Where prompts and tokens are counted ("n_prompts", "n_tokens").
    """

    def __init__(self, llm: LLM, label_ids: tuple[int, int], facts: dict[str, Any]) -> None:
        self.llm = llm
        self.label_ids = label_ids
        self.facts = facts
        self._reader = PromptReader(llm, self._read_ends, min(llm.max_tokens, MAX_PROMPT_TOKENS))

    def read(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """Return the log-odds of the first label against the second, one a prompt.

        Args:
            prompts: Token ids, each up to where its label would stand; the more, the less is read twice.

        Raises:
            ModelError: A single prompt does not fit the memory.
        """
        n_read = self._reader.n_read
        logits = self._reader.read([tuple(prompt) for prompt in prompts])
        self.facts["n_prompts"] += len(prompts)
        self.facts["n_tokens"] += self._reader.n_read - n_read
        return list((logits[:, 0] - logits[:, 1]).tolist())

    def _read_ends(self, ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:  # noqa: ANN401
        # Logits only where an answer begins: the vocabulary is the largest matrix of a small model.
        kept, places = columns.unique(return_inverse=True)
        logits = self.llm.model(ids, logits_to_keep=kept, **inputs).logits
        return logits[rows, places][:, list(self.label_ids)].float()


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


def batch_by_length(items: Iterable[T], ids: Callable[[T], Sized], limit: BatchLimit) -> Iterator[list[T]]:
    """Group items by the length of their tokens, longest first, so that little is padded.

    >>> list(batch_by_length(["a", "ccc", "bb", "dd"], lambda text: [1] * len(text), BatchLimit(items=2)))
    [['ccc', 'bb'], ['dd', 'a']]
    """
    # Longest first: what does not fit the memory fails at once, not after an hour.
    ordered = sorted(items, key=lambda item: -len(ids(item)))
    return make_batches(ordered, lambda item: len(ids(item)), limit)
