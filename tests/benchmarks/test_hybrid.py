"""The study of M3: what it gathers of its cells, and its tables."""

import json

import pytest

from perspective.benchmarks.retrieval import hybrid
from perspective.errors import DataError
from perspective.leaderboard import measured
from perspective.leaderboard.pages import hybrid_tables


def write_cell(folder, arm, seed, scores):
    ways = hybrid.BASE_WAYS if arm == "base" else hybrid.HYBRID_WAYS
    found = {
        way: {
            "NDCG@10": sum(values) / len(values),
            "per_query": values,
            "published metrics": dict.fromkeys(hybrid.PUBLISHED_METRICS, values[0]),
        }
        for way, values in zip(ways, scores, strict=True)
    }
    cell = {"set": "docstrings", "arm": arm, "seed": seed, "scores": {"docstrings": found}, "processor_seconds": 60}
    (folder / f"cell-docstrings-{arm}-{seed}.json").write_text(json.dumps(cell))


@pytest.fixture
def gathered(tmp_path, monkeypatch):
    monkeypatch.setattr(hybrid, "FOLDER", tmp_path)
    write_cell(tmp_path, "base", 0, [[50.0, 70.0], [60.0, 60.0], [70.0, 70.0]])
    write_cell(tmp_path, "distilled", 13, [[60.0, 80.0], [20.0, 30.0], [70.0, 80.0], [60.0, 80.0], [80.0, 90.0]])
    write_cell(tmp_path, "distilled", 21, [[64.0, 84.0], [22.0, 32.0], [70.0, 80.0], [60.0, 80.0], [82.0, 92.0]])
    (tmp_path / "cell-docstrings-distilled-21.json.meta.json").write_text("{}")
    path = tmp_path / "benchmark_hybrid.json"
    monkeypatch.setattr(hybrid, "RESULTS", path)
    earlier = {
        "summary": {"gnome-help-en": {"base": {}}, "docstrings": "old"},
        "cells": [{"set": "help", "processor_seconds": 0}],
    }
    path.write_text(json.dumps(earlier))
    found = hybrid.gather()
    path.write_text(json.dumps(found))
    monkeypatch.setattr(hybrid_tables, "HYBRID", path)
    return found


def test_a_summary_is_over_seeds_and_differences_are_to_the_same_models_dense_way(gathered):
    distilled = gathered["summary"]["docstrings"]["distilled"]
    assert (distilled["dense"]["mean"], distilled["dense"]["std"], distilled["dense"]["n_seeds"]) == (72.0, 2.0, 2)
    assert distilled["all"]["against_dense"][0] == pytest.approx(86 - 72)
    # By query 62 and 82 against 81 and 91: the interval reaches from the one difference to the other.
    assert distilled["all"]["against_dense"][1:] == pytest.approx([9, 19])
    assert gathered["summary"]["docstrings"]["base"]["bm25"]["against_dense"][0] == 0
    assert distilled["all"]["published metrics"] == dict.fromkeys(hybrid.PUBLISHED_METRICS, 81.0)
    assert "per_query" not in json.dumps(gathered) and len(gathered["cells"]) == 4
    # What was measured earlier of another set stays.
    assert gathered["summary"]["gnome-help-en"] == {"base": {}} and gathered["cells"][0]["set"] == "help"


def test_tables_show_what_is_measured(gathered):
    table = hybrid_tables.tabulate_hybrid("docstrings")
    assert "| with self-distillation: dense | 72.0 ± 2.0 [62.0, 82.0] |" in table and "without" not in table
    assert "| BM25 | 60.0 [50.0, 70.0] |" in table
    gains = hybrid_tables.tabulate_hybrid_gains("docstrings")
    assert "| with self-distillation: all three | +14.0 (+9.0 to +19.0) |" in gains and "dense |" not in gains
    assert hybrid_tables.tabulate_hybrid("gnome-help-ko").count("\n") <= 2  # no rows
    assert (hybrid_tables.show_seeds("docstrings"), measured.show_minutes(hybrid_tables.HYBRID)) == ("2", "3")


def test_help_pages_train_in_three_roles_and_share_no_page(monkeypatch, tmp_path):
    monkeypatch.setattr(hybrid, "DATASETS", tmp_path)
    monkeypatch.setitem(hybrid.N_PAIRS, "help", 9)
    for name, language in zip(hybrid.SOURCES["help"], ("ko", "en"), strict=True):
        (tmp_path / name).mkdir()
        rows = [{"query": f"{language} q{i}", "document": f"{language} d{i}", "source": f"page{i}"} for i in range(20)]
        (tmp_path / name / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = hybrid.draw_pairs("help")
    languages = [(pair.query[:2], pair.document[:2]) for pair in pairs]
    assert languages == [("ko", "ko")] * 3 + [("en", "en")] * 3 + [("ko", "en")] * 3
    assert all(pair.query.split("q")[1] == pair.document.split("d")[1] for pair in pairs)
    assert len({pair.document.split("d")[1] for pair in pairs}) == 9


def test_an_unknown_arm_is_refused():
    with pytest.raises(DataError, match='--arms "distiled": did you mean distilled?'):
        hybrid.HybridBenchmark(arms=["distiled"])
