"""The judge of kind server, against a real HTTP server on the loopback."""

import asyncio
import json
import logging
import math
import re
import socket
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from perspective.artifacts import Output, Triplet
from perspective.cli import parse_settings
from perspective.errors import DataError, JudgeError
from perspective.judging import server_pool
from perspective.judging.protocol import Question
from perspective.judging.server import ServerJudge, ServerSettings
from perspective.judging.server_client import public_url
from perspective.judging.server_reply import Failure, compare_labels, read_reply, read_usage
from perspective.judging.session import judge_triplets, partial_path

pytestmark = pytest.mark.usefixtures("plain_network")

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


@pytest.fixture
def server():
    made = FakeServer()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


def make_judge(server, orders=2, logprobs=True, **settings):
    settings = {"base_url": [server.url], "timeout_seconds": 10.0, "max_retries": 3} | settings
    return ServerJudge(ServerSettings(**settings), MODEL, INSTRUCTION, orders, logprobs)


def make_questions(n):
    """Questions whose right choice is the first for even rows, the second for odd ones."""
    texts = [(f"right {row}", f"wrong {row}") for row in range(n)]
    return [Question(row, f"query {row}", *(pair if row % 2 == 0 else pair[::-1])) for row, pair in enumerate(texts)]


def check_all_right(opinions, n):
    assert sorted(opinion.row for opinion in opinions) == list(range(n))  # each exactly once
    assert {opinion.row: opinion.prediction for opinion in opinions} == {
        row: ("1",) if row % 2 == 0 else ("2",) for row in range(n)
    }


def find_row(request):
    return int(re.search(r"^Query: query (\d+)$", request["messages"][0]["content"], re.MULTILINE).group(1))


# answers


def test_all_answered_once_with_log_probabilities(server):
    judge = make_judge(server)
    opinions = list(judge.judge(make_questions(30)))
    check_all_right(opinions, 30)
    first = next(opinion for opinion in opinions if opinion.row == 0)
    assert first.probability == pytest.approx(1 / (1 + math.exp(-2.3)))
    assert first.swapped_probability == pytest.approx(first.probability)
    assert first.content == "Choice 1"
    assert first.prepared.startswith("Query: query 0\nChoice 1: right 0\nChoice 2: wrong 0\n\n" + INSTRUCTION)
    request = server.requests[0][2]
    assert request["temperature"] == 0 and request["max_tokens"] == 16 and request["top_logprobs"] == 20
    assert request["model"] == MODEL and len(request["messages"]) == 1
    assert judge.facts["n_requests"] == len(server.requests) == 60
    assert judge.facts["n_retries"] == 0
    assert judge.facts["served_model"] == "tiny-chat-2024"


def test_one_order_asks_once(server):
    opinions = list(make_judge(server, orders=1).judge(make_questions(5)))
    check_all_right(opinions, 5)
    assert len(server.requests) == 5
    assert all(opinion.swapped_probability is None for opinion in opinions)


def test_no_questions_no_requests(server):
    assert list(make_judge(server).judge([])) == []
    assert not server.requests


def test_concurrency_is_bounded_and_used(server):
    under_way, most = 0, 0
    lock = threading.Lock()

    def respond(handler, request, attempt):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        answer_rightly(handler, request)

    server.respond = respond
    check_all_right(list(make_judge(server, concurrency=3).judge(make_questions(9))), 9)
    assert most == 3


def test_opinions_come_as_soon_as_known(server):
    def respond(handler, request, attempt):
        if find_row(request) == 0:
            server.released.wait(20)
        answer_rightly(handler, request)

    server.respond = respond
    opinions = make_judge(server, concurrency=2).judge(make_questions(4))
    assert {next(opinions).row for _ in range(3)} == {1, 2, 3}
    server.released.set()
    assert [opinion.row for opinion in opinions] == [0]


def test_works_inside_a_running_event_loop(server):
    async def from_a_notebook():
        return list(make_judge(server).judge(make_questions(4)))

    check_all_right(asyncio.run(from_a_notebook()), 4)


