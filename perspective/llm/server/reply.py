"""Parse chat completions: text of the answer, token log-probabilities, billed tokens.

Servers leave out different fields, so the plain JSON is parsed and every field is optional.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perspective.artifacts.writing import replace_surrogates

MAX_COUNT = 10**8
REASONING_BEGIN, REASONING_END = "<think>", "</think>"


class FailureKind(enum.Enum):
    """Why a request got no answer, as far as it decides the next step."""

    LIMITED = "too many requests"
    UNREACHABLE = "no connection"
    DOWN = "the server failed"
    BROKEN = "a reply without an answer"
    REFUSED = "the request itself was refused"


class Failure(Exception):
    """A request without an answer.

    Attributes:
        kind: Kind of failure.
        message: The server's message, or a description.
        param: The option that the server names as the cause, if any.
        retry_after_seconds: The wait that the server requested.
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
        log_probability: Natural logarithm of its probability.
        top: The most likely tokens at its position with log-probabilities; truncated.
    """

    text: str
    log_probability: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reply:
    """A parsed answer.

    Attributes:
        content: Text of the answer, without reasoning.
        tokens: All tokens, including the reasoning; empty if the server gives no log-probabilities
            or an unknown format.
    """

    content: str
    tokens: tuple[Token, ...] = ()


def read_reply(body: Any) -> Reply:  # noqa: ANN401  any JSON
    """Parse a chat completion.

    Args:
        body: The reply's JSON.

    Raises:
        Failure: It contains no answer.
    """
    try:
        choice = body["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise Failure(FailureKind.BROKEN, "the reply holds no message") from None
    if not isinstance(content, str) or not content.strip():
        raise Failure(FailureKind.BROKEN, "the reply is empty")
    content = replace_surrogates(content)  # of a reply truncated within an emoji
    answer = skip_reasoning(content).strip()
    if not answer or REASONING_BEGIN in answer:
        raise Failure(
            FailureKind.BROKEN, "the reply ends within its reasoning; use a model without reasoning, or disable it"
        )
    return Reply(answer, _read_tokens(choice))


def read_usage(body: Any) -> tuple[int, int]:  # noqa: ANN401
    """Return input and output tokens, 0 if the server does not report them."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    # A number that no request can cost is not a count.
    counts = [usage.get(name) if isinstance(usage, Mapping) else 0 for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) and 0 < count < MAX_COUNT else 0 for count in counts)
    return read, written


def read_words(body: Any) -> str:  # noqa: ANN401
    """Return everything that the model wrote, with its reasoning; empty if there is no message."""
    try:
        message = body["choices"][0]["message"]
        return "".join(str(message.get(name) or "") for name in ("reasoning_content", "reasoning", "content"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""


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
        return ()  # unknown format: only the text is used


def skip_reasoning(text: str) -> str:
    """Return the text after the reasoning, or the whole text if there is none."""
    return text.rpartition(REASONING_END)[2]
