"""Two processes against one. Started by torchrun, this file is one of the two: see `train_and_embed`."""

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from perspective.artifacts import Output, TrainingTriplet, Triplet, hash_file, load_training_triplets
from perspective.cli import entry_point, shared_entry_point
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.retrieval.training import RetrieverTrainSettings as RetrieverSettings
from perspective.retrieval.training import train_retriever
from perspective.runtime.distributed import init_process_group, is_main, n_processes, process_index, share_texts
from perspective.training.distillation import distill_embedder
from perspective.training.finetuning import finetune_embedder
from perspective.training.losses.base import divide_by_count
from perspective.training.settings import TrainSettings

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
STEPS = {"num_train_epochs": 2.0, "per_device_train_batch_size": 8}
VARIANTS = {
    "published": {"loss": "published", "weighted": True},
    "infonce": {"loss": "infonce", "weighted": True},
    "triplet": {"loss": "triplet", "weighted": True},
    "in_order": {"recipe": "published", "learning_rate": 1e-3},
    "distill": {"recipe": "distill"},
}
RETRIEVERS = {"cached": {"mini_batch_size": 3}, "ranking": {"mini_batch_size": 0}}
# A decoder with all its weights, and with adapters, whose dropout no two processes share.
DECODERS = {"decoder": {"mini_batch_size": 3}, "adapters": {"mini_batch_size": 3, "lora_rank": 2}}
MADE = [*VARIANTS, *RETRIEVERS, *DECODERS, "whole"]
PARTS = ((1.0, 2.0, 3.0), (6.0,))  # of a batch, one a process
LONG = {"num_train_epochs": 24.0, "per_device_train_batch_size": 6, "save_steps": 9}  # 6 steps an epoch


def train_and_embed(folder):
    """Train all variants without dropout, whose masks no two processes could share, and embed."""
    triplets, texts = load_training_triplets(folder / "train.json"), json.loads((folder / "texts.json").read_text())
    teacher = np.load(folder / "teacher.npy")
    made = folder / f"by_{n_processes()}"

    def run(name, model, **options):
        settings = TrainSettings(**{**STEPS, **options})
        output = Output(made / name, "embedder", {"dataset": "tiny", **settings.made_from()})
        embedder = load_embedder(str(folder / model), device="cpu")
        if settings.recipe == "distill":
            distill_embedder(embedder, texts, teacher, settings, output)
        else:
            finetune_embedder(embedder, triplets, settings, output)

    for name, options in VARIANTS.items():
        run(name, "plain", **options)
    pairs = [Pair(one.anchor, one.positive, (one.negative,) * (i % 2), one.weight) for i, one in enumerate(triplets)]
    for name, options in (RETRIEVERS | DECODERS).items():
        settings = RetrieverSettings(num_train_epochs=2.0, per_device_train_batch_size=8, **options)
        output = Output(made / name, "retriever", {"dataset": "tiny", **settings.made_from()})
        base = "decoder" if name in DECODERS else "plain"
        train_retriever(load_embedder(str(folder / base), device="cpu"), pairs, settings, output)
    if n_processes() > 1:
        part = torch.tensor(PARTS[process_index()])
        mean = divide_by_count(part.sum(), torch.tensor(len(part)))
        (folder / f"mean_{process_index()}.txt").write_text(str(mean.item()))
        run("whole", "embedder", **LONG)
    model = load_embedder(str(folder / "plain"), device="cpu")
    vectors = share_texts(lambda share: embed_texts(model, share), texts)
    assert (vectors is None) == (not is_main())
    if vectors is not None:
        np.save(made / "vectors.npy", vectors)


@shared_entry_point
def main(argv=None):
    from sentence_transformers import SentenceTransformer

    if not is_main():

        def refuse(*args, **options):
            raise AssertionError("only the main process writes")

        SentenceTransformer.save_pretrained = refuse
    train_and_embed(Path(sys.argv[1]))


