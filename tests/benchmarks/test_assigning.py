import numpy as np
import pytest
from helpers import write_jsonl

from perspective.benchmarks.clusters import counting
from perspective.benchmarks.clusters.assigning import measure_unknown, measure_unseen
from perspective.benchmarks.clusters.counting import CountingSettings, measure
from perspective.errors import DataError
from perspective.layout import Layout
from perspective.vectors import normalize_rows


@pytest.fixture(scope="module")
def classes():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30)
    return normalize_rows(np.eye(10, 24)[labels] + 0.08 * rng.standard_normal((300, 24))).astype(np.float32), labels


def test_unseen_texts_of_clear_classes_are_assigned_without_fault(classes):
    result = measure_unseen(*classes, seed=1)
    assert result["assigned"] == result["clustered_again"] == {"ACC": 100.0, "NMI": 100.0}


def test_labels_that_say_nothing_score_low(classes):
    vectors, labels = classes
    result = measure_unseen(vectors, np.random.default_rng(0).permutation(labels), seed=1)
    assert result["assigned"]["ACC"] < 45 and result["clustered_again"]["ACC"] < 45


def test_unknown_classes_become_clusters_of_their_own(classes):
    result = measure_unknown(*classes, seed=1)
    assert result["unknown_classes"] == result["clusters_added"] == 2
    assert result["nowhere_of_unknown_classes"] == 1.0 and result["nowhere_of_known_classes"] < 0.3
    assert result["in_added"] == 1.0 and result["known_in_added"] == 0.0 and result["NMI_in_added"] == 100.0


def test_counting_compares_with_the_labels(classes, tmp_path, monkeypatch):
    vectors, labels = classes
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "small.jsonl"
    write_jsonl(path, [{"input": f"{label} {row}", "label": str(label)} for row, label in enumerate(labels)])
    for name, rows in (("embeds", vectors), ("states", vectors[:, ::-1] + 0.02)):
        np.save(tmp_path / f"{name}.npy", rows)
        monkeypatch.setattr(Layout, name, property(lambda _, name=name: tmp_path / f"{name}.npy"))
    result = measure("mine", CountingSettings(data_folder=str(tmp_path)))
    assert (result["n_texts"], result["n_classes"], result["use"]) == (300, 10, "confirmation")
    assert result["chosen"] in (9, 11) and result["criterion"] == "views"  # beside 10 in the grid
    write_jsonl(path, [{"input": f"{row}"} for row in range(300)])
    with pytest.raises(DataError, match="the study needs labels"):
        measure("mine", CountingSettings(data_folder=str(tmp_path)))
    assert set(counting.TUNING).isdisjoint(counting.CONFIRMATION)
