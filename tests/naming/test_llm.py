"""LLMs that name, and the log of their replies."""

import json
import threading

import pytest
from fake_server import MODEL, completion, refuse, send

from perspective.errors import JudgeError, ModelError
from perspective.llm.loading import load_llm
from perspective.llm.replies import ReplyLog
from perspective.llm.server.settings import ServerSettings
from perspective.naming.llm import LocalNamer, ServerNamer
from perspective.naming.prompts import MAX_TEXT_CHARS, RESPONSE_FORMAT, Ask

ASKS = [Ask((f"where is card {number}?",)) for number in range(3)]
ASKS += [Ask(("lost card", "card is lost"), ("lost",)), Ask(("lost card",), ("lost",), name="lost card")]
LONG = Ask(tuple("card " * 200 for _ in range(4)), ("card",) * 3, contrasts=("bank " * 200,) * 3, other_name="bank")


@pytest.fixture
def ask_server(server, plain_network):
    server.respond = answer_json

    def make(**settings):
        settings = {"base_url": [server.url], "timeout_seconds": 10.0, "max_retries": 1, **settings}
        return ServerNamer(ServerSettings(**settings), MODEL, "intent")

    return make


def answer_json(handler, request, attempt=1):
    send(handler, 200, completion('{"name": "lost card", "sentence": "A card is lost."}'))


def test_a_shared_beginning_changes_no_reply(llm):
    namer = LocalNamer(llm, "intent")
    assert namer._shares and not namer.is_chat
    replies = dict(namer.reply(ASKS))
    assert sorted(replies) == list(range(len(ASKS)))
    namer._shares = False
    assert dict(namer.reply(ASKS)) == replies


def test_a_reply_does_not_depend_on_its_batch(llm):
    alone = {place: dict(LocalNamer(llm, "intent", 1).reply([ask]))[0] for place, ask in enumerate(ASKS)}
    assert dict(LocalNamer(llm, "intent", 32).reply(ASKS)) == alone


def test_long_texts_are_shortened_to_the_context(llm):
    namer = LocalNamer(llm, "intent")
    assert dict(namer.reply([LONG])).keys() == {0}
    assert len(namer.write_prompt(LONG)) < 8 * MAX_TEXT_CHARS + 2000


def test_a_context_without_room_for_the_question_is_one_line(llm):
    namer = LocalNamer(llm, "intent")
    namer._max_tokens = 100  # as if the model had been made so
    with pytest.raises(ModelError, match="its context of 768 tokens is too short for the prompt"):
        list(namer.reply([LONG]))


def test_large_chat_models_get_a_question(llm, monkeypatch):
    monkeypatch.setattr("perspective.llm.chat.CHAT_PARAMETERS", 1000)
    namer = LocalNamer(llm, "intent")
    assert namer.is_chat and namer.write_prompt(ASKS[0]).startswith("<|im_start|>user")
    assert dict(namer.reply(ASKS[:1])).keys() == {0}


def test_a_server_is_asked_for_json_and_answers_are_logged(server, ask_server, tmp_path):
    namer = ask_server()
    log = ReplyLog(tmp_path / "log.jsonl", {"llm": MODEL}, namer.facts)
    assert log.ask(namer, [*ASKS, ASKS[0]]) == ['{"name": "lost card", "sentence": "A card is lost."}'] * 6
    assert len(server.requests) == 5  # equal prompts are asked once
    assert all(request["response_format"] == RESPONSE_FORMAT for _, _, request in server.requests)
    again = ask_server()
    assert ReplyLog(tmp_path / "log.jsonl", {"llm": MODEL}, again.facts).ask(again, ASKS) == log.ask(namer, ASKS)
    assert len(server.requests) == 5 and again.facts["prompt_tokens"] == namer.facts["prompt_tokens"] == 500


def test_replies_of_another_llm_are_not_used(server, ask_server, tmp_path):
    for model in ("one", "other"):
        namer = ask_server()
        ReplyLog(tmp_path / "log.jsonl", {"llm": model}, namer.facts).ask(namer, ASKS)
    assert len(server.requests) == 10 and namer.facts["prompt_tokens"] == 500


