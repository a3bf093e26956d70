"""Naming from the command line: files, resuming, edits, other settings."""

import json
import shutil
import time

import numpy as np
import pytest
from fake_server import MODEL, completion, refuse, send
from helpers import run_killed_when, run_stage, stage_command, stage_environment, write_jsonl

from perspective.description.files import read_names
from perspective.description.records import Names
from perspective.layout import ClusterFiles, Layout

WORDS = ("card", "weather", "music", "alarm", "money")


@pytest.fixture
def run(tmp_path, embedder_folder, llm_folder):
    """Clusters of texts by a tiny embedder, and the stage that names them."""

    class Run:
        data = write_jsonl(
            tmp_path / "mine.jsonl",
            [{"input": f"{WORDS[row % 5]} {WORDS[row % 5]} up {row // 5} <b>"} for row in range(60)],
        )
        files = ClusterFiles(tmp_path / "out", Layout("mine", "small", "minilm").description.stem)
        arguments = ["--dataset", "mine", "--data_path", data, "--output_path", tmp_path / "out"]
        naming = [*arguments, "--checkpoint", embedder_folder]

        def name(self, *more):
            run_stage("name_clusters", *self.naming, *more)

        def read(self):
            return Names.model_validate_json(self.files.names.read_text())

    made = Run()
    run_stage("get_embedding", *made.arguments[:4], "--embedder", embedder_folder, "--no_measure",
              "--output_path", tmp_path)  # fmt: skip
    made.vectors = tmp_path / "mine_small_embeds_embedder.npy"
    run_stage("cluster", *made.arguments, "--feat_path", made.vectors, "--n_clusters", 5)
    return made


def respond_with(name):
    return lambda handler, request, attempt: send(
        handler, 200, completion(json.dumps({"name": name, "sentence": "S."}))
    )


def test_a_local_llm_names_clusters_and_branches(run, llm_folder, caplog):
    caplog.set_level("INFO")
    run.name("--naming_llm", llm_folder)
    names = run.read()
    assert len(names.names) == 5 + 4 and names.perspective == "topic" and names.llm == str(llm_folder)
    assert len({name.name.casefold() for name in names.names}) == 9
    assert "5 clusters named: " in caplog.text
    run.name("--naming_llm", llm_folder)
    assert "already made" in caplog.text


def test_another_model_in_the_same_folder_is_asked_again(run, llm_folder, tmp_path):
    folder = tmp_path / "llm"
    shutil.copytree(llm_folder, folder)
    run.name("--naming_llm", folder)
    log = next(tmp_path.rglob("*.replies.jsonl"))
    n_replies = len(log.read_text().splitlines())
    (folder / "generation_config.json").write_text("{}")
    run.name("--naming_llm", folder, "--overwrite")
    assert len(log.read_text().splitlines()) > n_replies


