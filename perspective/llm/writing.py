"""Greedy generation for a batch of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from perspective.llm.loading import LLM
from perspective.runtime.memory import halve_on_out_of_memory


class AnswerWriter:
    """Generate answers greedily with a local LLM.

    Args:
        llm: Model and tokenizer.
        max_new_tokens: Maximum length of an answer.
        facts: Counters of prompts and input tokens to update ("n_prompts", "n_tokens").
    """

    def __init__(self, llm: LLM, max_new_tokens: int, facts: dict[str, Any]) -> None:
        self.llm = llm
        self.max_new_tokens = max_new_tokens
        self.facts = facts
        self._write_fitting = halve_on_out_of_memory(self._write_batch, lambda prompt: len(prompt) + max_new_tokens)

    def write(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the new token ids of each prompt, including end-of-text and padding.

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
        # Left padding, so that generation continues directly after each prompt.
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
