"""Judge by the choices of a causal LM, read from log-probabilities or from generated text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from perspective.artifacts import Judgment, Triplet
from perspective.errors import DataError, suggest_name
from perspective.judging.prompting import Prompt, fit_question
from perspective.judging.protocol import (
    ANSWER_FORM,
    ANSWERS,
    Question,
    judgment_from_answers,
    judgment_from_probabilities,
    sigmoid,
)
from perspective.judging.written import (
    JSON_FORM,
    JSON_TOKENS,
    REASON_END,
    REASON_FORM,
    REASON_TOKENS,
    Reasoned,
    judgment_from_json,
    judgment_from_reasons,
)
from perspective.llm.batching import batch_by_length, choose_limit
from perspective.llm.chat import MAX_NEW_TOKENS, list_special_tokens, render_chat
from perspective.llm.labels import LabelReader, find_label_token_ids
from perspective.llm.loading import LLM
from perspective.llm.writing import AnswerWriter
from perspective.runtime.devices import describe_precision

ANSWER_FORMS = {"logprob": ANSWER_FORM, "generate": ANSWER_FORM, "reason": REASON_FORM, "json": JSON_FORM}
# Combine the answers of both orders.
JOINS: dict[str, Callable[..., Judgment]] = {
    "logprob": judgment_from_probabilities,
    "generate": judgment_from_answers,
    "reason": judgment_from_reasons,
    "json": judgment_from_json,
}
# Most tokenizers join the space to the label; some make it a token of its own.
LABEL_WAYS = (("Choice", (ANSWERS[0], ANSWERS[1])), ("Choice ", (ANSWERS[0], ANSWERS[1])))


class ChoiceJudge:
    """Select the choice that a causal LM finds more likely, asked in both orders.

    By default no text is generated: the beginning of the answer ("Choice ") is appended to the prompt,
    and the log-probabilities of the two labels at the next position are compared.

    Args:
        llm: Model and tokenizer.
        instruction: The sentence that states the data set's perspective.
        orders: 2 to ask with the choices in both orders, 1 to ask in the file's order only.
        response: "logprob"; "generate" for a short generated answer, strictly parsed (published);
            "reason" for a free-text explanation followed by a comparison of the labels; "json" for
            a generated JSON object, strictly parsed.
        batch_size: Prompts per forward pass; chosen by device memory when None.
    """

    def __init__(
        self,
        llm: LLM,
        instruction: str,
        orders: int = 2,
        response: str = "logprob",
        batch_size: int | None = None,
    ) -> None:
        if response not in ANSWER_FORMS:
            raise DataError(f'response "{response}": {suggest_name(response, ANSWER_FORMS)}')
        self.llm = llm
        self.instruction = instruction
        self.orders = orders
        self.response = response
        self._limit = choose_limit(llm, batch_size)
        self.identity: dict[str, Any] = {
            "kind": "choice",
            "instruction": instruction,
            "orders": orders,
            "response": response,
        }
        self.facts: dict[str, Any] = {**describe_precision(llm.model), "n_prompts": 0, "n_tokens": 0}
        # After an explanation the answer follows our own sentence, otherwise the chat template.
        context = REASON_END if response == "reason" else self._render("x")
        self.answer_begin, label_ids = find_label_token_ids(llm.tokenizer, context, LABEL_WAYS)
        self._labels = LabelReader(llm, label_ids, self.facts)
        self._reason_end = self._encode(REASON_END + self.answer_begin)
        self._special_ids = set(llm.tokenizer.convert_tokens_to_ids(list(list_special_tokens(llm.tokenizer))))
        n_reason = REASON_TOKENS + len(self._reason_end)
        self._n_new_tokens = {"reason": n_reason, "json": JSON_TOKENS}.get(response, MAX_NEW_TOKENS)
        n_written = REASON_TOKENS if response == "reason" else self._n_new_tokens
        self._writer = AnswerWriter(llm, n_written, self.facts)

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer the questions, longest first, each as soon as all its orders are answered."""
        pending: dict[Triplet, dict[bool, Any]] = {}
        texts: dict[Triplet, str] = {}
        for batch in self._make_batches(questions):
            for prompt, answer in zip(batch, self._ask([prompt.ids for prompt in batch]), strict=True):
                answers = pending.setdefault(prompt.triplet, {})
                answers[prompt.swapped] = answer
                if not prompt.swapped:
                    texts[prompt.triplet] = prompt.text
                if len(answers) == self.orders:
                    join = JOINS[self.response]
                    yield join(prompt.triplet, answers[False], answers.get(True), texts.pop(prompt.triplet))
                    del pending[prompt.triplet]

    def _make_batches(self, questions: Sequence[Question]) -> Iterator[list[Prompt]]:
        """Batch prompts by length; the two orders of a question have similar lengths and stay adjacent."""
        prompts = []
        for question in questions:
            prompts.append(self._prepare(question, swapped=False))
            if self.orders == 2:
                prompts.append(self._prepare(question.swapped(), swapped=True))
        yield from batch_by_length(prompts, lambda prompt: prompt.ids, self._limit)

    def _prepare(self, question: Question, swapped: bool) -> Prompt:
        return fit_question(
            self.llm,
            question,
            self.instruction,
            swapped,
            self._render,
            self._tokenize,
            ANSWER_FORMS[self.response],
            self._n_new_tokens,
        )

    def _tokenize(self, text: str) -> list[int]:
        return self._encode(text + self.answer_begin if self.response == "logprob" else text)

    def _encode(self, text: str) -> list[int]:
        # The template already contains the special tokens.
        return list(self.llm.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, user: str) -> str:
        return render_chat(self.llm.tokenizer, user)

    def _ask(self, prompts: Sequence[Sequence[int]]) -> Sequence[Any]:
        """Return one answer per prompt, in the form that `JOINS` takes."""
        if self.response == "logprob":
            return [sigmoid(value) for value in self._labels.read(prompts)]
        if self.response == "reason":
            return self._reason(prompts)
        return list(self.llm.tokenizer.batch_decode(self._writer.write(prompts), skip_special_tokens=True))

    def _reason(self, prompts: Sequence[Sequence[int]]) -> list[Reasoned]:
        """Generate an explanation, then compare the labels after it."""
        written = [self._cut(ids) for ids in self._writer.write(prompts)]
        # Concatenated as token ids: decoding and re-encoding could make an explanation longer.
        explained = [[*prompt, *ids, *self._reason_end] for prompt, ids in zip(prompts, written, strict=True)]
        explanations = self.llm.tokenizer.batch_decode(written)
        log_odds = self._labels.read(explained)
        return [Reasoned(text, sigmoid(value)) for text, value in zip(explanations, log_odds, strict=True)]

    def _cut(self, ids: Sequence[int]) -> list[int]:
        """Return the generated tokens before the first special token (end of text or a further turn)."""
        end = next((place for place, token in enumerate(ids) if token in self._special_ids), len(ids))
        return list(ids[:end])
