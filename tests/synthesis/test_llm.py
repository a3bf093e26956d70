"""LLMs that write: sampled and greedy, in batches, on a server, and never asked twice."""

import json
import threading

import pytest
from fake_server import MODEL, completion, refuse, send

from perspective.errors import DataError, JudgeError
from perspective.llm.loading import load_llm
from perspective.llm.server.settings import ServerSettings
from perspective.options import LLMOptions
from perspective.synthesis.examples import read_examples
from perspective.synthesis.llm import LocalWriter, ask_all, load_writer
from perspective.synthesis.questions import plan_brainstorm, plan_free, plan_grounded
from perspective.synthesis.recipe import load_recipe
from perspective.synthesis.settings import WritingSettings

RECIPE = load_recipe()
PASSAGES = {f"p{row}": f"lost card number {row} " * (row + 1) for row in range(6)}
QUESTIONS = plan_grounded(RECIPE, PASSAGES, 8, ["en"], 0)


@pytest.fixture(scope="module")
def llm(llm_folder):
    found = load_llm(str(llm_folder))
    found.model.config.max_position_embeddings = 2048
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_reply_does_not_depend_on_its_batch(llm, temperature, one_thread):
    alone, together = (
        dict(LocalWriter(llm, RECIPE, WritingSettings(temperature=temperature, llm_batch_size=size)).reply(QUESTIONS))
        for size in (1, 8)
    )
    assert alone == together and sorted(alone) == list(range(8))
    assert len(set(alone.values())) > 4


def test_a_long_document_is_shortened_to_the_context(llm, one_thread):
    writer = LocalWriter(llm, RECIPE, WritingSettings(style="chat"))
    question = plan_grounded(RECIPE, {"a": "card " * 20_000, "b": "bank " * 20_000}, 1, ["en"], 0)
    assert dict(writer.reply(question)).keys() == {0}


def test_small_llms_continue_examples_and_can_be_asked_to_chat(llm):
    assert not LocalWriter(llm, RECIPE, WritingSettings()).is_chat
    assert LocalWriter(llm, RECIPE, WritingSettings(style="chat")).is_chat


def answer(handler, request, attempt=1):
    assert request["temperature"] == 1.0
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema")
    if schema is None:
        return send(
            handler, 200, completion("- Given a place, find what it is known for.\n- Given a tool, find its use.")
        )
    fields = {name: f"{name} of {len(handler.server.requests)}" for name in schema["required"]}
    return send(handler, 200, completion(json.dumps(fields)))


@pytest.fixture
def ask(server, plain_network, tmp_path):
    server.respond = answer

    def call(questions, **settings):
        settings = ServerSettings(**{"base_url": [server.url], "timeout_seconds": 10.0, "max_retries": 1, **settings})
        path = tmp_path / "replies.jsonl"
        return ask_all(
            questions, path, RECIPE, LLMOptions(llm=MODEL), settings, WritingSettings(temperature=1.0), "test"
        )

    return call


def test_a_server_gets_the_schema_and_nothing_twice(server, ask):
    kinds = [kind for kind in RECIPE.types if kind != "grounded"]
    tasks = {kind: one.tasks for kind, one in RECIPE.types.items()}
    questions = plan_free(RECIPE, kinds, 24, True, ["en", "fr"], tasks, 0)
    replies, prompter, facts = ask(questions)
    examples = read_examples(questions, replies, prompter)
    assert not [example for example in examples if example.fault] and facts["n_open"] == 0
    assert len(server.requests) == 24
    assert ask(questions)[0] == replies and len(server.requests) == 24
    more = plan_free(RECIPE, kinds, 30, True, ["en", "fr"], tasks, 0)
    assert len(ask(more)[0]) == 30 and len(server.requests) == 30
    brainstorm = plan_brainstorm(["short_long"], 3)
    assert len(set(ask(brainstorm)[0])) == 1 and len(server.requests) == 33  # equal prompts, asked thrice


def test_a_server_that_writes_prose_leaves_faults(server, ask):
    server.respond = lambda handler, request, attempt: send(handler, 200, completion("Of course! A query could be"))
    replies, prompter, _ = ask(QUESTIONS)
    assert {example.fault for example in read_examples(QUESTIONS, replies, prompter)} == {"not JSON"}


def test_a_server_that_refuses_the_schema_is_asked_without(server, ask):
    def respond(handler, request, attempt):
        if "response_format" in request:
            return refuse(400, "response_format is not supported")(handler, request, attempt)
        return send(handler, 200, completion('{"query": "a question that was asked"}'))

    server.respond = respond
    assert ask(QUESTIONS)[2]["n_open"] == 0


def test_a_server_that_dies_keeps_what_was_answered(server, ask):
    def die(handler, request, attempt):
        return (answer if len(server.requests) <= 3 else refuse(500, "oops"))(handler, request, attempt)

    server.respond = die
    with pytest.raises(JudgeError, match="finished answers are kept"):
        ask(QUESTIONS, concurrency=1)
    n_asked = len(server.requests)
    server.respond = answer
    replies, _, facts = ask(QUESTIONS)
    assert all(replies) and facts["n_open"] == 0 and len(server.requests) == n_asked + len(QUESTIONS) - 3


def test_a_budget_leaves_questions_open(server, ask):
    replies, prompter, facts = ask(QUESTIONS, concurrency=1, budget=0.0006, price_in=1.0, price_out=1.0)
    assert 0 < facts["n_open"] < len(QUESTIONS)
    examples = read_examples(QUESTIONS, replies, prompter)  # what was not asked is no fault of the LLM
    assert len(examples) == len(QUESTIONS) - facts["n_open"] and not any(example.fault for example in examples)
    assert ask(QUESTIONS)[2]["n_open"] == 0 and len(server.requests) == len(QUESTIONS)


def test_requests_run_at_the_stated_concurrency(server, ask):
    meeting = threading.Barrier(4, timeout=10)

    def respond(handler, request, attempt):
        meeting.wait()  # breaks unless four are there at once
        answer(handler, request)

    server.respond = respond
    assert ask(QUESTIONS, concurrency=4)[2]["n_open"] == 0


def test_servers_take_no_shots():
    with pytest.raises(DataError, match="--style shots"):
        load_writer(LLMOptions(), ServerSettings(base_url=["http://localhost:1/v1"]), WritingSettings("shots"), RECIPE)
