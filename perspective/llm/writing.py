"""Generation for a batch of prompts, greedy or sampled; what all of them begin with is read once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from perspective.llm.loading import LLM
from perspective.runtime.memory import halve_on_out_of_memory


class AnswerWriter:
    """Generate answers with a local LLM.

    Args:
        llm: Model and tokenizer.
        max_new_tokens: Maximum length of an answer.
        facts: Counters of prompts and input tokens to update ("n_prompts", "n_tokens").
        temperature: Of sampling from the whole vocabulary; 0 is greedy.
        stop: A text after which an answer ends; empty for end-of-text alone.
    """

    def __init__(
        self, llm: LLM, max_new_tokens: int, facts: dict[str, Any], temperature: float = 0.0, stop: str = ""
    ) -> None:
        self.llm = llm
        self.max_new_tokens = max_new_tokens
        self.facts = facts
        self.temperature = temperature
        self.stop = stop
        self._beginning: tuple[int, ...] = ()
        self._cache: Any = None
        self._write_fitting = halve_on_out_of_memory(self._write_batch, lambda prompt: len(prompt[0]) + max_new_tokens)

    def write(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None = None) -> list[list[int]]:
        """Return the new token ids of each prompt, including end-of-text and padding.

        Args:
            prompts: Token ids of one batch.
            seeds: Random seed of each answer, where they are sampled: an answer does not depend on its batch.

        Raises:
            ModelError: A single prompt does not fit the memory.
        """
        return self._write_fitting(list(zip(prompts, seeds or [0] * len(prompts), strict=True)))

    def begin(self, shared: Sequence[int]) -> None:
        """Read the beginning that all further prompts share, once; empty to forget it.

        Prompts are still given whole. Not for models that keep no cache of keys and values.
        """
        self._beginning = tuple(shared)
        self._cache = None
        if shared:
            with torch.inference_mode():
                ids = torch.tensor([list(shared)], device=self.llm.device)
                self._cache = self.llm.model(ids, use_cache=True, logits_to_keep=1).past_key_values
            self.facts["n_tokens"] += len(shared)

    @torch.inference_mode()
    def _write_batch(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[list[int]]:
        prompts, seeds = zip(*asked, strict=True)
        tokenizer = self.llm.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        longest = max(map(len, prompts))
        n_before = len(self._beginning)
        # Padding before the part that differs, so that generation continues directly after each prompt.
        ids = torch.tensor(
            [[*prompt[:n_before], *[pad] * (longest - len(prompt)), *prompt[n_before:]] for prompt in prompts]
        )
        mask = torch.tensor(
            [[1] * n_before + [0] * (longest - len(prompt)) + [1] * (len(prompt) - n_before) for prompt in prompts]
        )
        cache = copy.deepcopy(self._cache)
        if cache is not None:
            cache.batch_repeat_interleave(len(prompts))
        written = self.llm.model.generate(
            ids.to(self.llm.device),
            attention_mask=mask.to(self.llm.device),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            repetition_penalty=1.0,  # stated: some models' own would count the words of the prompt
            pad_token_id=pad,
            **({} if cache is None else {"past_key_values": cache}),
            **({"stop_strings": [self.stop], "tokenizer": tokenizer} if self.stop else {}),
            **({"logits_processor": [_SamplingNoise(seeds, self.temperature)]} if self.temperature else {}),
        )
        self.facts["n_prompts"] += len(prompts)
        self.facts["n_tokens"] += int(mask[:, n_before:].sum())
        return list(written[:, longest:].tolist())


class _SamplingNoise:
    """Adds Gumbel noise to the logits, each row from a generator of its own.

    The largest of logits / temperature + noise is distributed as a sample of the softmax (Gumbel, 1954), so that greedy
    search samples, and a row draws the same numbers in any batch.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        drawn = np.stack([one.random(scores.shape[1], dtype=np.float32) for one in self._generators])
        noise = -torch.log(-torch.log(torch.from_numpy(drawn).clamp(1e-20, 1 - 2**-24)))
        return scores.float() / self._temperature + noise.to(scores.device)
