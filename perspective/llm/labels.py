"""Log-probabilities of labels at the position where an answer would begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from perspective.errors import ModelError
from perspective.llm.chat import MAX_PROMPT_TOKENS
from perspective.llm.loading import LLM
from perspective.llm.packing import PromptReader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LabelReader:
    """Read off an LLM how much likelier one label is than another where an answer would begin.

    Args:
        llm: Model and tokenizer.
        label_ids: The labels' tokens, as `find_label_token_ids` returns them.
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


def find_label_token_ids(
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
