"""A server of chat completions on the loopback, and the misfortunes it can meet."""

import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from helpers import make_question, row_of

from perspective.judging.server import ServerJudge
from perspective.llm.server.settings import ServerSettings

KEY = "sk-very-secret-0123456789"
MODEL = "tiny-chat"
INSTRUCTION = "Select the text that better corresponds with the Query."


class FakeServer(ThreadingHTTPServer):
    """An OpenAI-compatible server whose `respond(handler, request, attempt)` a test replaces.

    `attempt` counts the requests with this very prompt, from 1.
    """

    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.respond = answer_rightly
        self.models = [MODEL, "other"]
        self.requests = []  # (time, prompt, request)
        self.headers_seen = []
        self.released = threading.Event()  # ends stalls
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def times(self, prompt):
        return [moment for moment, seen, _ in self.requests if seen == prompt]

    def handle_error(self, request, client_address):
        pass  # a client that hung up is what some tests want


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms a reply otherwise

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.server.models is None:
            return send(self, 404, {"detail": "Not Found"})
        return send(self, 200, {"object": "list", "data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = request["messages"][0]["content"]
        with self.server.lock:
            self.server.requests.append((time.monotonic(), prompt, request))
            self.server.headers_seen.append(self.headers)  # case-insensitive
            attempt = len(self.server.times(prompt))
        self.server.respond(self, request, attempt)


def send(handler, status, body, headers=(), content_type="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in dict(headers).items():
        handler.send_header(name, value)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def completion(content, logprobs=None):
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny-chat-2024",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop",
                "logprobs": logprobs,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103},
    }


def position(token, *top):
    """A token with the likeliest ones at its place, as (token, log-probability)."""
    listed = dict(top)
    return {
        "token": token,
        "logprob": listed.get(token, -0.1),
        "top_logprobs": [{"token": name, "logprob": value} for name, value in top],
    }


def words_of(request):
    prompt = request["messages"][0]["content"]
    return {label: re.search(rf"^Choice {label}: (.*)$", prompt, re.MULTILINE).group(1) for label in "12"}


def right_label(request):
    return next(label for label, words in words_of(request).items() if words.startswith("right"))


def answer_rightly(handler, request, attempt=1):
    label = right_label(request)
    logprobs = None
    if request.get("logprobs"):
        top = [(f" {label}", -0.1), (f" {3 - int(label)}", -2.4), (" The", -6.0)]
        logprobs = {"content": [position("Choice", ("Choice", -0.01), ("The", -5.0)), position(f" {label}", *top)]}
    send(handler, 200, completion(f"Choice {label}", logprobs))


def stall(handler, request, attempt):
    handler.server.released.wait(20)
    handler.close_connection = True


def drop(handler, request, attempt):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def cut_short(handler, request, attempt):
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    drop(handler, request, attempt)


def reply(status, body, headers=(), content_type="application/json"):
    return lambda handler, request, attempt: send(handler, status, body, headers, content_type)


def refuse(status, message, **fields):
    return reply(status, {"error": {"message": message, **fields}})


TROUBLES = [
    stall,
    drop,
    cut_short,
    refuse(429, "slow down"),
    refuse(500, "oops"),
    refuse(503, "loading"),
    refuse(408, "too slow"),
    refuse(409, "conflict"),
    reply(502, b"<html>bad gateway</html>", content_type="text/html"),
    reply(200, b"<html>welcome</html>", content_type="text/html"),
    reply(200, b'{"choices": [{"mess'),
    reply(200, b"\xff\xfe\x00"),
    reply(200, []),
    reply(200, {"choices": []}),
    reply(200, {"choices": None}),
    reply(200, completion(None)),
    reply(200, completion("  ")),
    reply(200, completion(["Choice 1"])),
]


def make_judge(server, orders=2, logprobs=True, **settings):
    settings = {"base_url": [server.url], "timeout_seconds": 10.0, "max_retries": 3} | settings
    return ServerJudge(ServerSettings(**settings), MODEL, INSTRUCTION, orders, logprobs)


def make_questions(n):
    """Questions whose right choice is the first for even rows, the second for odd ones."""
    texts = [(f"right {row}", f"wrong {row}") for row in range(n)]
    return [
        make_question(row, f"query {row}", *(pair if row % 2 == 0 else pair[::-1])) for row, pair in enumerate(texts)
    ]


def check_all_right(judgments, n):
    assert sorted(row_of(judgment) for judgment in judgments) == list(range(n))  # each exactly once
    assert {row_of(judgment): judgment.prediction for judgment in judgments} == {
        row: ("1",) if row % 2 == 0 else ("2",) for row in range(n)
    }


def find_row(request):
    return int(re.search(r"^Query: query (\d+)$", request["messages"][0]["content"], re.MULTILINE).group(1))
