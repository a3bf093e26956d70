"""Stage 4: a folder of documents becomes training pairs; kills, bad input and the script of the whole stage."""

import json
import random
import shutil
import subprocess
import time

import pytest
from fake_server import MODEL, completion, send
from helpers import ROOT, refuse, run_killed_when, run_stage, stage_command, stage_environment

from perspective.data.collection import load_collection
from perspective.data.documents import load_passages
from perspective.data.pairs import load_pairs

SCRIPTS = "perspective/4_synthesize/scripts"
WORDS = ("lost", "card", "bank", "money", "rain", "sun", "music", "song", "alarm", "wake", "transfer", "cash", "play")


@pytest.fixture
def documents(tmp_path):
    """Twelve documents of several passages, one of 10^5 characters."""
    folder, rng = tmp_path / "documents", random.Random(0)
    folder.mkdir()
    for row in range(12):
        sentences = [f"{' '.join(rng.choices(WORDS, k=8))} {row} {n}.".capitalize() for n in range(8)]
        (folder / f"page_{row}.txt").write_text(" ".join(sentences), encoding="utf-8")
    (folder / "long.md").write_text("# Long\n" + "A long document goes on. " * 4000, encoding="utf-8")
    return folder


def write_query(handler, request, attempt=1):
    prompt = request["messages"][0]["content"]
    document = next(line for line in prompt.splitlines() if " " in line and line.endswith("."))
    words = document.removesuffix(".").split()
    send(handler, 200, completion(json.dumps({"query": " ".join(words[3:9] + words[-2:])})))


@pytest.fixture
def stage(server, plain_network, tmp_path, documents):
    """Run scripts on a set in a folder of its own."""
    server.respond = write_query
    out = tmp_path / "out"

    def call(name, *options):
        common = ["--output_path", out, "--llm", MODEL]
        if name == "generate":
            common += [
                "--documents_path",
                documents,
                "--base_url",
                server.url,
                "--passage_chars",
                200,
                "--temperature",
                1,
            ]
        run_stage(name, *common, *options)
        return out

    return call


def test_documents_become_pairs_and_a_collection(server, stage, embedder_folder, capsys):
    out = stage("generate", "--n_examples", 40)
    assert len(server.requests) == 40
    stage("generate", "--n_examples", 40)
    assert len(server.requests) == 40  # finished
    stage("generate", "--n_examples", 48)
    assert len(server.requests) == 48  # only what is new
    options = ["--embedder", embedder_folder, "--n_held_out", 5, "--keep_top_k", 500]
    stage("filter", *options)
    shown = capsys.readouterr().out
    assert f"| grounded | {MODEL} (chat, temperature 1) | 48 | 100 |" in shown
    pairs, held_out = load_pairs(out / "pairs.jsonl"), load_collection(out / "held_out")
    assert len(pairs) > 20 and len(held_out.queries) == 5
    trained = {pair.document for pair in pairs}
    assert trained <= set(held_out.corpus.values())
    assert all(held_out.corpus[next(iter(grades))] not in trained for grades in held_out.qrels.values())
    assert load_pairs(out / "control.jsonl")
    made = (out / "pairs.jsonl").stat().st_mtime_ns
    stage("filter", *options)
    assert (out / "pairs.jsonl").stat().st_mtime_ns == made
    left = {passage.text for passage in load_passages(out / "train_corpus.jsonl")}
    asked = {held_out.corpus[next(iter(grades))] for grades in held_out.qrels.values()}
    assert left == set(held_out.corpus.values()) - asked  # negatives are mined elsewhere than held-out documents
    (out / "corpus.jsonl").write_text((out / "corpus.jsonl").read_text() + '{"_id": "new", "text": "a new passage"}\n')
    with pytest.raises(SystemExit):
        stage("filter", *options)
    assert "about other passages than corpus.jsonl holds; run generate.sh again" in capsys.readouterr().err