def test_a_server_without_schemas_is_asked_without(server, ask_server):
    def respond(handler, request, attempt):
        if "response_format" in request:
            return refuse(400, "response_format json_schema is not supported")(handler, request, attempt)
        return answer_json(handler, request)

    server.respond = respond
    assert len(list(ask_server(concurrency=1).reply(ASKS))) == 5
    assert sum("response_format" in request for _, _, request in server.requests) == 1


def test_questions_that_fail_have_an_empty_reply_and_are_asked_again(server, ask_server, tmp_path):
    server.respond = lambda handler, request, attempt: (
        refuse(400, "no") if "card 1" in request["messages"][0]["content"] else answer_json
    )(handler, request, attempt)
    namer = ask_server()
    log = ReplyLog(tmp_path / "log.jsonl", {}, namer.facts)
    assert [bool(reply) for reply in log.ask(namer, ASKS)] == [True, False, True, True, True]
    assert namer.facts["n_unanswered"] == 1
    server.respond = answer_json
    again = ask_server()
    assert all(ReplyLog(tmp_path / "log.jsonl", {}, again.facts).ask(again, ASKS)) and len(server.requests) == 6


def test_a_server_that_answers_nothing_is_one_line_and_keeps_what_it_answered(server, ask_server, tmp_path):
    server.respond = lambda handler, request, attempt: send(handler, 200, completion(""))
    namer = ask_server()
    with pytest.raises(JudgeError, match="no answer to any of 5 questions"):
        ReplyLog(tmp_path / "log.jsonl", {}, namer.facts).ask(namer, ASKS)


def test_a_budget_ends_the_asking_and_a_higher_one_asks_the_rest(server, ask_server, tmp_path):
    prices = {"price_in": 1.0, "price_out": 1.0, "concurrency": 1}
    namer = ask_server(budget=500e-6, **prices)
    replies = ReplyLog(tmp_path / "log.jsonl", {}, namer.facts).ask(namer, ASKS)
    n_first = sum(map(bool, replies))
    assert 0 < n_first < 5 and namer.facts["n_not_asked"] == 5 - n_first and namer.facts["cost"] <= 500e-6
    more = ask_server(budget=1.0, **prices)
    assert all(ReplyLog(tmp_path / "log.jsonl", {}, more.facts).ask(more, ASKS)) and len(server.requests) == 5
    assert more.facts["prompt_tokens"] == 500


def test_a_log_with_a_torn_line_is_read_up_to_it(server, ask_server, tmp_path):
    path = tmp_path / "log.jsonl"
    namer = ask_server(concurrency=1)
    ReplyLog(path, {}, namer.facts).ask(namer, ASKS[:2])
    path.write_bytes(path.read_bytes() + b'{"key": "tor')
    again = ask_server(concurrency=1)
    ReplyLog(path, {}, again.facts).ask(again, ASKS[:3])
    assert len(server.requests) == 3 and all(json.loads(line) for line in path.read_text().splitlines())


def test_answers_are_logged_as_they_come(server, ask_server, tmp_path):
    path, seen = tmp_path / "log.jsonl", []
    stop = threading.Event()

    def respond(handler, request, attempt):
        if len(server.requests) == 3:
            stop.wait(0.5)
            seen.append(path.read_text().count('"reply"'))
        answer_json(handler, request)

    server.respond = respond
    namer = ask_server(concurrency=1)
    ReplyLog(path, {}, namer.facts).ask(namer, ASKS)
    assert seen == [2]


@pytest.mark.real
def test_smollm2_names_an_intent():
    namer = LocalNamer(load_llm("smollm2"), "intent")
    texts = ("What is the exchange rate?", "How are your exchange rates calculated?", "Are exchange rates good?")
    asks = [Ask(texts[:1]), Ask(texts, ("exchange rate",)), Ask(texts, ("exchange rate",), name="exchange rates")]
    replies = dict(namer.reply(asks))
    assert "exchange rate" in replies[0] and "exchange rate" in replies[1] and "." in replies[2]