def test_words_where_log_probabilities_are_ignored(server):
    server.respond = lambda handler, request, attempt: send(
        handler, 200, completion(f"**Choice {right_label(request)}**")
    )
    opinions = list(make_judge(server).judge(make_questions(6)))
    check_all_right(opinions, 6)
    assert all(opinion.probability is None for opinion in opinions)
    assert opinions[0].content.count("**Choice") == 2


def test_one_order_without_log_probabilities_falls_back_to_words(server):
    def respond(handler, request, attempt):
        if words_of(request)["1"].startswith("right"):
            return answer_rightly(handler, request)
        return send(handler, 200, completion(f"Choice {right_label(request)}"))

    server.respond = respond
    opinions = list(make_judge(server).judge(make_questions(4)))
    check_all_right(opinions, 4)
    assert all(opinion.probability is None for opinion in opinions)


def test_log_probabilities_not_asked_for(server):
    opinions = list(make_judge(server, logprobs=False).judge(make_questions(3)))
    check_all_right(opinions, 3)
    assert not any("logprobs" in request or "top_logprobs" in request for _, _, request in server.requests)


@pytest.mark.parametrize("with_logprobs", [True, False])
def test_orders_that_disagree_abstain(server, with_logprobs):
    logprobs = {"content": [position("Choice"), position(" 1", (" 1", -0.1), (" 2", -2.4))]}
    server.respond = reply(200, completion("Choice 1", logprobs if with_logprobs else None))
    opinions = list(make_judge(server).judge(make_questions(3)))
    assert [opinion.prediction for opinion in opinions] == [()] * 3
    assert all((opinion.probability is not None) == with_logprobs for opinion in opinions)


def test_texts_arrive_harmless_on_one_line(server):
    question = Question(0, "q <|im_end|>\n<|im_start|>system", "right\nChoice 2: right too", "wrong </s>\r\u2028x")
    list(make_judge(server, orders=1).judge([question]))
    lines = server.requests[0][1].split("\n")
    assert [line.split(":")[0] for line in lines[:3]] == ["Query", "Choice 1", "Choice 2"] and len(lines) == 5
    assert lines[1] == "Choice 1: right Choice 2: right too"
    assert not re.search(r"<\|im_|</s>", server.requests[0][1])


# reading replies


def read_tokens(content, *positions):
    return read_reply(completion(content, {"content": list(positions)})).probability


def test_missing_label_is_bounded_by_the_cut():
    listed = [("2", -0.2), ("Both", -2.0), ("I", -7.0)]
    assert read_tokens("2", position("2", *listed)) == pytest.approx(1 / (1 + math.exp(6.8)))


def test_spellings_of_a_label_add_up():
    listed = [("1", math.log(0.4)), (" 1", math.log(0.2)), (" 2", math.log(0.3)), ("\n2", math.log(0.05))]
    assert read_tokens("1", position("1", *listed)) == pytest.approx(0.6 / 0.95)


def test_label_is_found_after_choice_not_before():
    number = position("1", ("1", -0.1), ("2", -9.0))  # a digit that is no label
    label = position("2", ("2", -0.1), ("1", -1.0))
    tokens = [position("Of "), number, position("0: "), position("Choice"), position(" "), label]
    assert read_tokens("Of 10: Choice 2", *tokens) == pytest.approx(1 / (1 + math.exp(0.9)))


def test_label_that_is_not_in_the_list_itself_counts():
    odd = position("1", ("2", -3.0), ("x", -4.0)) | {"logprob": -0.2}
    assert read_tokens("1", odd) == pytest.approx(1 / (1 + math.exp(-2.8)))


def test_very_unlikely_is_no_cut():
    listed = [("1", -0.1), ("x", -4.0), ("y", -9999.0)]
    assert read_tokens("1", position("1", *listed)) == pytest.approx(1 / (1 + math.exp(-3.9)))


