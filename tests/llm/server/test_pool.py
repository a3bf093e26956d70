"""Several servers that share the questions, on the loopback; some of them die."""

import json
import logging
import threading
import time
from collections import Counter

import pytest
from fake_server import (
    INSTRUCTION,
    MODEL,
    FakeServer,
    answer_rightly,
    check_all_right,
    drop,
    find_row,
    make_questions,
    refuse,
    send,
)
from helpers import row_of

from perspective.artifacts import Output, Triplet
from perspective.cli import parse_settings
from perspective.errors import JudgeError
from perspective.judging.server import ServerJudge
from perspective.judging.session import judge_triplets, partial_path
from perspective.llm.server import pool
from perspective.llm.server.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("plain_network")


class MortalServer(FakeServer):
    """Counts what it answered; once killed it refuses connections and cuts those that are open."""

    def __init__(self):
        super().__init__()
        self.n_answered = Counter()  # by prompt
        self.delay_seconds = 0.0
        self.dies_after = None  # answers
        self.dead = False
        self.respond = self.answer
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, handler, request, attempt):
        time.sleep(self.delay_seconds)
        with self.lock:
            if not self.dead and self.dies_after is not None and self.n_answered.total() >= self.dies_after:
                self.dead = True
                threading.Thread(target=self.kill).start()
            if not self.dead:
                self.n_answered[request["messages"][0]["content"]] += 1
        return drop(handler, request, attempt) if self.dead else answer_rightly(handler, request)

    def kill(self):
        self.dead = True
        self.shutdown()
        self.server_close()


@pytest.fixture
def servers():
    made = [MortalServer() for _ in range(2)]
    yield made
    for server in made:
        server.released.set()
        server.kill()


def make_judge(servers, **settings):
    settings = {"base_url": [server.url for server in servers], "timeout_seconds": 10.0, "max_retries": 2} | settings
    return ServerJudge(ServerSettings(**settings), MODEL, INSTRUCTION)


def test_questions_are_shared_out(servers):
    for server in servers:
        server.delay_seconds = 0.01
    judge = make_judge(servers)
    check_all_right(list(judge.judge(make_questions(50))), 50)
    shares = [server.n_answered.total() for server in servers]
    assert sum(shares) == judge.facts["n_requests"] == 100 and min(shares) >= 35
    assert judge.facts["n_retries"] == 0
    assert judge.identity["base_url"] == [server.url for server in servers]


def test_the_faster_server_answers_more(servers):
    servers[0].delay_seconds, servers[1].delay_seconds = 0.1, 0.005
    check_all_right(list(make_judge(servers).judge(make_questions(60))), 60)
    assert servers[1].n_answered.total() > 2 * servers[0].n_answered.total()


def test_a_server_that_dies_loses_no_question(servers, tmp_path, caplog):
    n = 60
    questions = make_questions(n)
    texts = [text for question in questions for text in (question.query, question.choice1, question.choice2)]
    triplets = [Triplet(3 * row, 3 * row + 1, 3 * row + 2) for row in range(n)]
    for server in servers:
        server.delay_seconds = 0.01
    servers[0].dies_after = 20
    judge = make_judge(servers)
    output = Output(tmp_path / "pred.json", "judgments", judge.identity)
    judgments = judge_triplets(judge, triplets, texts, output)
    assert [judgment.prediction for judgment in judgments] == [("1",) if row % 2 == 0 else ("2",) for row in range(n)]
    written = [
        json.loads(line)["query_idx"] // 3 for line in partial_path(output.path).read_text("utf-8").splitlines()[1:]
    ]
    assert sorted(written) == list(range(n))
    # Both orders of each question were answered by one of the two servers, once.
    answered = servers[0].n_answered + servers[1].n_answered
    assert len(answered) == 2 * n and set(answered.values()) == {1}
    assert servers[0].dead and servers[0].n_answered.total() == 20
    assert judge.facts["n_unanswered"] == 0 and judge.facts["n_retries"] <= 16  # what was under way
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert f"{servers[0].url}: suspended after failures" in caplog.text


