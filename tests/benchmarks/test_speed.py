"""The speed benchmark: what it measures of stage 3, and how measured rows join those that are there."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from perspective.benchmarks import speed_table
from perspective.benchmarks.baselines import bertopic_topics
from perspective.benchmarks.speed import describing
from perspective.benchmarks.speed.comparison import Row, time_cpu

TEXTS = [f"text {row}" for row in range(60)]


@pytest.fixture
def small(monkeypatch):
    vectors = np.eye(5, 8, dtype=np.float32)[np.arange(60) % 5]
    monkeypatch.setattr(describing, "load_vectors", lambda: vectors)
    monkeypatch.setattr(describing, "N_CLUSTERS", 5)
    return vectors


def test_repeated_vectors_are_assigned_to_the_clusters_of_the_first(small, tmp_path):
    np.save(tmp_path / "few.npy", small)
    files = describing.cluster_repeated(tmp_path, tmp_path / "few.npy", TEXTS)
    many = describing.repeat_vectors(tmp_path / "many.npy", 150, seed=0)
    assert describing.run_describe("assign", tmp_path, many, None, 0) > 0
    found = pq.read_table(files.assigned(many))["cluster"].to_pylist()
    known = pq.read_table(files.texts)["cluster"].to_pylist()
    assert found == [known[row % 60] for row in range(150)]


def test_without_bertopic_its_column_stays_empty_and_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setattr(bertopic_topics, "PACKAGES", ("no_such_package",))
    row = describing.compare("what", "BERTopic", "1 s", 0.5, lambda: pytest.fail("was called"), "")
    assert row.ours_seconds == 0.5 and row.other_seconds is None and row.ratio is None
    assert len(caplog.records) == 1 and "no_such_package cannot be imported" in caplog.text


def test_cpu_seconds_count_work_and_no_waiting():
    import time

    assert time_cpu(lambda: time.sleep(0.3)) < 0.2 < time_cpu(lambda: [i * i for i in range(10**7)])


def test_measured_rows_replace_those_of_their_stage_alone(monkeypatch, tmp_path, capsys):
    rows = {"loss": 1.0, "naming": 2.0}
    stages = {name: lambda _, name=name: [Row(name, "other", "2x", rows[name], 4.0, 2.0, "")] for name in rows}
    monkeypatch.setattr(speed_table, "STAGES", stages)
    monkeypatch.setattr(speed_table, "MEASURES", tmp_path)
    monkeypatch.setattr(speed_table, "describe_machine", lambda: {"cores": rows["loss"]})
    speed_table.main(["--stages", "naming"])
    rows["loss"] = 8.0
    speed_table.main(["--stages", "loss"])
    found = json.loads((tmp_path / "benchmark_speed.json").read_text())
    assert list(found["stages"]) == ["loss", "naming"]  # in the order of the stages
    assert {name: one["cores"] for name, one in found["machines"].items()} == {"naming": 1.0, "loss": 8.0}
    assert "loss: cores 8.0" in capsys.readouterr().out


def test_the_rows_of_the_three_ways_compare_equal_results(monkeypatch):
    from perspective.benchmarks.speed import hybrid
    from perspective.benchmarks.speed.comparison import SpeedSettings

    for name, value in {"N_SEARCHED": 3000, "N_ASKED": 8, "N_LISTS": 16, "N_SAMPLED": 3000, "N_PROBED": 16}.items():
        monkeypatch.setattr(hybrid, name, value)
    rng = np.random.default_rng(0)
    settings = SpeedSettings(n_pairs=1)
    rows = [hybrid._bench_sparse(settings, rng), hybrid._bench_tokens(settings, rng), hybrid._bench_dense(rng)]
    for row in rows[:2]:
        assert float(row.equal.split(" to ")[1]) < 1e-5
    assert rows[2].equal == "100% of the first 100"  # of all lists
