"""The whole pipeline by its bash scripts, with the real packaged models, in a path with spaces."""

import json
import random
import subprocess
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from helpers import run_bash, run_killed_when, run_stage, stage_command, stage_environment, write_jsonl

from perspective.artifacts import hash_file, read_json

pytestmark = [pytest.mark.slow]


@pytest.mark.real
def test_run_then_run_again(repository, tmp_path):
    command = ["scripts/run.sh", "--dataset", "demo"]
    code, shown, log = run_bash(repository, *command)
    assert code == 0, log
    assert "answer states trusted with weight" in log and "unchanged" not in shown
    measures = read_json(repository / "measures" / "demo_small_embeds_minilm_measures.json")
    assert len(measures["ACC"]) == 5 and 50 < measures["ACC_mean"] < 80
    after = repository / "after_measures" / "demo_small_embeds_minilm-smollm2_seed=100_measures.json"
    # 360 texts are few: with them the accuracy rises, and NMI stays about the same.
    adapted = read_json(after)
    assert adapted["ACC_mean"] > measures["ACC_mean"] and adapted["NMI_mean"] > measures["NMI_mean"] - 2
    assert (repository / "after_measures" / "comparison_minilm-smollm2.png").read_bytes().startswith(b"\x89PNG")

    code, again, log = run_bash(tmp_path, repository / "scripts" / "run.sh", *command[1:])
    assert code == 0, log
    assert again == shown
    # Vectors, clusterings and measures twice, states, control states, teacher, model; then clusters, names and map.
    assert log.count("already made") > 10
    assert (repository / "perspective/3_describe/clusters/demo_small_minilm-smollm2_seed=100.html").exists()


