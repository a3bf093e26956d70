"""Log-probabilities of labels at the first position of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from perspective.errors import ModelError
from perspective.llm.chat import MAX_PROMPT_TOKENS
from perspective.llm.loading import LLM
from perspective.llm.packing import PromptReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# An answer may begin with a space, which is part of its token or a token of its own.
PLAIN_WAY = ("", ("Yes", "No"))
SPACED_WAYS = (("", (" Yes", " No")), (" ", (" Yes", " No")))


class LabelReader:
    """Compute the log-odds of two labels as the first token of an answer.

    In half precision the labels' logits are computed from the last states in float32: bfloat16 would round logits
    around 20 to eighths, and many answers would be ties.

    Args:
        llm: Model and tokenizer.
        label_ids: Token ids of the labels, from `find_label_token_ids`.
        facts: Counters to update ("n_prompts", "n_tokens").
    """

    def __init__(self, llm: LLM, label_ids: tuple[int, int], facts: dict[str, Any]) -> None:
        self.llm = llm
        self.label_ids = label_ids
        self.facts = facts
        self._reader = PromptReader(llm, self._read_ends, min(llm.max_tokens, MAX_PROMPT_TOKENS))

    def read(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """Return the log-odds of the first label against the second, one per prompt.

        Args:
            prompts: Token ids, each up to the position of its label. Larger calls share more prefixes.

        Raises:
            ModelError: A single prompt does not fit the memory.
        """
        n_read = self._reader.n_read
        logits = self._reader.read([tuple(prompt) for prompt in prompts])
        self.facts["n_prompts"] += len(prompts)
        self.facts["n_tokens"] += self._reader.n_read - n_read
        return list((logits[:, 0] - logits[:, 1]).tolist())

    def _read_ends(self, ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:  # noqa: ANN401
        # Logits at answer positions only: the output matrix is the largest of a small model.
        kept, positions = columns.unique(return_inverse=True)
        with _score_labels_alone(self.llm.model, self.label_ids) as alone:
            logits = self.llm.model(ids, logits_to_keep=kept, **inputs).logits
        scores = logits[rows, positions]
        return scores if alone else scores[:, list(self.label_ids)].float()


@contextmanager
def _score_labels_alone(model: PreTrainedModel, label_ids: tuple[int, int]) -> Iterator[bool]:
    """Let a model in half precision score the labels only, in float32; yield whether it does."""
    head = model.get_output_embeddings()
    if model.dtype == torch.float32 or not isinstance(head, torch.nn.Linear) or not head.weight.is_floating_point():
        yield False
        return
    weight = head.weight[list(label_ids)].float()
    bias = None if head.bias is None else head.bias[list(label_ids)].float()

    def score(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(inputs[0].float(), weight, bias)

    handle = head.register_forward_hook(score)
    try:
        yield True
    finally:
        handle.remove()


def find_label_token_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: str, ways: Iterable[tuple[str, tuple[str, str]]]
) -> tuple[str, tuple[int, int]]:
    """Find the beginning of the answer and the labels' token ids after it.

    Tokenizers differ in whether a space is part of the following word, so each spelling is tried.

    Args:
        tokenizer: The LLM's tokenizer.
        prompt: The text before the answer.
        ways: Beginnings of an answer, each with the two full answers. The first one whose tokens are
            a prefix of both answers, with different next tokens, is used.

    Raises:
        ModelError: No spelling distinguishes the answers.
    """
    ways = list(ways)
    for begin, answers in ways:
        context = tokenizer(prompt + begin, add_special_tokens=False)["input_ids"]
        encoded = [tokenizer(prompt + answer, add_special_tokens=False)["input_ids"] for answer in answers]
        if all(len(ids) > len(context) and ids[: len(context)] == context for ids in encoded):
            first, second = (ids[len(context)] for ids in encoded)
            if first != second:
                return begin, (first, second)
    names = " from ".join(answer.strip() for answer in ways[0][1])
    raise ModelError(f"{tokenizer.name_or_path}: its tokenizer cannot distinguish {names}")


def find_yes_no_token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, tuple[int, int]]:
    """Find the beginning of an answer of Yes or No, and the token ids of both, as `find_label_token_ids`.

    Raises:
        ModelError: The tokenizer cannot tell Yes from No.
    """
    ways = (PLAIN_WAY, *SPACED_WAYS) if prompt[-1:].isspace() else (*SPACED_WAYS, PLAIN_WAY)
    return find_label_token_ids(tokenizer, prompt, ways)
