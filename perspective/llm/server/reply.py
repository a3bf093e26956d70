"""What a chat server sends back: the answer's words, its tokens' log-probabilities, the tokens billed.

Servers differ in what they leave out, so that everything is read from plain JSON and nothing is
taken for granted.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REASONING_BEGIN, REASONING_END = "<think>", "</think>"


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
class Token:
    """One token of an answer.

    Attributes:
        text: The token.
        log_probability: Its natural logarithm of probability.
        top: The likeliest tokens at its position with their log-probabilities; the list is cut off.
    """

    text: str
    log_probability: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    """A readable answer.

    Attributes:
        content: Its words, without any reasoning before them.
        tokens: All tokens, those of the reasoning too; empty where the server gives no
            log-probabilities or an unknown form of them.
    """

    content: str
    tokens: tuple[Token, ...] = ()


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
    answer = skip_reasoning(content).strip()
    if not answer or REASONING_BEGIN in answer:
        raise Failure(
            FailureKind.BROKEN, "the reply ends within its reasoning; choose a model without, or switch it off"
        )
    return Reply(answer, _read_tokens(choice))


def read_usage(body: Any) -> tuple[int, int]:  # noqa: ANN401
    """Return the tokens read and written, 0 where the server does not count them."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    counts = [usage.get(name) if isinstance(usage, Mapping) else 0 for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) and count > 0 else 0 for count in counts)
    return read, written


def _read_tokens(choice: Mapping[str, Any]) -> tuple[Token, ...]:
    try:
        return tuple(
            Token(
                str(position["token"]),
                float(position["logprob"]),
                tuple((str(top["token"]), float(top["logprob"])) for top in position.get("top_logprobs") or ()),
            )
            for position in (choice.get("logprobs") or {}).get("content") or ()
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return ()  # an unknown form of log-probabilities: the words remain


def skip_reasoning(text: str) -> str:
    """Return what follows the reasoning of an answer, or all of it where there is none."""
    return text.rpartition(REASONING_END)[2]