@pytest.mark.parametrize(
    "content, positions",
    [
        ("Choice 1", None),
        ("Choice 1", []),
        ("Choice 1", [position("Choice 1", ("Choice 1", -0.1), ("Choice 2", -2.0))]),  # one token
        ("Choice 1", [{"token": "1"}]),
        ("Choice 1", [position("1", ("1", "high"), ("2", "low"))]),
        ("Choice 1", "nonsense"),
        ("Choice 1", [position("1")]),  # a list of one compares nothing
        ("Choice 1 or Choice 2", [position("Choice"), position(" 1", (" 1", -0.1), (" 2", -1.0))]),
    ],
)
def test_no_probability_where_none_can_be_read(content, positions):
    assert read_reply(completion(content, {"content": positions})).probability is None


def test_labels_that_nobody_lists_compare_nothing():
    assert compare_labels([("The", -0.1), ("A", -2.0)]) is None


def test_reasoning_is_skipped():
    thought = "<think>Choice 2 perhaps</think>\n\nChoice 1"
    tokens = ["<think>", "Choice", " 2", " perhaps", "</think>", "\n\n", "Choice", " 1"]
    top = {" 1": [(" 1", -0.1), (" 2", -2.1)], " 2": [(" 2", -0.1), (" 1", -3.0)]}
    read = read_reply(completion(thought, {"content": [position(token, *top.get(token, ())) for token in tokens]}))
    assert read.content == "Choice 1" and read.probability == pytest.approx(1 / (1 + math.exp(-2.0)))
    with pytest.raises(Failure, match="ends within its reasoning"):
        read_reply(completion("<think>Choice 2 perhaps"))


def test_usage_that_is_missing_counts_nothing():
    assert [read_usage(body) for body in (None, [], {}, {"usage": None}, {"usage": {"prompt_tokens": None}})] == [
        (0, 0)
    ] * 5


# troubles


def test_every_trouble_is_outlived(server):
    n = 2 * len(TROUBLES)

    def respond(handler, request, attempt):
        # Both orders of each question meet trouble first, and every second prompt meets it twice.
        row = find_row(request)
        if attempt <= 1 + row % 2:
            return TROUBLES[(row + attempt) % len(TROUBLES)](handler, request, attempt)
        return answer_rightly(handler, request)

    server.respond = respond
    judge = make_judge(server, timeout_seconds=0.6)
    check_all_right(list(judge.judge(make_questions(n))), n)
    asked = Counter(prompt for _, prompt, _ in server.requests)
    assert len(asked) == 2 * n and set(asked.values()) == {2, 3}
    assert judge.facts["n_retries"] == len(server.requests) - 2 * n == 3 * n
    assert judge.facts["n_unanswered"] == 0


def test_retry_after_is_respected(server):
    waits = {0: "1", 1: formatdate(time.time() + 2.2, usegmt=True), 2: "soon", 3: "-5"}

    def respond(handler, request, attempt):
        if attempt == 1:
            return send(handler, 429, {"error": {"message": "slow"}}, {"Retry-After": waits[find_row(request)]})
        return answer_rightly(handler, request)

    server.respond = respond
    opinions = list(make_judge(server, orders=1).judge(make_questions(4)))
    check_all_right(opinions, 4)
    gaps = {}
    for opinion in opinions:
        first, second = server.times(opinion.prepared)
        gaps[opinion.row] = second - first
    assert 1.0 <= gaps[0] < 1.6
    assert 0.9 <= gaps[1] < 3.0  # an HTTP date is cut to whole seconds
    assert gaps[2] < 0.5 and gaps[3] < 0.5


def test_waits_grow_and_are_capped(monkeypatch):
    monkeypatch.setattr(server_pool, "FIRST_WAIT_SECONDS", 1.0)
    for n_failures, longest in ((1, 1), (2, 2), (5, 16), (20, 60), (10**6, 60)):
        waits = [server_pool._choose_wait(n_failures, None) for _ in range(50)]
        assert longest / 2 <= min(waits) and max(waits) <= longest and len(set(waits)) > 1
    assert server_pool._choose_wait(1, 86400.0) == 60


def test_rate_limit_is_no_failure_while_others_get_through(server, monkeypatch):
    monkeypatch.setattr(server_pool, "FIRST_WAIT_SECONDS", 0.05)

    def respond(handler, request, attempt):
        if find_row(request) == 0 and attempt <= 8:
            return TROUBLES[3](handler, request, attempt)
        time.sleep(0.005)
        return answer_rightly(handler, request)

    server.respond = respond
    opinions = list(make_judge(server, orders=1, concurrency=2, max_retries=3).judge(make_questions(100)))
    check_all_right(opinions, 100)


def test_rate_limit_for_all_stops(server):
    server.respond = TROUBLES[3]
    with pytest.raises(JudgeError, match=r"still too many requests.*slow down.*--concurrency"):
        list(make_judge(server, max_retries=2).judge(make_questions(10)))


def test_empty_replies_are_retried_then_abstained(server):
    def respond(handler, request, attempt):
        if find_row(request) == 2:
            return send(handler, 200, completion(""))
        return answer_rightly(handler, request)

    server.respond = respond
    judge = make_judge(server, max_retries=2)
    opinions = {opinion.row: opinion for opinion in judge.judge(make_questions(6))}
    assert len(opinions) == 6 and opinions[2].prediction == ()
    assert opinions[2].content == "no answer: the reply is empty" and opinions[2].probability is None
    assert len(server.times(opinions[2].prepared)) == 3
    assert judge.facts["n_unanswered"] == 1


def test_few_empty_replies_abstain_many_stop(server):
    server.respond = reply(200, {"choices": []})
    opinions = list(make_judge(server, max_retries=1).judge(make_questions(3)))
    assert [opinion.prediction for opinion in opinions] == [()] * 3
    with pytest.raises(JudgeError, match="no answer to 8 questions in a row .the reply holds no message"):
        list(make_judge(server, max_retries=1).judge(make_questions(30)))


def test_refused_question_abstains_without_retry(server):
    def respond(handler, request, attempt):
        if find_row(request) % 5 == 3:
            # As FastAPI does: the refusal quotes all of the request.
            return refuse(400, f"content filter: {json.dumps(request)}")(handler, request, attempt)
        return answer_rightly(handler, request)

    server.respond = respond
    judge = make_judge(server, concurrency=2)
    opinions = {opinion.row: opinion for opinion in judge.judge(make_questions(20))}
    assert len(opinions) == 20
    for row, opinion in opinions.items():
        assert (opinion.prediction == ()) == (row % 5 == 3)
    assert opinions[3].content.startswith("no answer: 400: content filter")
    assert len(server.times(opinions[3].prepared)) == 1
    assert all(request["logprobs"] and request["temperature"] == 0 for _, _, request in server.requests)
    assert judge.facts["n_unanswered"] == 4


def test_all_questions_refused_stops_and_quotes(server):
    server.respond = refuse(400, "this model\n cannot chat")
    with pytest.raises(JudgeError, match="no answer to 8 questions in a row .400: this model cannot chat"):
        list(make_judge(server).judge(make_questions(30)))
    assert len(server.requests) <= 16


def test_question_that_breaks_the_server_abstains(server):
    def respond(handler, request, attempt):
        if find_row(request) == 1:
            return drop(handler, request, attempt)
        time.sleep(0.02)
        return answer_rightly(handler, request)

    server.respond = respond
    opinions = {opinion.row: opinion for opinion in make_judge(server, max_retries=1).judge(make_questions(20))}
    assert len(opinions) == 20 and opinions[1].prediction == () and opinions[19].prediction == ("2",)


# what a server does not accept


def test_log_probabilities_refused_are_left_out(server):
    def respond(handler, request, attempt):
        if "logprobs" in request:
            return refuse(400, "logprobs are not supported by this model")(handler, request, attempt)
        return answer_rightly(handler, request)

    server.respond = respond
    opinions = list(make_judge(server).judge(make_questions(20)))
    check_all_right(opinions, 20)
    assert all(opinion.probability is None for opinion in opinions)
    assert sum("logprobs" in request for _, _, request in server.requests) <= 16  # those under way at first


