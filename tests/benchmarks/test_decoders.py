import json

import numpy as np
import pytest
from helpers import write_jsonl

from perspective.benchmarks.decoders import measuring, study
from perspective.data.collection import Collection
from perspective.leaderboard import measured
from perspective.leaderboard.pages import decoder_tables
from perspective.models.decoders import POOLINGS, set_pooling
from perspective.models.embedders import load_embedder

TEXTS = ["top up my card", "rain", "how do I top up my card?"]


def test_one_pass_gives_the_vectors_of_each_pooling(llm_folder):
    model = load_embedder(str(llm_folder), device="cpu")
    together = measuring.embed_by_poolings(model, TEXTS, "Query: ")
    for pooling in POOLINGS:
        set_pooling(model, pooling)
        np.testing.assert_allclose(together[pooling], model.encode(TEXTS, prompt="Query: "), atol=1e-5)


def test_retrieval_is_measured_by_pooling(llm_folder, monkeypatch):
    documents = {str(row): f"{text} {row}" for row, text in enumerate(TEXTS * 4)}
    queries = {row: documents[row] for row in ("0", "4", "8")}  # found at once: a query is its document
    collection = Collection("tiny", documents, queries, {row: {row: 1} for row in queries})
    monkeypatch.setattr(measuring, "sample_collection", lambda: collection)
    found = measuring.measure_retrieval(load_embedder(str(llm_folder), device="cpu"))
    assert {pooling: one["NDCG@10"] for pooling, one in found.items()} == dict.fromkeys(POOLINGS, 100.0)
    assert found["mean"]["interval"] == [100.0, 100.0] and found["mean"]["per_query"] == [100.0] * 3


def test_a_killed_study_measures_the_rest(tmp_path, monkeypatch):
    calls = []

    def measure(_):
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"masked_loss": float(len(calls))}

    monkeypatch.setattr(study, "RESULTS", tmp_path / "study.json")
    monkeypatch.setattr(study, "CELLS", {"loss uni": measure, "loss bi": measure})
    monkeypatch.setattr(study.DecoderStudy, "texts", write_jsonl(tmp_path / "texts.jsonl", [{"input": "a"}]))
    settings = study.DecoderStudySettings(cells=["loss uni", "loss bi"])
    with pytest.raises(KeyboardInterrupt):
        study.run_study(settings)
    assert list(json.loads((tmp_path / "study.json").read_text())["cells"]) == ["loss uni"]
    cells = study.run_study(settings)["cells"]
    assert {name: cell["masked_loss"] for name, cell in cells.items()} == {"loss uni": 1.0, "loss bi": 3.0}
    monkeypatch.setattr(decoder_tables, "DECODERS", tmp_path / "study.json")
    measured.load.cache_clear()
    assert "| Uni | 1.00 | 33.0 |" in decoder_tables.tabulate_masked_loss()
    assert measured.show_size(tmp_path / "study.json", "pairs") == "320"


def test_the_sample_of_classes_is_that_of_every_run(tmp_path, monkeypatch):
    records = [{"input": f"text {row}", "label": f"class {row % 30}"} for row in range(900)]
    folder = tmp_path / "many"
    folder.mkdir()
    write_jsonl(folder / "small.jsonl", records)
    monkeypatch.setattr("perspective.data.corpus.DATASETS", tmp_path)
    measuring.sample_classes.cache_clear()
    sample = measuring.sample_classes("many")
    assert (len(sample.texts), len(set(sample.labels))) == (20 * 25, 20)
    pairs = zip(sample.texts, sample.labels, strict=True)
    assert all(int(text.split()[1]) % 30 == int(label.split()[1]) for text, label in pairs)
    measuring.sample_classes.cache_clear()
    assert measuring.sample_classes("many") == sample
