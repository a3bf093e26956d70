"""Judging with transformers' default call: `generate` for one prompt at a time, then parse the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from perspective.llm.loading import LLM


def judge(llm: LLM, prompts: Sequence[str], max_new_tokens: int = 20) -> list[str | None]:
    """Return "1", "2" or None (undecided) for each prompt."""
    found = [re.search(r"\b([12])\b", text) for text in write(llm, prompts, max_new_tokens)]
    return [one.group(1) if one else None for one in found]


@torch.inference_mode()
def write(llm: LLM, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Return what is written after each prompt."""
    texts = []
    for prompt in prompts:
        tokens = llm.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        written = llm.model.generate(**tokens, max_new_tokens=max_new_tokens, do_sample=False)
        texts.append(llm.tokenizer.decode(written[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts
