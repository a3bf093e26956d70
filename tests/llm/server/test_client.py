"""Requests to a server that fails, refuses or is not there."""

import json
import logging
import re
import socket
import time
from collections import Counter
from email.utils import formatdate

import pytest
from fake_server import (
    INSTRUCTION,
    KEY,
    MODEL,
    TROUBLES,
    answer_rightly,
    check_all_right,
    completion,
    drop,
    find_row,
    make_judge,
    make_questions,
    refuse,
    reply,
    send,
    stall,
)
from helpers import row_of

from perspective.errors import JudgeError
from perspective.judging.server import ServerJudge
from perspective.llm.server import pool
from perspective.llm.server.client import read_key
from perspective.llm.server.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("plain_network")


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
    judgments = list(make_judge(server, orders=1).judge(make_questions(4)))
    check_all_right(judgments, 4)
    gaps = {}
    for judgment in judgments:
        first, second = server.times(judgment.prepared)
        gaps[row_of(judgment)] = second - first
    assert 1.0 <= gaps[0] < 1.6
    assert 0.9 <= gaps[1] < 3.0  # an HTTP date is cut to whole seconds
    assert gaps[2] < 0.5 and gaps[3] < 0.5


def test_waits_grow_and_are_capped(monkeypatch):
    monkeypatch.setattr(pool, "FIRST_WAIT_SECONDS", 1.0)
    for n_failures, longest in ((1, 1), (2, 2), (5, 16), (20, 60), (10**6, 60)):
        waits = [pool._choose_wait(n_failures, None) for _ in range(50)]
        assert longest / 2 <= min(waits) and max(waits) <= longest and len(set(waits)) > 1
    assert pool._choose_wait(1, 86400.0) == 60


def test_rate_limit_is_no_failure_while_others_get_through(server, monkeypatch):
    monkeypatch.setattr(pool, "FIRST_WAIT_SECONDS", 0.05)

    def respond(handler, request, attempt):
        if find_row(request) == 0 and attempt <= 8:
            return TROUBLES[3](handler, request, attempt)
        time.sleep(0.005)
        return answer_rightly(handler, request)

    server.respond = respond
    judgments = list(make_judge(server, orders=1, concurrency=2, max_retries=3).judge(make_questions(100)))
    check_all_right(judgments, 100)


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
    judgments = {row_of(judgment): judgment for judgment in judge.judge(make_questions(6))}
    assert len(judgments) == 6 and judgments[2].prediction == ()
    assert judgments[2].content == "no answer: the reply is empty" and judgments[2].probability is None
    assert len(server.times(judgments[2].prepared)) == 3
    assert judge.facts["n_unanswered"] == 1


def test_few_empty_replies_abstain_many_stop(server):
    server.respond = reply(200, {"choices": []})
    judge = make_judge(server, max_retries=1)
    with pytest.raises(JudgeError, match="no answer to any of 3 questions .the reply holds no message"):
        list(judge.judge(make_questions(3)))
    judge.facts["n_answered"] = 5  # an earlier run had answers: these questions are at fault
    judgments = list(judge.judge(make_questions(3)))
    assert [judgment.prediction for judgment in judgments] == [()] * 3
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
    judgments = {row_of(judgment): judgment for judgment in judge.judge(make_questions(20))}
    assert len(judgments) == 20
    for row, judgment in judgments.items():
        assert (judgment.prediction == ()) == (row % 5 == 3)
    assert judgments[3].content.startswith("no answer: 400: content filter")
    assert len(server.times(judgments[3].prepared)) == 1
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
    judgments = {row_of(judgment): judgment for judgment in make_judge(server, max_retries=1).judge(make_questions(20))}
    assert len(judgments) == 20 and judgments[1].prediction == () and judgments[19].prediction == ("2",)


# what a server does not accept


def test_log_probabilities_refused_are_left_out(server):
    def respond(handler, request, attempt):
        if "logprobs" in request:
            return refuse(400, "logprobs are not supported by this model")(handler, request, attempt)
        return answer_rightly(handler, request)

    server.respond = respond
    judgments = list(make_judge(server).judge(make_questions(20)))
    check_all_right(judgments, 20)
    assert all(judgment.probability is None for judgment in judgments)
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
    judgments = list(judge.judge(make_questions(5)))
    check_all_right(judgments, 5)
    assert all(judgment.probability is not None for judgment in judgments)
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
    judgments = list(make_judge(server, concurrency=1).judge(make_questions(5)))
    check_all_right(judgments, 5)
    assert len(server.requests) == 12
    assert server.requests[-1][2]["max_completion_tokens"] > 16 and server.requests[-1][2]["logprobs"]


def test_question_too_long_is_not_a_refused_setting(server):
    # vLLM's words, with both names of the limit.
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 16. "
        "This model's maximum context length is 512 tokens and your request has 900 input tokens."
    )
    server.respond = refuse(400, message)
    with pytest.raises(JudgeError, match="no answer to any of 1 questions .* 900 input tokens"):
        list(make_judge(server, concurrency=1).judge(make_questions(1)))
    assert len(server.requests) == 1


# keys, models, addresses


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_stops_at_once_without_the_key(server, monkeypatch, status, caplog):
    monkeypatch.setenv("LLM_SERVER_KEY", KEY)
    server.respond = refuse(status, f"Incorrect API key provided: {KEY[:8]}***. Key {KEY}")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(JudgeError) as caught:
        list(make_judge(server).judge(make_questions(30)))
    message = str(caught.value)
    assert re.fullmatch(rf"{server.url}: the server refused the key \({status}\); check OPENAI_API_KEY, .*", message)
    assert "sk-" not in message and KEY not in caplog.text
    assert len(server.requests) <= 8