def test_a_killed_run_on_a_server_asks_nothing_twice(server, tmp_path, documents):
    def slowly(handler, request, attempt):
        time.sleep(0.05)
        write_query(handler, request)

    server.respond = slowly
    options = ["--documents_path", documents, "--base_url", server.url, "--llm", MODEL, "--passage_chars", 200]
    options += ["--output_path", tmp_path / "out", "--n_examples", 60, "--concurrency", 2, "--temperature", 1]
    environment = stage_environment(no_proxy="127.0.0.1")
    command = stage_command("generate", *options)
    assert not run_killed_when(lambda: len(server.requests) >= 20, command, env=environment)
    n_asked = len(server.requests)
    n_kept = len((tmp_path / "out" / "replies.jsonl").read_text(encoding="utf-8").splitlines())
    assert n_asked - n_kept <= 3  # those in progress
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert len(server.requests) == n_asked + 60 - n_kept
    examples = (tmp_path / "out" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(examples) == 60


@pytest.fixture
def long_llm(tmp_path, llm_folder):
    """The tiny LLM with a context that holds the examples, which its tokenizer spells out."""
    folder = shutil.copytree(llm_folder, tmp_path / "long_llm")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}), encoding="utf-8")
    return folder


def test_a_killed_run_of_a_local_llm_ends_the_same(tmp_path, documents, long_llm):
    def command(name):
        options = [
            "--documents_path",
            documents,
            "--llm",
            long_llm,
            "--passage_chars",
            120,
            "--n_examples",
            12,
            "--temperature",
            1,
        ]
        return stage_command("generate", *options, "--output_path", tmp_path / name, "--llm_batch_size", 2)

    environment, log = stage_environment(OMP_NUM_THREADS="1"), tmp_path / "killed" / "replies.jsonl"
    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    assert not run_killed_when(lambda: log.exists() and log.stat().st_size > 1000, command("killed"), env=environment)
    assert not (tmp_path / "killed" / "examples.jsonl").exists()
    subprocess.run(command("killed"), check=True, env=environment, capture_output=True)
    whole, killed = ((tmp_path / name / "examples.jsonl").read_bytes() for name in ("whole", "killed"))
    assert whole == killed and len(whole.splitlines()) == 12


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "none of 40 characters"),
        ("a.pdf", "x" * 100, "empty"),
        ("a.txt", "One short document of one passage, which is all there is.", "one passage"),
    ],
)
def test_too_few_documents_are_one_line(tmp_path, capsys, name, content, message, llm_folder):
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / name).write_text(content, encoding="utf-8")
    options = ["--documents_path", folder, "--llm", llm_folder, "--output_path", tmp_path / "out"]
    assert message in refuse(capsys, "generate", *options)


def test_other_bad_input_is_one_line(tmp_path, capsys, llm_folder, documents):
    options = ["--llm", llm_folder, "--output_path", tmp_path]
    assert "unknown code; did you mean ko" in refuse(capsys, "generate", "--languages", "Korean", *options)
    assert "tasks.yaml: no such file" in refuse(capsys, "generate", *options)
    (tmp_path / "tasks.yaml").write_text("short_long:\n- Find a fault: now\n", encoding="utf-8")
    assert "quotes" in refuse(capsys, "generate", "--types", "short_long", *options)
    (tmp_path / "tasks.yaml").write_text("long_short: [Name the mood of a letter.]\n", encoding="utf-8")
    assert 'no tasks of type "short_long"' in refuse(capsys, "generate", "--types", "short_long", *options)
    assert "examples.jsonl: no such file" in refuse(capsys, "filter", *options)
    assert "--temperature 3" in refuse(capsys, "generate", "--temperature", "3", *options)


def test_tasks_by_a_person_are_used_as_they_are(server, plain_network, tmp_path, caplog):
    tasks = "- Given a place, find what it is known for.\n- Given a tool, find the trade that needs it."
    server.respond = lambda handler, request, attempt: send(handler, 200, completion(tasks))
    options = ["--llm", MODEL, "--base_url", server.url, "--output_path", tmp_path, "--types", "short_long", "sts"]
    run_stage("brainstorm", *options, "--n_calls", 2)
    path = tmp_path / "tasks.yaml"
    assert "Given a tool" in path.read_text(encoding="utf-8") and len(server.requests) == 2
    run_stage("brainstorm", *options, "--n_calls", 2)
    path.write_text("short_long: [Find the page of a place.]\n", encoding="utf-8")
    run_stage("brainstorm", *options, "--n_calls", 2)
    assert len(server.requests) == 2 and "Given a tool" not in path.read_text(encoding="utf-8")
    example = {"query": "a place", "positive": "It is known for salt.", "hard_negative": "It lies at a lake."}
    server.respond = lambda handler, request, attempt: send(handler, 200, completion(json.dumps(example)))
    run_stage("generate", *options[:-2], "short_long", "--n_examples", 3)
    assert all("Find the page of a place." in prompt for _, prompt, _ in server.requests[2:])