def launch(*command):
    """Start a command in two processes; its exit code, output, and the seconds it ran on after an error."""
    process = subprocess.Popen(
        [*TORCHRUN, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    lines, failed = [], None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("error: "):
            failed = time.monotonic()
    process.wait()
    return process.returncode, "".join(lines), time.monotonic() - failed if failed else 0.0


def environment():
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def only_line(output, start):
    lines = [line for line in output.replace("\r", "\n").splitlines() if line.startswith(start)]
    assert len(lines) == 1, output
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, embedder_folder, llm_folder):
    """Embedder with and without dropout, a decoder, triplets, texts and a teacher."""
    import random
    import shutil

    from conftest import WORDS

    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(embedder_folder, folder / "embedder")
    shutil.copytree(embedder_folder, folder / "plain")
    load_embedder(str(llm_folder), device="cpu").save_pretrained(str(folder / "decoder"))
    config = json.loads((folder / "plain" / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "plain" / "config.json").write_text(json.dumps(config))
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(99)]
    records = [
        {
            "query": ["", f"card {texts[i]}"],
            "pos": ["", f"card {texts[i + 1]}"],
            "neg": ["", f"weather {texts[i + 2]}"],
            **{"query_idx": i, "choice1_idx": i + 1, "choice2_idx": i + 2},
            "weight": 0.5 + i / 200,
        }
        for i in range(0, 99, 3)
    ]
    (folder / "train.json").write_text(json.dumps(records))
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"input": text}) + "\n" for text in texts))
    np.save(folder / "teacher.npy", np.random.default_rng(0).normal(size=(99, 32)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def by_two(folder):
    """What two processes make: all variants, the long run, vectors."""
    code, output, _ = launch(Path(__file__).resolve(), folder)
    assert code == 0, output[-3000:]
    made = folder / "by_2"
    for name in MADE:
        only_line(output, f"wrote {made / name}")
    assert sorted(path.name for path in made.iterdir() if "." in path.name) == sorted(
        [*(f"{name}.meta.json" for name in MADE), "vectors.npy"]
    )
    return made


@pytest.fixture(scope="module")
def by_one(folder):
    train_and_embed(folder)
    return folder / "by_1"


def load_moves(folder, made, name):
    """Return the change of each weight by training."""
    from safetensors.torch import load_file

    base = "decoder" if name in DECODERS else "plain"
    before, after = load_file(folder / base / "model.safetensors"), load_file(made / name / "model.safetensors")
    # Attention does not depend on its key biases: their gradient is rounding, which Adam makes a full step of.
    return {key: (after[key] - before[key]).numpy() for key in after if not key.endswith("key.bias")}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VARIANTS, *RETRIEVERS, "decoder"])
def test_two_processes_train_as_one(folder, by_one, by_two, name):
    one, two = load_moves(folder, by_one, name), load_moves(folder, by_two, name)
    for key in one:
        assert np.linalg.norm(two[key] - one[key]) <= 3e-3 * np.linalg.norm(one[key]), key
    losses = [np.genfromtxt(made / name / "loss.csv", delimiter=",", names=True)["loss"] for made in (by_one, by_two)]
    assert len(losses[0]) == (26 if name == "distill" else 10)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    settings = [json.loads((made / f"{name}.meta.json").read_text())["settings"] for made in (by_one, by_two)]
    assert settings[0] == settings[1]


@pytest.mark.slow
def test_two_processes_train_adapters_of_a_decoder(folder, by_two):
    moves = load_moves(folder, by_two, "adapters")
    assert all(np.linalg.norm(move) > 0 for name, move in moves.items() if name.endswith("proj.weight"))
    merged, again = (load_embedder(str(by_two / name), device="cpu") for name in ("adapters", "adapters/lora"))
    np.testing.assert_allclose(again.encode(["a card"]), merged.encode(["a card"]), atol=1e-5)


@pytest.mark.slow
def test_the_mean_over_processes_is_that_of_the_batch(folder, by_two):
    found = [float((folder / f"mean_{index}.txt").read_text()) for index in range(2)]
    assert np.mean(found) == np.mean(sum(PARTS, ()))