@pytest.mark.real
def test_the_notebook_runs_on_what_is_made(repository, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    for name, value in {"DATASETS": "demo", "PYTHONPATH": str(repository)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # streamlit, in tests before, sets one without pictures
    notebook = nbformat.read(repository / "run.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(repository)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2  # the bar chart and the two-dimensional picture
    text = "".join(output.get("text", "") for output in outputs)
    assert "already made from the same inputs and settings" in text and "minilm    smollm2  ACC" in text


@pytest.mark.real
def test_stage_by_stage_from_their_folders(repository):
    """Recorded answers train the real embedder; each script runs from its stage's folder."""
    stage1, stage2 = repository / "perspective" / "1_predict_triplet", repository / "perspective" / "2_finetune"
    settings = {"DATASETS": "demo", "MAX_QUERY": "64", "LLM": "recorded"}

    def run(folder, script, *options):
        code, shown, log = run_bash(folder, f"scripts/{script}", *options, environment=settings)
        assert code == 0, log
        return shown

    run(stage2, "get_embedding_gte.sh")
    run(stage1, "triplet_sampling.sh")
    triplets = stage1 / "sampled_triplet_results" / "demo_small_minilm_m=64_seed=100.json"
    labels = [json.loads(line)["label"] for line in (repository / "datasets/demo/small.jsonl").read_text().splitlines()]
    answers = []
    for record in read_json(triplets):
        same = labels[record["query_idx"]] == labels[record["choice1_idx"]]
        answers.append({**record, "prediction": [" 1" if same else " 2"]})
    recorded = stage1 / "theirs.json"
    recorded.write_text(json.dumps(answers))
    run(stage1, "predict_triplet.sh", "--recorded_path", "theirs.json")
    assert "llm accuracy" in run(stage1, "calculate_accuracy.sh")
    run(stage2, "convert_triplet.sh")
    run(stage2, "finetune_gte.sh", "--num_train_epochs", "2")
    run(stage2, "get_finetuned_embedding_gte.sh")
    table = run(repository, "compare.sh")
    assert "recorded" in table and "unchanged" not in table
    before = np.load(repository / "measures" / "demo_small_embeds_minilm.npy")
    after = np.load(repository / "after_measures" / "demo_small_embeds_minilm_m=64_seed=100-recorded.npy")
    assert np.abs(before - after).max() > 1e-3
    card = (stage2 / "checkpoints" / "demo_small_minilm_m=64_seed=100-recorded" / "README.md").read_text()
    assert "## Measured" in card and "| demo | minilm |" in card


def test_run_refuses_in_one_line(repository):
    for arguments, message in (
        (["--datset", "demo"], "unknown option --datset"),
        (["--dataset"], "--dataset needs a value"),
        (["--dataset", "bankin77"], "did you mean banking77?"),
        (["--data_path", "none.csv"], "none.csv: no such file"),
        (["--seed", "x"], "--seed x: must be a whole number of at least 0"),
        (["--dataset", "my tickets"], "a name without spaces and slashes"),
        (["--recipe", "distil"], "--recipe distil: choose distill, standard or published"),
        (
            ["--states_llm", "none"],
            "--states_llm none: is for judged triplets only; here answer states are read from --llm",
        ),
        (
            ["--judge", "choice", "--recipe", "standard", "--states_llm", "smollm2"],
            "recipe standard learns from triplets alone",
        ),
        (
            ["--base_url", "http://localhost:1/v1", "--recorded_path", "README.md"],
            "--recorded_path: replaces --base_url; give only one of them",
        ),
    ):
        code, _, log = run_bash(repository, "scripts/run.sh", *arguments)
        assert code == 2 and message in log and "Traceback" not in log
    code, shown, _ = run_bash(repository, "scripts/run.sh", "--help")
    assert code == 0 and "--max_query N" in shown


def test_modules_of_the_working_directory_are_not_taken_for_ours(repository, tmp_path):
    (tmp_path / "perspective").mkdir()
    for name in ("perspective/__init__.py", "tokenize.py"):
        (tmp_path / name).write_text("raise SystemExit('another one')")
    code, _, log = run_bash(tmp_path, repository / "scripts" / "run.sh", "--dataset", "bankin77")
    assert code == 2 and "did you mean banking77?" in log and "another one" not in log


def test_fetching_checks_every_time(repository, tmp_path):
    """A wrong checksum is refused, wherever the file comes from, and nothing is left behind."""
    wrong = tmp_path / "wrong" / "banking77"
    wrong.mkdir(parents=True)
    (wrong / "small.jsonl").write_text('{"input": "x"}\n')
    target = repository / "datasets" / "banking77"
    here = {"EMBWITHLLM_DATASETS": str(tmp_path / "wrong")}
    code, _, log = run_bash(repository, "scripts/fetch_datasets.sh", "banking77", environment=here)
    assert code == 2 and "differs from the released" in log
    assert not target.exists() or not any(target.iterdir())
    # Nothing reachable: one line, and run.sh goes on with the demo.
    sources = repository / "datasets" / "sources.json"
    original = sources.read_text()
    sources.write_text(original.replace("https://raw.githubusercontent.com", "http://127.0.0.1:9"))
    code, _, log = run_bash(repository, "scripts/fetch_datasets.sh", "mtop_domain")
    alone = run_bash(repository, "scripts/fetch_datasets.sh", "mtop_domain", "--or_demo")[0]
    beside = run_bash(repository, "scripts/fetch_datasets.sh", "mtop_domain", "demo", "--or_demo")[0]
    sources.write_text(original)
    assert code == 2 and "cannot be reached" in log and log.count("\n") == 1
    assert (alone, beside) == (3, 2)  # the demo takes the place of all, not of one among others


class CountingServer:
    """An OpenAI-compatible server that answers slowly and counts what it was asked."""

    def __init__(self):
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                outer.asked.append(prompt)
                time.sleep(0.03)
                first = prompt.split("Choice 1: ")[1].split("\n")[0]
                second = prompt.split("Choice 2: ")[1].split("\n")[0]
                answer = f"Choice {1 if first <= second else 2}"
                message = {"role": "assistant", "content": answer}
                reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
                reply["choices"] = [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}]
                reply["usage"] = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
                data = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.mark.real
def test_a_run_on_a_paid_server_ends_its_asking_at_the_budget(repository):
    """13 tokens per answer, two answers per triplet: the budget of 400 tokens ends before the 24th triplet."""
    server = CountingServer()
    command = ["--dataset", "demo", "--no_describe", "--max_query", "24", "--llm", "m", "--base_url", server.url]
    money = ["--price_in", "1", "--price_out", "1", "--budget", "400e-6"]
    code, shown, log = run_bash(repository, "scripts/run.sh", *command, *money, environment={"OPENAI_API_KEY": "none"})
    assert code == 0, log
    assert "budget exhausted" in log and "demo      minilm    m" in shown
    assert "answer states trusted with weight" in log and "judged triplets" in log  # one teacher from both
    n_asked = len(server.asked)
    assert n_asked >= 2 and 13 * n_asked <= 400
    # A higher budget asks what is left, and the answers reach the embedder.
    money[-1] = "1"
    code, _, log = run_bash(repository, "scripts/run.sh", *command, *money, environment={"OPENAI_API_KEY": "none"})
    assert code == 0, log
    assert n_asked < len(server.asked) <= 48
    assert log.count("made again, there are more answers now") >= 5


def test_judging_killed_at_random_moments(tmp_path, sentences):
    """The same file as undisturbed, and nothing asked again whose answer was kept."""
    n_texts, n_triplets = 80, 200
    texts = write_jsonl(tmp_path / "t.jsonl", [{"input": f"{i} {text}"} for i, text in enumerate(sentences(n_texts))])
    run_stage(
        "random_triplet_sampling",
        "--dataset",
        "t",
        "--data_path",
        texts,
        "--max_query",
        n_triplets,
        "--out_dir",
        tmp_path,
    )
    triplets = tmp_path / f"t_small_random_m={n_triplets}_seed=100.json"
    server = CountingServer()
    options = [
        "--dataset",
        "t",
        "--data_path",
        texts,
        "--triplet_path",
        triplets,
        "--llm",
        "m",
        "--base_url",
        server.url,
    ]
    options += ["--concurrency", "2"]
    run_stage("predict_triplet", *options, "--output_path", tmp_path / "whole")
    name = f"t_small_random_m={n_triplets}_seed=100-m-server-pred.json"

    server.asked.clear()
    command = stage_command("predict_triplet", *options, "--output_path", tmp_path / "killed")
    unfinished = tmp_path / "killed" / f"{name}.partial.jsonl"
    rng = random.Random(3)
    n_kills, counts = 0, {}

    def has_kept(n_lines):
        return unfinished.exists() and unfinished.read_bytes().count(b"\n") > n_lines

    # Each time after some more answers, so that slow machines come to their first and fast ones are caught.
    while not run_killed_when(
        partial(has_kept, len(counts) + rng.randint(5, 60)), command, env=stage_environment(OPENAI_API_KEY="none")
    ):
        n_kills += 1
        if (tmp_path / "killed" / name).exists():
            continue  # killed after the work was sealed, on its way out
        lines = unfinished.read_text().split("\n")[1:-1] if unfinished.exists() else []
        kept = {json.loads(line)["prepared"] for line in lines}
        assert counts.keys() <= kept  # nothing lost
        assert all(server.asked.count(prompt) == count for prompt, count in counts.items())  # nothing asked again
        # What was under way when the kill came was asked without being kept; it may be asked once more.
        counts = {prompt: server.asked.count(prompt) for prompt in kept}
    assert n_kills >= 3
    assert hash_file(tmp_path / "killed" / name) == hash_file(tmp_path / "whole" / name)
    assert not unfinished.exists()
    server.server.shutdown()


def test_stopped_by_the_user(tmp_path, sentences):
    """Ctrl-C ends without a traceback and says how to resume."""
    import signal

    texts = write_jsonl(tmp_path / "t.jsonl", [{"input": f"{i} {text}"} for i, text in enumerate(sentences(60))])
    run_stage(
        "random_triplet_sampling", "--dataset", "t", "--data_path", texts, "--max_query", 400, "--out_dir", tmp_path
    )
    server = CountingServer()
    command = stage_command(
        "predict_triplet", "--dataset", "t", "--data_path", texts, "--triplet_path",
        tmp_path / "t_small_random_m=400_seed=100.json", "--llm", "m", "--base_url", server.url,
        "--concurrency", "1", "--output_path", tmp_path,
    )  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=stage_environment(OPENAI_API_KEY="none"))
    while len(server.asked) < 20:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "where it stopped" in log and "Traceback" not in log
    server.server.shutdown()