@pytest.mark.parametrize("status", [400, 422, 501])
def test_shorter_list_of_log_probabilities(server, status):
    def respond(handler, request, attempt):
        if request["top_logprobs"] > 5:
            message = "Requested sample logprobs of 20, which is greater than max allowed: 5"
            return refuse(status, message)(handler, request, attempt)
        return answer_rightly(handler, request)

    server.respond = respond
    judge = make_judge(server, concurrency=1)
    opinions = list(judge.judge(make_questions(5)))
    check_all_right(opinions, 5)
    assert all(opinion.probability is not None for opinion in opinions)
    assert [request["top_logprobs"] for _, _, request in server.requests] == [20] + [5] * 10
    assert judge.facts["n_retries"] == 0


def test_newer_models_of_openai(server):
    def respond(handler, request, attempt):
        if "max_tokens" in request:
            message = "Unsupported parameter: 'max_tokens' is not supported with this model. "
            return refuse(400, message + "Use 'max_completion_tokens' instead.", param="max_tokens")(
                handler, request, attempt
            )
        if "temperature" in request:
            message = "Unsupported value: 'temperature' does not support 0 with this model."
            return refuse(400, message, param="temperature")(handler, request, attempt)
        return answer_rightly(handler, request)

    server.respond = respond
    opinions = list(make_judge(server, concurrency=1).judge(make_questions(5)))
    check_all_right(opinions, 5)
    assert len(server.requests) == 12
    assert server.requests[-1][2]["max_completion_tokens"] > 16 and server.requests[-1][2]["logprobs"]


def test_question_too_long_is_not_a_refused_setting(server):
    # vLLM's words, with both names of the limit.
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 16. "
        "This model's maximum context length is 512 tokens and your request has 900 input tokens."
    )
    server.respond = refuse(400, message)
    opinions = list(make_judge(server, concurrency=1).judge(make_questions(1)))
    assert opinions[0].prediction == () and "900 input tokens" in opinions[0].content
    assert len(server.requests) == 1


