"""Send requests to a chat server, adapt them to the options it supports, and count them."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import openai

from perspective.artifacts.writing import replace_surrogates
from perspective.errors import JudgeError
from perspective.llm.server.budget import BYTES_PER_TOKEN, Account, Reservation, estimate_tokens
from perspective.llm.server.reply import Failure, FailureKind, Reply, read_reply, read_usage, read_words

logger = logging.getLogger(__name__)

MAX_TOKENS = 16  # "Choice 1" and a margin
MAX_REASONING_TOKENS = 2048  # for servers whose limit includes reasoning tokens
TOP_LOGPROBS = (20, 5)  # maximum of OpenAI; maximum of vLLM and others
CONNECT_SECONDS = 4.0  # to open a connection
# Of an answer, since some servers ignore the maximum length: at least, and a token of the maximum length.
MAX_CONTENT_CHARS, MAX_TOKEN_CHARS = 1000, 8
MAX_QUOTED_CHARS = 300
N_MODELS_SHOWN = 20
OPENAI_KEY, SERVER_KEY = "OPENAI_API_KEY", "LLM_SERVER_KEY"  # environment variables
_SCHEMA = re.compile(r"response.?format|json|schema|grammar|guided|structured", re.IGNORECASE)
PLACEHOLDER_KEY = "no-key-needed"  # local servers need no key, but the client requires one


class ChatClient:
    """One model of one OpenAI-compatible server.

    Only `ServerPool` retries failed requests: the `openai` client's own retries are off.

    Args:
        client: The connection.
        model: Name of the model on the server.
        timeout_seconds: Limit for one whole request.
        logprobs: Whether to request token log-probabilities.
        account: Counts requests and tokens, and keeps the budget.
        secrets: Strings that must not appear in any message.
        options: Options of each request.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        timeout_seconds: float,
        logprobs: bool,
        account: Account,
        secrets: tuple[str, ...],
        options: Mapping[str, Any],
    ) -> None:
        self.url = public_url(str(client.base_url))
        self._client = client
        self._model = model
        self._timeout_seconds = timeout_seconds
        self._account = account
        self._secrets = secrets
        self._is_warned = False
        self._options: dict[str, Any] = dict(options)
        self._accepted: dict[str, Any] | None = None  # options of the last successful request
        if logprobs:
            self._options |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS[0]}

    @property
    def n_new_tokens(self) -> int:
        """The longest answer that is requested, in tokens."""
        return int(self._options.get("max_tokens") or self._options["max_completion_tokens"])

    async def send(self, prompt: str, reservation: Reservation) -> Reply:
        """Ask once, dropping options that the server does not support.

        Args:
            prompt: The question.
            reservation: Made for this request.

        Raises:
            BudgetExhausted: The budget does not cover another try.
            Failure: There is no answer.
            JudgeError: No question can be answered: rejected key or unknown model.
        """
        while True:
            options = dict(self._options)
            try:
                reply = await self._send(prompt, options, reservation)
            except Failure as failure:
                # Many requests are in flight when the first one shows which option is not supported.
                # After a success with the same options, the question is the cause: error messages quote
                # the whole request.
                outdated = options != self._options
                if failure.kind is FailureKind.REFUSED and (
                    outdated or (options != self._accepted and self._adapt(failure))
                ):
                    continue
                raise
            self._accepted = options
            return reply

    async def _send(self, prompt: str, options: Mapping[str, Any], reservation: Reservation) -> Reply:
        n_new_tokens = self.n_new_tokens
        reservation.cover(prompt, n_new_tokens)
        self._account.facts["n_requests"] += 1
        request: dict[str, Any] = {"model": self._model, "messages": [{"role": "user", "content": prompt}], **options}
        # A request that was sent may be billed, whatever comes back: also after a timeout or a cancellation.
        is_counted = False
        try:
            # The client's own timeout applies to each read, so a slow stream would never time out.
            response = await asyncio.wait_for(
                self._client.chat.completions.with_raw_response.create(**request), self._timeout_seconds
            )
            body = json.loads(response.http_response.content)
            is_counted = True
            self._count(body, prompt)
        except openai.APIStatusError as error:
            is_counted = True  # errors are not billed
            raise await self._explain(error) from None
        except (TimeoutError, openai.APIConnectionError) as error:
            # By name, because the HTTP library depends on the version of `openai`.
            is_counted = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            kind = FailureKind.UNREACHABLE if is_counted else FailureKind.DOWN
            message = self._clean(_find_reason(error))
            if not is_counted and isinstance(error, TimeoutError | openai.APITimeoutError):
                message = f"no answer within {self._timeout_seconds:g} seconds, see --timeout_seconds"
            raise Failure(kind, message) from None
        except (ValueError, RecursionError):  # bad JSON or bad UTF-8
            raise Failure(FailureKind.BROKEN, "the reply is not JSON") from None
        finally:
            if not is_counted:
                self._account.bill_estimate(prompt, n_new_tokens)
        reply = read_reply(body)
        # Scrubbed before truncation, because part of a key is secret too.
        max_chars = max(MAX_CONTENT_CHARS, MAX_TOKEN_CHARS * n_new_tokens)
        return Reply(self._scrub(reply.content)[:max_chars], reply.tokens)

    def _count(self, body: Any, prompt: str) -> None:  # noqa: ANN401
        # Before parsing, because a reply without an answer is billed too.
        n_read, n_written = read_usage(body)
        if n_read:
            self._account.bill(prompt, n_read, n_written)
        else:
            if not self._is_warned:
                logger.warning(
                    "%s: does not report tokens; they are estimated (a token per %d bytes)", self.url, BYTES_PER_TOKEN
                )
            self._is_warned = True
            self._account.bill_estimate(prompt, estimate_tokens(read_words(body)))
        if isinstance(body, Mapping) and isinstance(body.get("model"), str):
            # Names like "gpt-4o-mini" are aliases of dated models that change.
            self._account.facts["served_model"] = self._clean(body["model"])

    async def _explain(self, error: openai.APIStatusError) -> Failure | JudgeError:
        """Return a failure of this request, or a `JudgeError` if no request can succeed."""
        status, code = error.status_code, error.code or ""
        message = self._clean(f"{status}: {_find_message(error)}")
        if 300 <= status < 400:
            target = self._clean(error.response.headers.get("location", "").partition("?")[0].rpartition("@")[2])
            return JudgeError(f"{self.url}: redirects to {target}, which is not followed; correct --base_url")
        if status in (401, 403):
            # Message not quoted: servers repeat parts of the key.
            names = f"{OPENAI_KEY}, or {SERVER_KEY} for other servers"
            return JudgeError(f"{self.url}: the server refused the key ({status}); check {names}")
        if status == 402 or code == "insufficient_quota":
            return JudgeError(f"{self.url}: the account cannot pay for more ({message})")
        if status == 404 or code == "model_not_found":
            return await self._explain_unknown(message)
        if status == 429:
            return Failure(FailureKind.LIMITED, message, retry_after_seconds=_read_retry_after(error))
        # Some servers return 501 for an unknown option.
        if status in (408, 409, 425) or (status >= 500 and "logprobs" not in message):
            return Failure(FailureKind.DOWN, message, retry_after_seconds=_read_retry_after(error))
        return Failure(FailureKind.REFUSED, message, error.param if isinstance(error.param, str) else "")

    async def _explain_unknown(self, message: str) -> JudgeError:
        try:
            request = self._client.models.with_raw_response.list()
            listing = json.loads((await asyncio.wait_for(request, self._timeout_seconds)).http_response.content)
            served = [str(model["id"]) for model in listing["data"]]
        except (TimeoutError, openai.OpenAIError, ValueError, KeyError, TypeError):
            return JudgeError(f"{self.url}: {message}; is this the server's address (most end in /v1)?")
        if self._model in served or not served:
            return JudgeError(f'{self.url}: {message}; model "{self._model}" cannot be asked here')
        more = f" and {len(served) - N_MODELS_SHOWN} more" if len(served) > N_MODELS_SHOWN else ""
        names = self._clean(", ".join(served[:N_MODELS_SHOWN]), 2000)
        return JudgeError(f'{self.url}: no model "{self._model}" there; served: {names}{more}')

    def _adapt(self, failure: Failure) -> bool:
        """Drop the option that the server refused for the rest of the run; return False if there is none."""
        options, message = self._options, failure.message.lower()
        about = failure.param.lower() or message
        # vLLM names both limits if a question exceeds the context; that is no unsupported option.
        wants_other_limit = "max_completion_tokens" in message and ("support" in message or "instead" in message)
        if wants_other_limit and "max_tokens" in options:
            del options["max_tokens"]
            options["max_completion_tokens"] = MAX_REASONING_TOKENS
        elif "logprobs" in about and options.get("top_logprobs") == TOP_LOGPROBS[0]:
            options["top_logprobs"] = TOP_LOGPROBS[1]
        elif "logprobs" in about and "logprobs" in options:
            del options["logprobs"], options["top_logprobs"]
            logger.warning("%s gives no log-probabilities; answers are parsed from the text", self.url)
        elif "response_format" in options and _SCHEMA.search(about):
            del options["response_format"]
            logger.warning("%s enforces no JSON schema; its answers are checked instead", self.url)
        elif "temperature" in about and "temperature" in options:
            del options["temperature"]
            logger.warning("%s does not support temperature 0; answers may differ between runs", self.url)
        else:
            return False
        return True

    def _clean(self, message: str, max_chars: int = MAX_QUOTED_CHARS) -> str:
        """Prepare a server's message for display: no secrets, one line, truncated."""
        # Scrubbed before truncation, because part of a key is secret too.
        message = " ".join(self._scrub(message).split())
        return message if len(message) <= max_chars else message[:max_chars] + " ..."

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return replace_surrogates(text)


