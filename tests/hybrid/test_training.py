"""Training of body and heads, and the entry scripts that use them."""

import importlib
import json
import re

import numpy as np
import pytest
from helpers import fail_at_step, refuse, write_jsonl

from perspective.artifacts import hash_file
from perspective.models.embedders import load_embedder
from perspective.models.hybrid_files import load_hybrid
from perspective.models.pickles import HEADS
from perspective.training.batch_samplers import PairLengthBatchSampler


def run(stage, *options):
    importlib.import_module(f"perspective.6_retrieval.{stage}").main([str(option) for option in options])


@pytest.fixture
def train_file(tmp_path, sentences):
    rest = sentences(120)
    records = [
        {
            "query": f"card {rest[i]}",
            "document": f"card {rest[i + 40]} {i}",
            "hard_negative": f"rain {rest[i + 80]} {i}",
        }
        for i in range(40)
    ]
    return write_jsonl(tmp_path / "train.jsonl", records)


def train(folder, embedder, train_file, *options):
    call = ("--dataset", "tiny", "--embedder", embedder, "--train_file", train_file, "--output_dir", folder)
    settings = ("--per_device_train_batch_size", 8, "--learning_rate", 1e-3, "--save_steps", 2)
    run("train_hybrid", *call, *settings, *options)
    return folder


@pytest.fixture
def collection(tmp_path, sentences):
    folder = tmp_path / "tiny"
    folder.mkdir()
    texts = [f"{text} {row}" for row, text in enumerate(sentences(24))]
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{row}", "text": text} for row, text in enumerate(texts)])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{row}", "text": texts[row]} for row in range(6)])
    lines = "".join(f"q{row}\td{row}\t1\n" for row in range(6))
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return folder


def test_training_moves_body_and_heads_and_leaves_nothing_else(tmp_path, embedder_folder, train_file):
    folder = train(tmp_path / "out", embedder_folder, train_file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.meta.json", "train.jsonl"]
    assert {"model.safetensors", HEADS, "README.md", "loss.csv"} <= {path.name for path in folder.iterdir()}
    facts = json.loads((tmp_path / "out.meta.json").read_text())["facts"]
    assert (facts["n_pairs"], facts["n_hard_negatives"], facts["n_steps"]) == (40, 40, 5)
    before, plain = (load_embedder(str(path), device="cpu").encode(["card"]) for path in (embedder_folder, folder))
    assert np.abs(before - plain).max() > 1e-4
    np.testing.assert_allclose(load_hybrid(str(folder), device="cpu").encode(["card"]), plain, atol=1e-6)
    other = train(tmp_path / "plain", embedder_folder, train_file, "--no_distill")
    assert hash_file(other / HEADS) != hash_file(folder / HEADS)


@pytest.mark.parametrize("step", [4, 9])  # of the heads alone; of body and heads
def test_killed_training_goes_on_to_the_same_weights(tmp_path, embedder_folder, train_file, monkeypatch, step):
    whole = train(tmp_path / "whole", embedder_folder, train_file)
    steps = fail_at_step(monkeypatch, step)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "killed", embedder_folder, train_file)
    with pytest.raises(SystemExit):  # other settings are refused before anything is trained
        train(tmp_path / "killed", embedder_folder, train_file, "--temperature", 0.5)
    killed = train(tmp_path / "killed", embedder_folder, train_file)
    assert len(steps) < step + 10 - (step - 3)  # what lay in a checkpoint is not trained again
    for name in ("model.safetensors", HEADS, "loss.csv"):
        assert hash_file(killed / name) == hash_file(whole / name)
    assert not list(tmp_path.glob("killed.*partial")) and not list(tmp_path.glob("*.heads.*"))


def test_every_way_is_evaluated_over_one_index(tmp_path, embedder_folder, train_file, collection, monkeypatch):
    monkeypatch.setattr("perspective.retrieval.layout.RETRIEVAL_STAGE", tmp_path / "stage")
    folder = train(tmp_path / "out", embedder_folder, train_file)
    run("index", "--collection", collection, "--embedder", folder)
    (index,) = (tmp_path / "stage" / "indexes").glob("*.meta.json")
    written = index.stat().st_mtime_ns
    for way in ("dense", "sparse", "multi", "dense-sparse", "all"):
        run(
            "evaluate",
            "--collection",
            collection,
            "--embedder",
            folder,
            "--retriever",
            way,
            "--output_path",
            tmp_path / "r",
        )
    assert index.stat().st_mtime_ns == written
    scores = {
        path.stem: json.loads(path.read_text())["scores"]["NDCG@10"]
        for path in (tmp_path / "r").glob("tiny*.json")
        if ".meta" not in path.name
    }
    assert sorted(scores) == ["tiny_out", "tiny_out-all", "tiny_out-dense-sparse", "tiny_out-multi", "tiny_out-sparse"]
    assert scores["tiny_out-multi"] == 100  # each query is a document


def test_what_does_not_fit_is_one_line(tmp_path, embedder_folder, train_file, collection, monkeypatch, capsys):
    monkeypatch.setattr("perspective.retrieval.layout.RETRIEVAL_STAGE", tmp_path / "stage")
    call = ("--collection", collection, "--embedder")
    assert "has no heads" in refuse(capsys, run, "evaluate", *call, embedder_folder, "--retriever", "all")
    folder = train(tmp_path / "out", embedder_folder, train_file)
    run("index", *call, folder)
    other = train(tmp_path / "other" / "out", embedder_folder, train_file, "--no_distill")
    line = refuse(capsys, run, "evaluate", *call, other, "--retriever", "sparse", "--output_path", tmp_path / "r")
    assert re.search(r"tiny_out: made with other .*embedder.*; move it away, or add --overwrite", line)
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    assert "tiny_out: made with other precision (" in refuse(capsys, run, "index", *call, folder)
    options = ("--dataset", "tiny", "--train_file", train_file, "--temperature", 0)
    assert "--temperature 0.0: must be above 0" in refuse(capsys, run, "train_hybrid", *options)


def test_batches_are_of_one_length_and_no_text_is_in_a_batch_twice():
    from datasets import Dataset

    documents = [f"{'x' * (row // 4)} {row // 2}" for row in range(40)]  # each document twice
    dataset = Dataset.from_dict(
        {"query": [str(row) for row in range(40)], "document": documents, "label": [[1.0]] * 40}
    )
    sampler = PairLengthBatchSampler(dataset, batch_size=8, drop_last=False, seed=1)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(40)) and len(batches) <= len(sampler) + 1
    assert all(len({documents[row] for row in batch}) == len(batch) for batch in batches)
    spreads = [np.ptp([len(documents[row]) for row in batch]) for batch in batches]
    assert np.mean(spreads) < np.ptp([len(text) for text in documents]) * 0.8
    sampler.set_epoch(1)
    assert list(sampler) != batches
