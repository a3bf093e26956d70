"""Judge by one or more OpenAI-compatible chat servers: vLLM, llama.cpp, Ollama, OpenAI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from perspective.artifacts import LABELS, Judgment, Triplet
from perspective.errors import DataError
from perspective.judging.label_reply import read_probability
from perspective.judging.protocol import (
    ANSWER_FORM,
    NO_ANSWER,
    Question,
    judgment_from_answers,
    judgment_from_probabilities,
    write_question,
)
from perspective.llm.server.asking import CONTROL_TOKEN, ServerAsker
from perspective.llm.server.reply import Reply
from perspective.llm.server.settings import ServerSettings


class ServerJudge:
    """Select the choice that a chat server answers, asked in both orders.

    If the server returns log-probabilities, those of the labels are compared at the position of the
    label; otherwise the text is parsed.

    Args:
        settings: Addresses and request settings.
        model: Name of the model on the servers.
        instruction: The sentence that states the data set's perspective.
        orders: 2 to ask with the choices in both orders, 1 to ask in the file's order only.
        logprobs: Whether to request log-probabilities.

    Raises:
        DataError: A setting is invalid.
        JudgeError: OpenAI is used and `OPENAI_API_KEY` is not set.
    """

    def __init__(
        self, settings: ServerSettings, model: str, instruction: str, orders: int = 2, logprobs: bool = True
    ) -> None:
        if orders not in (1, len(LABELS)):
            raise DataError(f"orders {orders}: choose 1 or 2")
        self._asker = ServerAsker(settings, model, logprobs)
        self.instruction = instruction
        self.orders = orders
        self.identity: dict[str, Any] = {
            "kind": "server",
            "base_url": self._asker.public_urls,
            "model": model,
            "instruction": instruction,
            "answer_form": ANSWER_FORM,
            "orders": orders,
            "logprobs": logprobs,
            **self._asker.options,
        }
        self.facts: dict[str, Any] = self._asker.facts

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Yield judgments in the order of completion.

        A question that is refused, or answered with an empty reply after all retries, is an
        abstention. Questions beyond the budget get no judgment.

        Raises:
            JudgeError: As `ServerAsker.ask`.
        """
        answers = self._asker.ask(self._write_prompts(question) for question in questions)
        with closing(answers):  # at once: counts the requests that are cancelled
            for place, prompts, replies, failure in answers:
                triplet = questions[place].triplet
                if failure is not None:
                    yield Judgment(triplet, (), prompts[0], f"{NO_ANSWER}{failure.message}")
                else:
                    yield _join_replies(triplet, replies, prompts[0])

    def _write_prompts(self, question: Question) -> list[str]:
        texts = (question.query, question.choice1, question.choice2)
        markers = sorted({match for text in texts for match in CONTROL_TOKEN.findall(text)})
        questions = [question, question.swapped()][: self.orders]
        return [write_question(one, self.instruction, markers) for one in questions]


def _join_replies(triplet: Triplet, replies: Sequence[Reply], prepared: str) -> Judgment:
    first, swapped = replies[0], replies[1] if len(replies) > 1 else None
    probability, other = (None if reply is None else read_probability(reply) for reply in (first, swapped))
    if probability is not None and (swapped is None or other is not None):
        return judgment_from_probabilities(triplet, probability, other, prepared, first.content)
    return judgment_from_answers(triplet, first.content, None if swapped is None else swapped.content, prepared)