@pytest.mark.slow
def test_two_processes_embed_as_one(by_one, by_two):
    np.testing.assert_allclose(np.load(by_two / "vectors.npy"), np.load(by_one / "vectors.npy"), atol=1e-5)


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_model(folder, by_two):
    made = folder / "killed"
    options = ["--dataset", "tiny", "--embedder", folder / "embedder", "--train_file", folder / "train.json"]
    options += [part for name, value in LONG.items() for part in (f"--{name}", value)]
    command = ["-m", "perspective.2_finetune.finetune", *options, "--output_dir", made]
    process = subprocess.Popen(
        [*TORCHRUN, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 300
    while not list(made.parent.glob("killed.partial/checkpoint-18/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.kill()
    process.wait()
    assert not made.exists()
    code, output, _ = launch(*command)
    assert code == 0, output[-3000:]
    only_line(output, "resuming from checkpoint-")
    for name in ("model.safetensors", "loss.csv"):
        assert hash_file(made / name) == hash_file(by_two / "whole" / name)
    assert not made.with_name("killed.partial").exists()


@pytest.mark.slow
def test_an_error_in_one_process_stops_both(folder):
    options = ["--dataset", "tiny", "--data_path", folder / "texts.jsonl", "--output_path", folder / "never"]
    script = 'if [[ $RANK == 1 ]]; then set -- "$@" --embedder ./nothing; fi; exec "$0" -m "$@"'
    stage = ["perspective.2_finetune.get_embedding", *options, "--embedder", folder / "plain"]
    code, output, seconds = launch("--no_python", "bash", "-c", script, sys.executable, *stage)
    assert code != 0 and seconds < 120
    assert 'unknown model "./nothing"' in only_line(output, "error: ")
    assert "exitcode  : 2" in output.partition("Root Cause")[2]
    assert "Traceback" not in output.partition("error: ")[0]
    assert not (folder / "never").exists()


@pytest.fixture
def three_processes(monkeypatch):
    """The environment of the second of three; no process group is created."""
    for name, value in (("LOCAL_RANK", "1"), ("RANK", "1"), ("WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(three_processes, tmp_path, embedder_folder):
    triplets = [TrainingTriplet("", "a", "b", "c", Triplet(0, 1, 2))]
    output = Output(tmp_path / "out", "embedder", {})
    with pytest.raises(DataError, match="batch_size 32: 3 processes cannot share it evenly; choose a multiple of 3"):
        finetune_embedder(load_embedder(str(embedder_folder), device="cpu"), triplets, TrainSettings(), output)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_more_processes_than_gpus_are_refused_in_each(three_processes, monkeypatch, rank):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, value in (("LOCAL_WORLD_SIZE", "3"), ("LOCAL_RANK", rank), ("RANK", rank)):
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match="more processes than the 2 GPUs"):
        init_process_group()


def test_stages_of_one_process_refuse_torchrun(three_processes, monkeypatch, capsys):
    @entry_point
    def judge(argv=None):
        raise AssertionError("must not run")

    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as stopped:
            judge([])
        assert stopped.value.code == 2
        assert capsys.readouterr().err.count("error: this stage runs in one process") == lines


@dataclass(frozen=True)
class Rows:
    """Stands for a data set where only the texts' lengths count."""

    texts: list

    def __getitem__(self, name):
        return self.texts

    def __len__(self):
        return len(self.texts)


def test_shared_batches_are_those_of_one_process(sentences):
    from perspective.training.batch_samplers import LengthBatchSampler
    from perspective.training.shared_batches import SharedBatchSampler

    rows = Rows(sentences(23))
    alone, shared = (LengthBatchSampler(rows, batch_size=8, drop_last=False, seed=1) for _ in range(2))
    parts = SharedBatchSampler(shared, n_parts=2, filler=23)
    for epoch in (0, 1):
        alone.set_epoch(epoch)
        parts.set_epoch(epoch)
        pairs = list(parts)
        assert len(pairs) == len(parts) == 6
        joined = [pairs[i] + pairs[i + 1] for i in range(0, 6, 2)]
        assert [[row for row in batch if row != 23] for batch in joined] == list(alone)
        assert sum(batch.count(23) for batch in joined) == 1


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
