"""What a chat server sends back: the answer's words, the labels' probabilities, the tokens billed.

Servers differ in what they leave out, so that everything is read from plain JSON and nothing is
taken for granted.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perspective.artifacts import LABELS
from perspective.judging.protocol import parse_answer, sigmoid

# What may stand before the label: nothing, or "Choice", with quotes or emphasis around.
_BEFORE_LABEL = re.compile(r"(?:^|\bchoice)[\s:#*_\"'(\[]*$", re.IGNORECASE)
_REASONING_BEGIN, _REASONING_END = "<think>", "</think>"


class FailureKind(enum.Enum):
    """Why a request brought no answer, as far as it decides what to do next."""

    LIMITED = "too many requests"
    UNREACHABLE = "no connection"
    DOWN = "the server failed"
    BROKEN = "a reply without an answer"
    REFUSED = "the request itself was refused"


class Failure(Exception):
    """A request that brought no answer.

    Attributes:
        kind: What sort of failure.
        message: The server's words, or what stands for them.
        param: The setting that the server names as the cause, if any.
        retry_after_seconds: The wait that the server asked for.
    """

    def __init__(
        self, kind: FailureKind, message: str, param: str = "", retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Reply:
    """A readable answer.

    Attributes:
        content: Its words, without any reasoning before them.
        probability: Of label 1 against label 2; None where only words are known.
    """

    content: str
    probability: float | None = None


def read_reply(body: Any) -> Reply:  # noqa: ANN401  whatever the server sent
    """Read a chat completion.

    Args:
        body: The reply's JSON.

    Raises:
        Failure: It holds no answer.
    """
    try:
        choice = body["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise Failure(FailureKind.BROKEN, "the reply holds no message") from None
    if not isinstance(content, str) or not content.strip():
        raise Failure(FailureKind.BROKEN, "the reply is empty")
    content = content.encode("utf-8", "replace").decode()  # a reply cut within an emoji could not be written
    answer = _skip_reasoning(content).strip()
    if not answer or _REASONING_BEGIN in answer:
        raise Failure(
            FailureKind.BROKEN, "the reply ends within its reasoning; choose a model without, or switch it off"
        )
    # Words that name both labels or neither are no answer, whatever the tokens' probabilities.
    return Reply(answer, _read_probability(choice) if parse_answer(answer) else None)


def read_usage(body: Any) -> tuple[int, int]:  # noqa: ANN401
    """Return the tokens read and written, 0 where the server does not count them."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    counts = [usage.get(name) if isinstance(usage, Mapping) else 0 for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    return read, written


def _read_probability(choice: Mapping[str, Any]) -> float | None:
    """Find the token that is the label; None without log-probabilities or such a token."""
    before = ""
    try:
        for position in (choice.get("logprobs") or {}).get("content") or ():
            token = position["token"]
            if token.strip() in LABELS and _begins_label(before):
                own = (token, position["logprob"])
                listed = [(top["token"], top["logprob"]) for top in position.get("top_logprobs") or ()]
                return compare_labels([*listed, own] if token not in dict(listed) else listed)
            before += token
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None  # a form of log-probabilities that we do not know: the words remain
    return None


def _begins_label(before: str) -> bool:
    before = _skip_reasoning(before)
    return _REASONING_BEGIN not in before and bool(_BEFORE_LABEL.search(before))


def _skip_reasoning(text: str) -> str:
    return text.rpartition(_REASONING_END)[2]


def compare_labels(listed: Sequence[tuple[str, float]]) -> float | None:
    """Return the probability of label 1 against label 2 from the likeliest tokens.

    The list is cut off: a label that is missing is not impossible but at most as likely as the
    least likely token listed, and counts as that likely.

    Args:
        listed: Tokens with their log-probabilities; several spell one label ("1", " 1").

    Returns:
        The probability; None where the list cannot compare the labels.

    >>> round(compare_labels([("1", -0.2), (" 2", -1.7), ("The", -5.0)]), 3)
    0.818
    >>> round(compare_labels([("2", -0.1), ("Both", -3.1)]), 3)
    0.047
    """
    # OpenAI writes -9999 for 'very unlikely': no measure of where the list ends.
    known = [(token.strip(), value) for token, value in listed if math.isfinite(value) and value > -9999]
    if len(known) < 2:
        return None
    cut = min(value for _, value in known)
    first, second = (_add_up([value for token, value in known if token == label]) for label in LABELS)
    if first is None and second is None:
        return None
    return sigmoid((cut if first is None else first) - (cut if second is None else second))


def _add_up(log_probabilities: Sequence[float]) -> float | None:
    if not log_probabilities:
        return None
    largest = max(log_probabilities)
    return largest + math.log(sum(math.exp(value - largest) for value in log_probabilities))