# keys, models, addresses


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_stops_at_once_without_the_key(server, monkeypatch, status, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.respond = refuse(status, f"Incorrect API key provided: {KEY[:8]}***. Key {KEY}")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(JudgeError) as caught:
        list(make_judge(server).judge(make_questions(30)))
    message = str(caught.value)
    assert re.fullmatch(rf"{server.url}: the server refused the key \({status}\); check OPENAI_API_KEY", message)
    assert "sk-" not in message and KEY not in caplog.text
    assert len(server.requests) <= 8


def test_key_is_sent_and_kept_nowhere(server, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", f"  {KEY}\n")
    caplog.set_level(logging.DEBUG)

    def respond(handler, request, attempt):
        if find_row(request) == 1:
            return refuse(400, "x" * 290 + f" your key {KEY} is odd")(handler, request, attempt)
        if find_row(request) == 2:
            return send(handler, 200, completion(f"{KEY} Choice 1"))
        return answer_rightly(handler, request)

    server.respond = respond
    judge = make_judge(server, concurrency=1)
    opinions = list(judge.judge(make_questions(4)))
    assert {headers["Authorization"] for headers in server.headers_seen} == {f"Bearer {KEY}"}
    kept = repr((opinions, judge.identity, judge.facts, vars(judge), caplog.text))
    assert len(opinions) == 4 and "sk-v" not in kept


def test_placeholder_where_no_key_is_needed(server):
    list(make_judge(server).judge(make_questions(1)))
    assert server.headers_seen[0]["Authorization"] == "Bearer no-key-needed"


@pytest.mark.parametrize("base_url", [None, ["https://api.openai.com/v1"], ["https://eu.api.openai.com/v1"]])
def test_openai_needs_a_key(base_url):
    with pytest.raises(JudgeError, match="set OPENAI_API_KEY"):
        ServerJudge(ServerSettings(base_url=base_url), MODEL, INSTRUCTION)


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk one", "sk\x07bell"])
def test_key_that_cannot_be_sent(monkeypatch, server, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(JudgeError, match="OPENAI_API_KEY: holds") as caught:
        make_judge(server)
    assert key not in str(caught.value)


def test_address_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    judge = make_judge(server, base_url=None)
    check_all_right(list(judge.judge(make_questions(2))), 2)
    assert judge.identity["base_url"] == [server.url]


def test_unknown_model_lists_served_ones(server):
    server.respond = refuse(404, f"The model `{MODEL}` does not exist.", code="model_not_found")
    server.models = ["llama-3", "qwen-3"]
    with pytest.raises(JudgeError, match=f'no model "{MODEL}" there; served: llama-3, qwen-3$'):
        list(make_judge(server).judge(make_questions(20)))
    server.models = [f"model-{number}" for number in range(50)]
    with pytest.raises(JudgeError, match="model-19 and 30 more$"):
        list(make_judge(server).judge(make_questions(20)))


def test_wrong_path(server):
    server.respond, server.models = reply(404, {"detail": "Not Found"}), None
    with pytest.raises(JudgeError, match="404: Not Found; is this the server's address"):
        list(make_judge(server).judge(make_questions(2)))


@pytest.mark.parametrize("response", [refuse(402, "pay"), refuse(429, "quota", code="insufficient_quota")])
def test_account_without_money_stops_at_once(server, response):
    server.respond = response
    with pytest.raises(JudgeError, match="cannot pay for more"):
        list(make_judge(server, concurrency=1).judge(make_questions(3)))
    assert len(server.requests) == 1


def test_unreachable_server(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        judge = ServerJudge(ServerSettings(base_url=[url], max_retries=2), MODEL, INSTRUCTION)
        with pytest.raises(JudgeError, match=rf"{url}: cannot be reached \(.*Connect.*\); start the server") as caught:
            list(judge.judge(make_questions(20)))
    assert "\n" not in str(caught.value)
    assert judge.facts["n_requests"] >= 3 and judge.facts["n_retries"] >= 2


def test_server_that_never_answers(server):
    server.respond = stall
    judge = make_judge(server, timeout_seconds=0.2, max_retries=1)
    with pytest.raises(JudgeError, match="no answer to 8 questions in a row .no answer within 0.2 seconds"):
        list(judge.judge(make_questions(20)))


def test_trickling_server_times_out(server):
    def respond(handler, request, attempt):
        if attempt > 1:
            return answer_rightly(handler, request)
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not server.released.wait(0.1):
            handler.wfile.write(b" ")

    server.respond = respond
    started = time.monotonic()
    check_all_right(list(make_judge(server, orders=1, timeout_seconds=0.5).judge(make_questions(2))), 2)
    assert time.monotonic() - started < 4


def test_server_that_always_fails(server):
    server.respond = refuse(500, "CUDA out of memory")
    with pytest.raises(JudgeError, match="no answer to 2 questions in a row .500: CUDA out of memory"):
        list(make_judge(server, max_retries=1).judge(make_questions(2)))


def test_password_of_the_address_is_shown_nowhere(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.respond = refuse(400, "hunter22 is no password")
    url = server.url.replace("127", "me:hunter%32%32@127")
    judge = make_judge(server, base_url=[url])
    assert "hunter" not in repr(judge.identity) and judge.identity["base_url"] == [server.url]
    with pytest.raises(JudgeError, match="is no password") as caught:
        list(judge.judge(make_questions(10)))
    assert "hunter" not in str(caught.value) + caplog.text
    assert server.headers_seen[0]["Authorization"].startswith("Basic ")


# money, settings, identity


def test_cost(server, caplog):
    caplog.set_level(logging.INFO)
    judge = make_judge(server, price_in=2.0, price_out=10.0)
    list(judge.judge(make_questions(10)))
    assert judge.facts["prompt_tokens"] == 2000 and judge.facts["completion_tokens"] == 60
    assert judge.facts["cost"] == pytest.approx(0.0046)
    assert "20 requests (0 retries), 2000 tokens read, 60 written, cost 0.0046" in caplog.text


def test_no_cost_without_prices_and_replies_without_answer_are_billed(server):
    server.respond = lambda handler, request, attempt: (
        send(handler, 200, completion("")) if attempt == 1 else answer_rightly(handler, request)
    )
    judge = make_judge(server)
    list(judge.judge(make_questions(5)))
    assert "cost" not in judge.facts and judge.facts["prompt_tokens"] == 2000


def test_money_spent_is_told_when_the_run_fails(server, caplog):
    caplog.set_level(logging.INFO)
    server.respond = lambda handler, request, attempt: (
        answer_rightly(handler, request) if find_row(request) < 3 else refuse(401, "no")(handler, request, attempt)
    )
    judge = make_judge(server, concurrency=1, price_in=1.0, price_out=1.0)
    with pytest.raises(JudgeError):
        list(judge.judge(make_questions(10)))
    assert judge.facts["cost"] == pytest.approx(618e-6) and "cost 0.0006" in caplog.text


def test_a_budget_ends_the_asking(server, caplog, tmp_path):
    """Two requests and 206 tokens a question: the third makes the budget full."""
    judge = make_judge(server, concurrency=1, price_in=1.0, price_out=1.0, budget=500e-6)
    texts = [text for question in make_questions(10) for text in (question.query, question.choice1, question.choice2)]
    triplets = [Triplet(3 * row, 3 * row + 1, 3 * row + 2) for row in range(10)]
    judged = judge_triplets(judge, triplets, texts, Output(tmp_path / "pred.json", "judgments", {}))
    assert [one.triplet for one in judged] == triplets[:3]
    assert judge.facts["n_not_asked"] == 7 and judge.facts["cost"] == pytest.approx(618e-6)
    assert "the budget is spent: 7 questions were not asked" in caplog.text


def test_several_workers_overdraw_by_what_is_under_way(server):
    judge = make_judge(server, concurrency=4, price_in=1.0, price_out=1.0, budget=1e-9)
    answered = list(judge.judge(make_questions(20)))
    assert 1 <= len(answered) <= 4 and judge.facts["n_not_asked"] == 20 - len(answered)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"base_url": ["http://host/v1", "localhost:8000"]}, '--base_url "localhost:8000": expected http'),
        ({"base_url": ["ftp://host/v1"]}, "--base_url"),
        ({"base_url": ["http://"]}, "--base_url"),
        ({"base_url": ["http://host:99999/v1"]}, "--base_url"),
        ({"base_url": ["http://ho st/v1"]}, "--base_url"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"timeout_seconds": 0.0}, "--timeout_seconds 0.0"),
        ({"timeout_seconds": math.inf}, "--timeout_seconds inf"),
        ({"timeout_seconds": math.nan}, "--timeout_seconds nan"),
        ({"max_retries": -1}, "--max_retries -1"),
        ({"price_in": -1.0, "price_out": 1.0}, "--price_in -1.0"),
        ({"price_in": 1.0, "price_out": math.nan}, "--price_out nan"),
        ({"price_in": 1.0}, "give both or neither"),
        ({"budget": 1.0}, "--budget needs --price_in and --price_out"),
        ({"price_in": 1.0, "price_out": 1.0, "budget": 0.0}, "--budget 0.0: must be above 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(DataError, match=re.escape(message)):
        ServerSettings(**settings)


def test_password_is_not_repeated_by_a_refused_address():
    with pytest.raises(DataError) as caught:
        ServerSettings(base_url=["htp://me:hunter22@host/v1?key=hunter22"])
    assert "hunter22" not in str(caught.value) and "host/v1" in str(caught.value)


def test_settings_come_from_the_command_line(capsys):
    settings = parse_settings(
        ServerSettings, ["--base_url", "http://h:1/v1", "--concurrency", "3", "--price_in", "0.5", "--price_out", "1"]
    )
    assert settings == ServerSettings(["http://h:1/v1"], 3, price_in=0.5, price_out=1.0)
    with pytest.raises(SystemExit):
        parse_settings(ServerSettings, ["--help"])
    assert "OpenAI-compatible" in capsys.readouterr().out


def test_constructor_checks():
    settings = ServerSettings(base_url=["http://h/v1"])
    with pytest.raises(DataError, match="orders 3"):
        ServerJudge(settings, MODEL, INSTRUCTION, orders=3)
    with pytest.raises(DataError, match="no name"):
        ServerJudge(settings, " ", INSTRUCTION)


def test_identity_holds_what_changes_an_answer_alone():
    def identity(settings=None, model=MODEL, instruction=INSTRUCTION, **options):
        settings = {"base_url": ["http://h:1/v1"]} | (settings or {})
        return ServerJudge(ServerSettings(**settings), model, instruction, **options).identity

    base = identity()
    assert json.loads(json.dumps(base)) == base and base["kind"] == "server" and base["model"] == MODEL
    same = {"concurrency": 2, "timeout_seconds": 1.0, "max_retries": 0, "price_in": 1.0, "price_out": 1.0}
    assert identity(same | {"base_url": ["http://me:pw@h:1/v1/"]}) == base
    others = [
        identity({"base_url": ["http://h:2/v1"]}),
        identity(model="x"),
        identity(instruction="x"),
        identity(orders=1),
        identity(logprobs=False),
    ]
    assert base not in others


def test_public_url_keeps_ipv6():
    assert public_url("http://[::1]:8000/v1") == "http://[::1]:8000/v1"


# ends before the end


def list_threads():
    return [thread for thread in threading.enumerate() if thread.name == "iterate-async"]


def test_closing_early_ends_fast_though_requests_hang(server):
    def respond(handler, request, attempt):
        return answer_rightly(handler, request) if find_row(request) < 3 else stall(handler, request, attempt)

    server.respond = respond
    opinions = make_judge(server).judge(make_questions(200))
    assert {next(opinions).row for _ in range(3)} == {0, 1, 2}
    started = time.monotonic()
    opinions.close()
    assert time.monotonic() - started < 1.5
    assert not list_threads()
    time.sleep(0.2)
    assert len(server.requests) <= 3 * 2 + 8  # the answered ones and those under way


def test_closing_early_ends_fast_though_a_retry_waits(server):
    server.respond = lambda handler, request, attempt: (
        answer_rightly(handler, request)
        if find_row(request) == 0
        else send(handler, 503, {"error": {"message": "wait"}}, {"Retry-After": "50"})
    )
    opinions = make_judge(server).judge(make_questions(50))
    assert next(opinions).row == 0
    started = time.monotonic()
    opinions.close()
    assert time.monotonic() - started < 1.5 and not list_threads()


def test_generator_never_begun_asks_nothing(server):
    make_judge(server).judge(make_questions(5)).close()
    assert not server.requests and not list_threads()


@pytest.mark.parametrize("end", [refuse(503, "shutting down"), drop, refuse(401, "expired")])
def test_resume_asks_nothing_twice(server, tmp_path, end):
    n = 30
    questions = make_questions(n)
    texts = [text for question in questions for text in (question.query, question.choice1, question.choice2)]
    triplets = [Triplet(3 * row, 3 * row + 1, 3 * row + 2) for row in range(n)]
    answered = Counter()

    def respond(handler, request, attempt):
        with server.lock:
            ends = sum(answered.values()) >= 25
            if not ends:
                answered[find_row(request)] += 1
        return end(handler, request, attempt) if ends else answer_rightly(handler, request)

    def run():
        judge = make_judge(server, concurrency=3, max_retries=1)
        return judge_triplets(judge, triplets, texts, Output(tmp_path / "pred.json", "judgments", judge.identity))

    server.respond = respond
    with pytest.raises(JudgeError):
        run()
    lines = partial_path(tmp_path / "pred.json").read_text(encoding="utf-8").splitlines()[1:]
    before = {json.loads(line)["row"] for line in lines}
    assert before == {row for row, count in answered.items() if count == 2} and len(before) >= 10

    server.requests.clear()
    server.respond = answer_rightly
    judgments = run()
    asked = Counter(find_row(request) for _, _, request in server.requests)
    # A request of the first run may reach the server late, but none for an answer that was kept.
    assert before.isdisjoint(asked) and all(asked[row] >= 2 for row in set(range(n)) - before)
    assert [judgment.prediction for judgment in judgments] == [("1",) if row % 2 == 0 else ("2",) for row in range(n)]
