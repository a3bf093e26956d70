"""Judging with transformers' default call: `generate` for one prompt at a time, then parse the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from perspective.llm.loading import LLM


@torch.inference_mode()
def judge(llm: LLM, prompts: Sequence[str], max_new_tokens: int = 20) -> list[str | None]:
    """Return "1", "2" or None (undecided) for each prompt."""
    answers = []
    for prompt in prompts:
        tokens = llm.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        written = llm.model.generate(**tokens, max_new_tokens=max_new_tokens, do_sample=False)
        text = llm.tokenizer.decode(written[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
        found = re.search(r"\b([12])\b", text)
        answers.append(found.group(1) if found else None)
    return answers