def test_key_is_sent_and_kept_nowhere(server, monkeypatch, caplog):
    monkeypatch.setenv("LLM_SERVER_KEY", f"  {KEY}\n")
    caplog.set_level(logging.DEBUG)

    def respond(handler, request, attempt):
        if find_row(request) == 1:
            return refuse(400, "x" * 290 + f" your key {KEY} is odd")(handler, request, attempt)
        if find_row(request) == 2:
            return send(handler, 200, completion(f"{KEY} Choice 1"))
        return answer_rightly(handler, request)

    server.respond = respond
    judge = make_judge(server, concurrency=1)
    judgments = list(judge.judge(make_questions(4)))
    assert {headers["Authorization"] for headers in server.headers_seen} == {f"Bearer {KEY}"}
    kept = repr((judgments, judge.identity, judge.facts, vars(judge), caplog.text))
    assert len(judgments) == 4 and "sk-v" not in kept


def test_placeholder_where_no_key_is_needed(server):
    list(make_judge(server).judge(make_questions(1)))
    assert server.headers_seen[0]["Authorization"] == "Bearer no-key-needed"


@pytest.mark.parametrize("base_url", [None, ["https://api.openai.com/v1"], ["https://eu.api.openai.com/v1"]])
def test_openai_needs_a_key(base_url):
    with pytest.raises(JudgeError, match="set OPENAI_API_KEY"):
        ServerJudge(ServerSettings(base_url=base_url), MODEL, INSTRUCTION)


@pytest.mark.parametrize("key", ["sk-schlüssel", "sk one", "sk\x07bell"])
def test_key_that_cannot_be_sent(monkeypatch, server, key):
    monkeypatch.setenv("LLM_SERVER_KEY", key)
    with pytest.raises(JudgeError, match="LLM_SERVER_KEY: holds") as caught:
        make_judge(server)
    assert key not in str(caught.value)


def test_a_key_goes_only_where_it_belongs(server, monkeypatch):
    """OpenAI's key to OpenAI alone; another server's not in the clear over a network; neither after a redirect."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    list(make_judge(server).judge(make_questions(1)))
    assert KEY not in repr(server.headers_seen)
    monkeypatch.setenv("LLM_SERVER_KEY", "other-key")
    for base_url in ("http://example.org/v1", "http://8.8.8.8/v1"):
        with pytest.raises(JudgeError, match="LLM_SERVER_KEY is not sent unencrypted"):
            read_key(base_url)
    keys = {
        url: read_key(url)
        for url in ("https://example.org/v1", "http://10.0.0.7:8000/v1", "http://localhost/v1", "http://vllm:8000/v1")
    }
    assert set(keys.values()) == {"other-key"}
    assert read_key("https://api.openai.com/v1") == KEY
    with pytest.raises(JudgeError, match="OPENAI_API_KEY is not sent unencrypted"):
        read_key("http://api.openai.com/v1")


def test_a_server_that_counts_nothing_is_counted_for(server, caplog):
    """Without a count the budget would never end the asking."""

    def respond(handler, request, attempt):
        send(handler, 200, {name: value for name, value in completion("Choice 1").items() if name != "usage"})

    server.respond = respond
    judge = make_judge(server, concurrency=1, price_in=1.0, price_out=1.0, budget=200e-6)
    assert len(list(judge.judge(make_questions(20)))) < 20
    assert judge.facts["n_estimated"] == judge.facts["n_requests"] and judge.facts["n_not_asked"]
    assert judge.facts["completion_tokens"] == 3 * judge.facts["n_requests"] and judge.facts["cost"] <= 200e-6
    assert [record.message for record in caplog.records].count(
        f"{server.url}: does not report tokens; they are estimated (a token per 3 bytes)"
    ) == 1


def test_a_redirect_is_not_followed(server):
    def respond(handler, request, attempt):
        handler.send_response(307)
        handler.send_header("Location", f"{server.url}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.respond = respond
    with pytest.raises(JudgeError, match=f"redirects to {server.url}/elsewhere, which is not followed"):
        list(make_judge(server, concurrency=1, max_retries=0).judge(make_questions(1)))
    assert len(server.requests) == 1  # the server itself would have got what followed


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
    # The server may have answered later, and bill it.
    assert judge.facts["n_estimated"] == judge.facts["n_requests"] >= 16
    assert judge.facts["completion_tokens"] == 16 * judge.facts["n_requests"] and judge.facts["prompt_tokens"] > 0


def test_an_unreachable_server_is_reported_within_seconds(monkeypatch):
    monkeypatch.setattr(pool, "FIRST_WAIT_SECONDS", 1.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        judge = ServerJudge(ServerSettings(base_url=[url]), MODEL, INSTRUCTION)
        started = time.monotonic()
        with pytest.raises(JudgeError, match="cannot be reached"):
            list(judge.judge(make_questions(20)))
    assert time.monotonic() - started < 8
    assert judge.facts["prompt_tokens"] == 0  # nothing was sent


def test_organisation_and_project_go_to_openai_alone(server, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-mine")
    list(make_judge(server).judge(make_questions(1)))
    assert "of-mine" not in " ".join(map(str, server.headers_seen))


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
    assert time.monotonic() - started < 20


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
