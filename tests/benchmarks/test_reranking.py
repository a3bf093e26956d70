"""The study of rerankers: the same samples in every run, cells that resume, tables of what is measured."""

import json

import numpy as np
import pytest
from reranker_files import TOPICS

from perspective.artifacts import Output
from perspective.benchmarks.decoders import measuring
from perspective.benchmarks.reranking import models, samples, study
from perspective.data.collection import Collection, save_collection
from perspective.data.pairs import Pair, save_pairs
from perspective.leaderboard import measured
from perspective.leaderboard.pages import reranking_tables


@pytest.fixture
def tiny(tmp_path, monkeypatch, embedder_folder):
    """The study on tiny texts with a tiny embedder."""
    rng = np.random.default_rng(0)

    def write(row):
        words = " ".join(rng.choice(["play", "top", "up", "pin", "lost", "cash"], 5))
        return f"{TOPICS[row % 4]} {row}", f"{TOPICS[row % 4]} {words} {row}"

    made = [write(row) for row in range(80)]
    folder = tmp_path / "docstrings"
    corpus = {str(row): text for row, (_, text) in enumerate(made[:40])}
    queries = {f"q{row}": query for row, (query, _) in enumerate(made[:40])}
    collection = Collection("docstrings", corpus, queries, {f"q{row}": {str(row): 1} for row in range(40)})
    save_collection(Output(folder / "qrels.tsv", "collection", {}), collection)
    save_pairs(Output(folder / "train.jsonl", "pairs", {}), [Pair(*one) for one in made])
    measuring.sample_collection.cache_clear()
    for module in (models, study, samples, measuring):
        monkeypatch.setattr(module, "DATASETS", tmp_path, raising=False)
        for name, value in {
            "N_RERANKER": 32,
            "N_STUDENT": 16,
            "N_NOISY": 24,
            "N_QUERIES": 12,
            "N_DOCUMENTS": 30,
        }.items():
            monkeypatch.setattr(module, name, value, raising=False)
    monkeypatch.setattr(models, "EMBEDDER", str(embedder_folder))
    for module in (models, study):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "benchmark_reranking")
    monkeypatch.setattr(study, "RESULTS", tmp_path / "benchmark_reranking.json")
    monkeypatch.setattr("perspective.retrieval.layout.RETRIEVAL_STAGE", tmp_path / "stage")
    monkeypatch.setattr(reranking_tables, "RERANKING", tmp_path / "benchmark_reranking.json")
    measured.load.cache_clear()
    yield tmp_path
    measuring.sample_collection.cache_clear()
    measured.load.cache_clear()


def test_the_study_measures_trains_and_shows(tiny, embedder_folder, one_thread):
    pytest.importorskip("bm25s")
    cells = ["first stage", "reranked hybrid", "student", "trained 100", "shuffled 100", "filter", "noisy clean 100"]
    cells += ["m3", "reranked m3", "query times"]
    found = study.run_study(
        study.RerankingStudySettings(cells=cells, student=str(embedder_folder), learning_rate=1e-3)
    )["cells"]
    assert list(found) == [name for name in study.CELLS if name in cells]
    again = found["reranked hybrid"]
    before = found["first stage"]["retrievers"]["hybrid"]["scores"]
    assert {metric: again["first_stage"]["scores"][metric] for metric in before} == before
    assert again["scores"]["NDCG@10"] <= again["first_stage"]["recall"]
    assert found["filter"]["n_clean"] == 12
    assert len(found["trained 100"]["per_query"]) == 12
    assert again["first_stage"]["reranker"] == "reranker"  # not the folder
    table = reranking_tables.tabulate_reranked()
    assert "| MiniLM and BM25, hybrid, reranked |" in table and "| its three ways, reranked |" in table
    assert found["query times"]["ms"].keys() == {"bm25", "dense", "m3"}
    assert "the same, each group's scores shuffled | 1 |" in reranking_tables.tabulate_learned()
    assert "| MiniLM | " in reranking_tables.tabulate_filtered()
    assert "| only the clean ones | 12 | 1 | " in reranking_tables.tabulate_noisy()
    assert reranking_tables.show_difference("trained", "trained") == "+0.00 [+0.00, +0.00]"


def test_a_killed_study_measures_the_rest(tiny, monkeypatch):
    calls = []

    def measure(_):
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"n": len(calls)}

    monkeypatch.setattr(study, "CELLS", {"one": measure, "two": measure})
    settings = study.RerankingStudySettings(cells=["one", "two"])
    with pytest.raises(KeyboardInterrupt):
        study.run_study(settings)
    assert list(json.loads(study.RESULTS.read_text())["cells"]) == ["one"]
    assert {name: cell["n"] for name, cell in study.run_study(settings)["cells"].items()} == {"one": 1, "two": 3}


def test_half_of_the_pairs_are_corrupted_and_the_others_left(tiny):
    pairs, is_clean = samples.corrupt_half()
    original = samples.sample_pairs()[32:56]
    assert is_clean.sum() == 12
    for pair, before, clean in zip(pairs, original, is_clean, strict=True):
        assert pair.query == before.query
        assert (pair.document == before.document) == clean
    assert sorted(pair.document for pair in pairs) == sorted(pair.document for pair in original)