def connect(base_url: str, key: str | None, timeout_seconds: float) -> openai.AsyncOpenAI:
    """Create the client, with its own retries off.

    User and password in the address are sent as a header, because libraries log the address.
    """
    parts = urlsplit(base_url)
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    client = openai.AsyncOpenAI(
        api_key=key or PLACEHOLDER_KEY,
        base_url=bare,
        timeout=openai.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
        max_retries=0,
        default_headers=headers,
        # Neither texts nor a key go to a host that the user did not name.
        http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
    )
    if not _is_openai(base_url):  # what the client reads from the environment is for OpenAI
        client.organization = client.project = client.admin_api_key = None
    return client


def read_key(base_url: str) -> str | None:
    """Return the key for a server from the environment; None if the server needs none.

    OpenAI's key is sent to OpenAI's hosts only, other servers have a variable of their own, and no key
    is sent unencrypted over a public network.

    Raises:
        JudgeError: OpenAI is used without a key, or the key has invalid characters.
    """
    parts = urlsplit(base_url)
    is_openai = _is_openai(base_url)
    name = OPENAI_KEY if is_openai else SERVER_KEY
    key = os.environ.get(name, "").strip()
    if not key:
        if is_openai:
            raise JudgeError(f"{public_url(base_url)}: needs a key; set {name}, or --base_url for another server")
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise JudgeError(f"{name}: holds spaces or characters that no key has; set it again")
    if parts.scheme != "https" and not _is_private(parts.hostname or ""):
        raise JudgeError(f"{public_url(base_url)}: {name} is not sent unencrypted; use https, or unset {name}")
    return key


