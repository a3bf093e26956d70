"""Teacher scores: those of the reranker, resumed after a kill, refused where they belong to other pairs."""

import importlib
import json

import numpy as np
import pytest
from helpers import write_jsonl
from reranker_files import make_pairs, save_reranker

from perspective.artifacts import Output
from perspective.data.pairs import Pair, load_pairs, save_pairs
from perspective.errors import DataError
from perspective.reranking import scoring
from perspective.reranking.loading import load_reranker, score_texts
from perspective.reranking.scoring import score_pairs


@pytest.fixture(scope="module")
def reranker_folder(models_folder, build):
    return save_reranker(models_folder / "teacher", build.wordpiece())


class Counting:
    """Scores a text by its length; fails after some calls."""

    def __init__(self, n_calls=99):
        self.n_left, self.n_read = n_calls, 0

    def predict(self, inputs, **options):
        if not self.n_left:
            raise KeyboardInterrupt
        self.n_left -= 1
        self.n_read += len(inputs)
        return np.array([len(text) for _, text in inputs], dtype=np.float32)


def test_scores_are_the_reranker_s(tmp_path, reranker_folder):
    pairs = [*make_pairs(6), Pair("card", "card card")]
    output = Output(tmp_path / "scored.jsonl", "scored pairs", {})
    score_pairs(pairs, lambda: load_reranker(str(reranker_folder), device="cpu"), output)
    scored = load_pairs(output.path)
    assert [(pair.query, pair.hard_negatives) for pair in scored] == [
        (pair.query, pair.hard_negatives) for pair in pairs
    ]
    model = load_reranker(str(reranker_folder), device="cpu")
    for pair in scored:
        texts = [(pair.query, text) for text in (pair.document, *pair.hard_negatives)]
        assert pair.scores == pytest.approx(score_texts(model, texts), abs=1e-5)


def test_a_killed_run_resumes_and_reads_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "PAIRS_AT_A_TIME", 4)
    pairs, output = make_pairs(10), Output(tmp_path / "scored.jsonl", "scored pairs", {})
    first, second = Counting(n_calls=1), Counting()
    with pytest.raises(KeyboardInterrupt):
        score_pairs(pairs, lambda: first, output)
    assert not output.path.exists()
    score_pairs(pairs, lambda: second, output)
    assert (first.n_read, second.n_read) == (16, 24)
    assert all(
        pair.scores == tuple(len(t) for t in (pair.document, *pair.hard_negatives)) for pair in load_pairs(output.path)
    )
    assert not output.partial.exists()


def test_pairs_without_a_negative_are_refused(tmp_path):
    with pytest.raises(DataError, match="no pair has a hard negative: a ranking needs several"):
        score_pairs([Pair("a", "b")], Counting, Output(tmp_path / "scored.jsonl", "scored pairs", {}))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            [1.0],
            r'pairs.jsonl:1: "scores" must be 3 numbers, of the document and its hard negatives \(found: 1\); they',
        ),
        ([1.0, 2.0, "x"], r'pairs.jsonl:1: "scores" holds something else than finite numbers'),
        ([1.0, 2.0, float("nan")], r"pairs.jsonl:1: "),
        ("high", r"pairs.jsonl:1: \"scores\" must be 3 numbers"),
    ],
)
def test_scores_of_other_pairs_are_refused(tmp_path, scores, message):
    record = {"query": "q", "document": "d", "hard_negative": ["e", "f"], "scores": scores}
    with pytest.raises(DataError, match=message):
        load_pairs(write_jsonl(tmp_path / "pairs.jsonl", [record]))


def test_the_stages_go_together(tmp_path, embedder_folder, one_thread, monkeypatch, capsys):
    """train_reranker, score_pairs, train --distill and evaluate --reranker, as their scripts call them."""
    stages = {
        name: importlib.import_module(f"perspective.6_retrieval.{name}").main
        for name in ("train_reranker", "score_pairs", "train", "evaluate")
    }
    mined = Output(tmp_path / "mined.jsonl", "mined pairs", {})
    save_pairs(mined, make_pairs(16))
    common = ["--dataset", "tiny", "--embedder", str(embedder_folder), "--train_file", str(mined.path)]
    steps = ["--per_device_train_batch_size", "8", "--learning_rate", "1e-3", "--num_negatives", "3"]
    reranker = str(tmp_path / "reranker")
    stages["train_reranker"]([*common, *steps, "--output_dir", reranker])
    stages["score_pairs"]([*common, "--reranker", reranker, "--output_path", str(tmp_path)])
    scored = tmp_path / "tiny_embedder.jsonl"
    common[-1] = str(scored)
    models = {}
    for name, options in {"plain": [], "distilled": ["--distill"]}.items():
        models[name] = str(tmp_path / name)
        stages["train"]([*common, *steps, *options, "--mini_batch_size", "4", "--output_dir", models[name]])
    settings = json.loads((tmp_path / "distilled.meta.json").read_text())["settings"]
    assert settings["distill"] is True
    assert "distill" not in json.loads((tmp_path / "plain.meta.json").read_text())["settings"]
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != (
        tmp_path / "distilled" / "model.safetensors"
    ).read_bytes()
    assert "a reranker's ranking of each query's group" in (tmp_path / "distilled" / "README.md").read_text()
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": f"d{n}", "text": f"answer {n}"} for n in range(12)])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "answer 3"}])
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td3\t1\n")
    evaluated = ["--collection", str(tmp_path), "--output_path", str(tmp_path / "results"), "--retriever", "bm25"]
    stages["evaluate"]([*evaluated, "--reranker", reranker])
    (path,) = (tmp_path / "results").glob("*rerank-reranker.json")
    assert json.loads(path.read_text())["first_stage"]
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    with pytest.raises(SystemExit):
        stages["evaluate"]([*evaluated, "--reranker", reranker])
    assert "made with other precision (" in capsys.readouterr().err


def test_distilling_without_scores_is_one_line(tmp_path, embedder_folder, capsys):
    mined = Output(tmp_path / "mined.jsonl", "mined pairs", {})
    save_pairs(mined, make_pairs(4))
    main = importlib.import_module("perspective.6_retrieval.train").main
    call = ["--dataset", "tiny", "--embedder", str(embedder_folder), "--distill", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main([*call, "--train_file", str(mined.path), "--num_negatives", "2"])
    assert 'error: --distill: the pair of "card 0" has no "scores"; run score_pairs first' in capsys.readouterr().err