def test_an_instruction_is_refused(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run.name("--naming_llm", "none", "--instruction")
    assert "error: --instruction: names are embedded without one" in capsys.readouterr().err


def test_keywords_alone_need_no_llm(run):
    run.name("--naming_llm", "none")
    assert {name.source for name in run.read().names} == {"keywords"}
    assert {word for name in run.read().names[:5] for word in WORDS if word in name.name.lower()} == set(WORDS)


def test_edits_rename_without_asking_again_and_can_be_taken_back(run, server, plain_network):
    server.respond = respond_with("a name")
    options = ("--naming_llm", MODEL, "--base_url", server.url)
    run.name(*options)
    first = run.files.names.read_text()
    template = run.files.edits.read_text()
    branch = max(name.id for name in run.read().names)
    run.files.edits.write_text(f"rename:\n  2: <i>Mine</i>\n  {branch}: Branch\n")
    run.name(*options)
    named = {name.id: name for name in run.read().names}
    assert named[2].name == "<i>Mine</i>" and named[2].source == named[branch].source == "edit"
    assert read_names(run.files)[2] == "<i>Mine</i>"
    n_asked = len(server.requests)
    run.files.edits.write_text(template)
    run.name(*options)
    assert run.files.names.read_text() == first and len(server.requests) == n_asked
    assert len({prompt for _, prompt, _ in server.requests}) == n_asked  # nothing was asked twice


def test_other_settings_are_refused(run, llm_folder, capsys):
    run.name("--naming_llm", "none")
    with pytest.raises(SystemExit):
        run.name("--naming_llm", "none", "--perspective", "mood")
    assert "perspective (topic, now mood)" in capsys.readouterr().err
    run.name("--naming_llm", "none", "--perspective", "mood", "--overwrite")
    assert run.read().perspective == "mood"


def test_an_embedder_of_another_size_is_one_line(run, capsys, tmp_path):
    np.save(tmp_path / "other.npy", np.random.default_rng(0).standard_normal((60, 7)).astype(np.float32))
    run_stage("cluster", *run.arguments, "--feat_path", tmp_path / "other.npy", "--n_clusters", 5, "--overwrite")
    with pytest.raises(SystemExit):
        run.name("--naming_llm", "none")
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "gives 32 numbers a text, the clustered vectors have 7; name their embedder with --checkpoint" in line


def test_a_missing_checkpoint_is_one_line(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run_stage("name_clusters", *run.arguments, "--naming_llm", "none")
    line = capsys.readouterr().err
    assert ended.value.code == 2 and "error: " in line and "mine_small_minilm" in line and "Traceback" not in line


def test_without_clusters_it_is_one_line(run, capsys):
    for path in (run.files.clusters, run.files.texts):
        path.unlink()
    with pytest.raises(SystemExit):
        run.name("--naming_llm", "none")
    assert "-clusters.json" in capsys.readouterr().err


def test_a_budget_leaves_names_open_and_a_higher_one_asks_the_rest(run, server, plain_network):
    server.respond = respond_with("a name")
    options = ("--naming_llm", MODEL, "--base_url", server.url, "--price_in", 1, "--price_out", 1, "--concurrency", 1)
    run.name(*options, "--budget", 900e-6)
    n_asked = len(server.requests)
    run.name(*options, "--budget", 900e-6)
    assert len(server.requests) == n_asked < 9
    run.name(*options, "--budget", 1)
    prompts = [prompt for _, prompt, _ in server.requests]
    assert len(prompts) == len(set(prompts)) >= 9


def test_keywords_stand_in_for_a_server_that_fails_until_a_rerun(run, server, plain_network, caplog, capsys):
    def answer_three(handler, request, attempt):
        return (respond_with("a name") if len(server.requests) <= 3 else refuse(500, "down"))(handler, request, attempt)

    server.respond = answer_three
    options = ("--naming_llm", MODEL, "--base_url", server.url, "--concurrency", 1, "--max_retries", 0)
    with pytest.raises(SystemExit):
        run.name(*options)
    assert "no answer to" in capsys.readouterr().err and not run.files.names.exists()
    run.name(*options, "--or_keywords")
    (line,) = [record.getMessage() for record in caplog.records if "keywords stand in" in record.getMessage()]
    assert "fix the server or the settings" in line and "\n" not in line
    assert {name.source for name in run.read().names} >= {"keywords"}
    server.respond = respond_with("a name")
    n_asked = len(server.requests)
    run.name(*options, "--or_keywords")
    assert len(server.requests) - n_asked >= 6  # of nine: three were answered
    answered = [prompt for _, prompt, _ in server.requests[:3]]
    assert not set(answered) & {prompt for _, prompt, _ in server.requests[n_asked:]}
    n_asked = len(server.requests)
    run.name(*options, "--or_keywords")
    assert len(server.requests) == n_asked


@pytest.mark.slow
def test_a_killed_run_asks_nothing_twice(run, server, plain_network):
    def respond(handler, request, attempt):
        time.sleep(0.1)
        respond_with("a name")(handler, request, attempt)

    server.respond = respond
    options = ("--naming_llm", MODEL, "--base_url", server.url, "--concurrency", 1)
    command = stage_command("name_clusters", *run.naming, *options)
    log = run.files.names.with_name(run.files.names.name + ".replies.jsonl")
    ended = run_killed_when(
        lambda: log.exists() and log.read_text().count('"reply"') >= 3, command, env=stage_environment()
    )
    assert not ended and not run.files.names.exists()
    n_logged = log.read_bytes().count(b'"reply"')
    n_asked = len(server.requests)
    run.name(*options)
    prompts = [prompt for _, prompt, _ in server.requests]
    assert len(prompts) - len(set(prompts)) <= n_asked - n_logged <= 1  # what was under way at the kill
    assert len(run.read().names) == 9