def _is_openai(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


def _is_private(host: str) -> bool:
    """Tell whether a host is this machine or in a private network."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:  # a name; one without a dot, such as "localhost" or a container's, is not a public one
        return "." not in host or host.endswith((".local", ".internal"))


def find_secrets(key: str | None, base_url: str) -> tuple[str, ...]:
    """Return the strings that must not appear in any message: the key and the address's password.

    Strings of up to three characters are ignored, because replacing them would garble answers.
    """
    password = urlsplit(base_url).password or ""
    return tuple(secret for secret in (key or "", password, unquote(password)) if len(secret) > 3)


def public_url(base_url: str) -> str:
    """Return an address without user, password and query.

    >>> public_url("https://me:secret@llm.example:8000/v1/?token=secret")
    'https://llm.example:8000/v1'
    """
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _read_retry_after(error: openai.APIStatusError) -> float | None:
    """Read `Retry-After`: seconds or an HTTP date."""
    value = error.response.headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        # HTTP dates are in GMT, even without a time zone.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - time.time()
    return max(seconds, 0.0) if seconds == seconds else None  # NaN is not equal to itself


def _find_message(error: openai.APIStatusError) -> str:
    """Return the error message from any of the common response formats."""
    body = error.body
    for name in ("message", "detail", "error"):
        if isinstance(body, Mapping) and body.get(name):
            body = body[name]
    return str(body or "no message")


def _find_reason(error: BaseException) -> str:
    """Return the system's error message behind the client's generic 'Connection error.'."""
    reasons = [str(cause) for cause in _follow_causes(error) if str(cause)]
    return reasons[-1] if reasons else type(error).__name__


def _follow_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