STAGES = {"generate": SCRIPTS, "filter": SCRIPTS}
STAGES |= dict.fromkeys(("make_docs_set", "mine_negatives", "finetune", "evaluate"), "perspective/6_retrieval/scripts")


@pytest.fixture
def run(tmp_path):
    """Run a copy of run.sh whose stages only print how they were called."""
    root = tmp_path / "a copy"
    for name in (SCRIPTS, "perspective/6_retrieval/scripts", "scripts"):
        (root / name).mkdir(parents=True)
    for name in (f"{SCRIPTS}/run.sh", "scripts/common.sh"):
        shutil.copy(ROOT / name, root / name)
    (root / "scripts" / "setup.sh").touch()
    (root / "perspective" / "4_synthesize" / "results").mkdir()
    for stage_name, folder in STAGES.items():
        shown = f'printf "%s\\t" {stage_name} "$DATASETS" "${{EMBEDDER##*/}}" "$@"; echo'
        (root / folder / f"{stage_name}.sh").write_text(shown.replace("$DATASETS", "${DATASETS:-}"), encoding="utf-8")
    results = tmp_path / "results"
    results.mkdir()
    for name in ("pairs", "control"):
        (results / f"{name}.jsonl").write_text("{}\n" * (3 if name == "pairs" else 2), encoding="utf-8")
        (results / "mined" / name).mkdir(parents=True)
        (results / "mined" / name / "mine.jsonl").touch()
    python = root / "python"  # tells the script its paths
    python.write_text(
        f'#!/usr/bin/env bash\n[[ "$2" == *synthesis* ]] && echo "{results}" || echo "x/$3_${{4##*/}}.json"\n'
    )
    python.chmod(0o755)

    def call(*options):
        environment = stage_environment(EMBEDDER="minilm", PATH=f"{root}:/usr/bin:/bin")
        done = subprocess.run(
            ["bash", root / SCRIPTS / "run.sh", *options], capture_output=True, text=True, env=environment
        )
        return done.returncode, [line.split("\t")[:-1] for line in done.stdout.splitlines()], done.stderr

    return call


def test_the_whole_stage_calls_its_parts_in_order(run, documents):
    code, calls, log = run("--documents", str(documents), "--temperature", "0")
    assert code == 0, log
    names = [call[0] for call in calls]
    assert names == ["generate", "filter", *["mine_negatives", "finetune"] * 2, *["evaluate"] * 4]
    assert calls[0][-2:] == ["--temperature", "0"] and str(documents) in calls[0]
    assert calls[1][-2:] == ["--n_held_out", "100"]
    assert all(call[call.index("--max_pairs") + 1] == "2" for call in calls if call[0] == "finetune")
    assert [call[2] for call in calls[-4:]] == ["minilm", "trained-control", "trained-pairs", "trained-pairs"]
    assert "queries of the LLM itself" in log


def test_documents_of_one_sentence_are_measured_without_a_control(run, documents, tmp_path):
    (tmp_path / "results" / "control.jsonl").unlink()
    code, calls, log = run(f"--documents={documents}")
    assert code == 0, log
    assert [call[0] for call in calls] == ["generate", "filter", "mine_negatives", "finetune", *["evaluate"] * 2]
    assert [call[2] for call in calls[-2:]] == ["minilm", "trained-pairs"] and "no pairs can be made" in log
    assert calls[3][calls[3].index("--max_pairs") + 1] == "3"


def test_without_documents_the_docstrings_are_taken(run):
    code, calls, log = run()
    assert code == 0, log
    assert [call[0] for call in calls[:2]] == ["make_docs_set", "generate"]
    assert calls[2][-2:] == ["--n_held_out", "0"] and "queries of the LLM itself" not in log


def test_wrong_calls_of_the_whole_stage_are_one_line(run, tmp_path):
    for options, message in (
        (["--documents", str(tmp_path / "none")], "no such file or folder"),
        (["--collection", str(tmp_path)], "goes with --documents"),
        (["--documents"], "needs a value"),
        (["--output_path", "x"], "--output_path: not here"),
        (["--seed=7"], "--seed: set SEED in the environment"),
        (["--recipe_path", "none.yaml"], "--recipe_path none.yaml: no such file"),
    ):
        code, calls, log = run(*options)
        assert (code, calls) == (2, []) and message in log and len(log.splitlines()) == 1