def test_a_server_that_was_never_there(servers, caplog):
    servers[0].kill()
    judge = make_judge(servers, concurrency=4)
    started = time.monotonic()
    check_all_right(list(judge.judge(make_questions(40))), 40)
    assert time.monotonic() - started < 20
    assert judge.facts["n_retries"] <= 4
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_a_server_that_fails_time_after_time_is_set_aside(servers):
    servers[0].respond = refuse(500, "CUDA out of memory")
    judge = make_judge(servers, concurrency=4, max_retries=2)
    check_all_right(list(judge.judge(make_questions(40))), 40)
    assert 3 <= len(servers[0].requests) <= 3 + 4


def test_a_server_that_comes_back_is_asked_again(servers, monkeypatch, caplog):
    monkeypatch.setattr(pool, "REST_SECONDS", 0.1)
    caplog.set_level(logging.INFO)

    def respond(handler, request, attempt):
        if len(servers[0].requests) <= 6:
            return refuse(503, "loading")(handler, request, attempt)
        return servers[0].answer(handler, request, attempt)

    servers[0].respond = respond
    servers[1].delay_seconds = 0.02
    check_all_right(list(make_judge(servers, concurrency=4).judge(make_questions(120))), 120)
    assert servers[0].n_answered.total() > 20
    assert caplog.text.count("answers again") == 1


def test_one_question_at_a_time_tries_a_server_anew(servers, monkeypatch):
    monkeypatch.setattr(pool, "REST_SECONDS", 0.2)
    servers[0].respond = refuse(503, "loading")
    servers[1].delay_seconds = 0.02
    started = time.monotonic()
    check_all_right(list(make_judge(servers, concurrency=8).judge(make_questions(200))), 200)  # about a second
    n_rests = (time.monotonic() - started) / 0.2
    assert len(servers[0].requests) <= 3 + 8 + 2 * n_rests


def test_a_limited_server_is_no_reason_to_wait(servers):
    servers[0].respond = lambda handler, request, attempt: send(
        handler, 429, {"error": {"message": "slow down"}}, {"Retry-After": "30"}
    )
    started = time.monotonic()
    check_all_right(list(make_judge(servers, concurrency=2).judge(make_questions(10))), 10)
    assert time.monotonic() - started < 20


def test_a_question_that_breaks_both_servers_abstains(servers):
    for server in servers:
        server.delay_seconds = 0.005
        server.respond = lambda handler, request, attempt: (
            drop(handler, request, attempt) if find_row(request) == 1 else handler.server.answer(handler, request, 1)
        )
    judge = make_judge(servers)
    judgments = {row_of(judgment): judgment for judgment in judge.judge(make_questions(30))}
    assert len(judgments) == 30 and judgments[1].prediction == () and judge.facts["n_unanswered"] == 1
    assert judgments[29].prediction == ("2",)


def test_all_servers_down(servers):
    for server in servers:
        server.kill()
    with pytest.raises(JudgeError, match=rf"^{servers[0].url}, {servers[1].url}: cannot be reached") as caught:
        list(make_judge(servers).judge(make_questions(20)))
    assert "\n" not in str(caught.value)


def test_all_servers_die(servers):
    for server in servers:
        server.dies_after = 15
    judge, judgments = make_judge(servers, concurrency=3), []
    with pytest.raises(JudgeError, match="run the same command again"):
        for judgment in judge.judge(make_questions(40)):
            judgments.append(judgment)
    assert 10 <= len(judgments) <= 15  # of 30 answers, two an judgment
    assert all(judgment.prediction for judgment in judgments) and judge.facts["n_unanswered"] == 0


def test_a_server_without_the_model_stops_the_run(servers):
    servers[1].respond, servers[1].models = refuse(404, "no such model", code="model_not_found"), ["other"]
    with pytest.raises(JudgeError, match=rf"^{servers[1].url}: no model .* there; served: other"):
        list(make_judge(servers).judge(make_questions(20)))


def test_a_server_named_twice_is_one(servers):
    judge = make_judge(servers[:1] * 2)
    assert judge.identity["base_url"] == [servers[0].url]


@pytest.mark.parametrize(
    "options", ["--base_url http://a/v1 http://b/v1", "--base_url http://a/v1 --base_url http://b/v1"]
)
def test_several_addresses_on_the_command_line(options):
    assert parse_settings(ServerSettings, options.split()).base_url == ["http://a/v1", "http://b/v1"]
