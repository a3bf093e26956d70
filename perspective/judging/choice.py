"""A causal LM chooses: the log-probability of each label where its answer would begin."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from perspective.errors import ModelError
from perspective.judging.prompting import MAX_NEW_TOKENS, Prompt, fit_question, render_chat
from perspective.judging.protocol import (
    ANSWERS,
    Opinion,
    Question,
    opinion_from_answers,
    opinion_from_probabilities,
    sigmoid,
)
from perspective.models import LLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ChoiceJudge:
    """Judge by the label that a causal LM finds likelier, asked in both orders.

    No text is generated: the prompt is followed by the beginning of the answer ("Choice "), and
    the log-probabilities of the two labels at the next position are compared.

    Args:
        llm: Model and tokenizer.
        instruction: The data set's perspective.
        orders: 2 to ask with the choices in both orders, 1 for the order of the file.
        response: "logprob", or "generate" for a short written answer, strictly parsed (published).
        batch_size: Prompts a forward pass.
    """

    def __init__(
        self, llm: LLM, instruction: str, orders: int = 2, response: str = "logprob", batch_size: int = 16
    ) -> None:
        self.llm = llm
        self.instruction = instruction
        self.orders = orders
        self.response = response
        self.batch_size = batch_size
        self.answer_begin, self.label_ids = _find_labels(llm.tokenizer, self._render("x"))
        self.identity: dict[str, Any] = {
            "kind": "choice",
            "instruction": instruction,
            "orders": orders,
            "response": response,
        }
        self.facts: dict[str, Any] = {"n_prompts": 0, "n_tokens": 0}

    def judge(self, questions: Sequence[Question]) -> Iterator[Opinion]:
        """Answer the questions, longest first, each when all its orders are known."""
        ask = self._compare_labels if self.response == "logprob" else self._generate
        waiting: dict[int, dict[bool, Any]] = {}
        texts: dict[int, str] = {}
        for batch in self._make_batches(questions):
            for prompt, answer in zip(batch, ask(batch), strict=True):
                answers = waiting.setdefault(prompt.row, {})
                answers[prompt.swapped] = answer
                if not prompt.swapped:
                    texts[prompt.row] = prompt.text
                if len(answers) == self.orders:
                    join = opinion_from_probabilities if self.response == "logprob" else opinion_from_answers
                    yield join(prompt.row, answers[False], answers.get(True), texts.pop(prompt.row))
                    del waiting[prompt.row]

    def _make_batches(self, questions: Sequence[Question]) -> Iterator[list[Prompt]]:
        """Order by length, so that little is padded; a question's two orders stay neighbours."""
        prompts = []
        for question in questions:
            prompts.append(self._prepare(question, swapped=False))
            if self.orders == 2:
                prompts.append(self._prepare(question.swapped(), swapped=True))
        prompts.sort(key=lambda prompt: (-len(prompt.ids), prompt.row))
        for start in range(0, len(prompts), self.batch_size):
            yield prompts[start : start + self.batch_size]

    def _prepare(self, question: Question, swapped: bool) -> Prompt:
        return fit_question(self.llm, question, self.instruction, swapped, self._render, self._tokenize)

    def _tokenize(self, text: str) -> list[int]:
        begin = self.answer_begin if self.response == "logprob" else ""
        # The template already holds the special tokens.
        return list(self.llm.tokenizer(text + begin, add_special_tokens=False)["input_ids"])

    def _render(self, user: str) -> str:
        return render_chat(self.llm.tokenizer, user)

    @torch.inference_mode()
    def _compare_labels(self, batch: Sequence[Prompt]) -> list[float]:
        """Return the probability of label 1 against label 2, one a prompt."""
        n_shared = _count_shared([prompt.ids for prompt in batch])
        cache = self._read_shared(batch[0].ids[:n_shared])
        rests = [prompt.ids[n_shared:] for prompt in batch]
        lengths = torch.tensor([len(rest) for rest in rests])
        # Padded on the right: with causal attention no earlier token sees the padding.
        ids = torch.zeros(len(rests), int(lengths.max()), dtype=torch.long)
        for row, rest in enumerate(rests):
            ids[row, : len(rest)] = torch.tensor(rest)
        if cache is not None:
            cache.batch_repeat_interleave(len(batch))
        first, last = int(lengths.min()) - 1, int(lengths.max()) - 1
        # Logits only where an answer begins: the vocabulary is the largest matrix of a small model.
        logits = self.llm.model(
            ids.to(self.llm.device),
            past_key_values=cache,
            logits_to_keep=torch.arange(first, last + 1, device=self.llm.device),
        ).logits
        at_answer = logits[torch.arange(len(rests)), lengths - 1 - first].float()  # (n, vocabulary)
        log_odds = at_answer[:, self.label_ids[0]] - at_answer[:, self.label_ids[1]]
        self.facts["n_prompts"] += len(batch)
        self.facts["n_tokens"] += n_shared + int(lengths.sum())
        return [sigmoid(value) for value in log_odds.tolist()]

    def _read_shared(self, ids: Sequence[int]) -> Any:  # noqa: ANN401  a cache of transformers, or None
        """Compute the beginning that all prompts of a batch share; kept from batch to batch."""
        if not ids:
            return None
        kept = getattr(self, "_shared", None)
        if kept is None or kept[0] != tuple(ids):
            cache = self.llm.model(
                torch.tensor([ids], device=self.llm.device), use_cache=True, logits_to_keep=1
            ).past_key_values
            self._shared = kept = (tuple(ids), cache)
        return copy.deepcopy(kept[1])

    @torch.inference_mode()
    def _generate(self, batch: Sequence[Prompt]) -> list[str]:
        """Return a short written answer a prompt, greedily."""
        tokenizer = self.llm.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        longest = max(len(prompt.ids) for prompt in batch)
        ids = torch.tensor([[pad] * (longest - len(prompt.ids)) + list(prompt.ids) for prompt in batch])
        mask = torch.tensor([[0] * (longest - len(prompt.ids)) + [1] * len(prompt.ids) for prompt in batch])
        written = self.llm.model.generate(
            ids.to(self.llm.device),
            attention_mask=mask.to(self.llm.device),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=pad,
        )
        self.facts["n_prompts"] += len(batch)
        self.facts["n_tokens"] += int(mask.sum())
        return list(tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True))


def _find_labels(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[str, tuple[int, int]]:
    """Find what to put before the label and the labels' tokens there.

    Tokenizers differ in whether the space belongs to the label: both are tried in place.
    """
    for begin in ("Choice", "Choice "):
        context = tokenizer(prompt + begin, add_special_tokens=False)["input_ids"]
        answers = [tokenizer(prompt + answer, add_special_tokens=False)["input_ids"] for answer in ANSWERS]
        if all(ids[: len(context)] == context for ids in answers):
            first, second = (ids[len(context)] for ids in answers)
            if first != second:
                return begin, (first, second)
    raise ModelError(f"{tokenizer.name_or_path}: its tokenizer cannot tell {' from '.join(ANSWERS)}")


def _count_shared(ids: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with; each keeps at least one of its own."""
    limit = min(len(row) for row in ids) - 1
    for place in range(limit):
        if len({row[place] for row in ids}) > 1:
            return place
    return limit
