import datetime
import json

import numpy as np
import pandas as pd
import pytest
from helpers import write_jsonl

from perspective.data import corpus, sample
from perspective.judging.protocol import choose_wording
from perspective.vectors import sample_rows


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """50 labelled texts of the user's own; data sets are written to the test's folder."""
    for module in (corpus, sample):
        monkeypatch.setattr(module, "DATASETS", tmp_path / "datasets")
    path = tmp_path / "mine.jsonl"
    write_jsonl(path, [{"text": f"text {i}", "kind": f"k{i % 3}"} if i else {"text": "text 0"} for i in range(50)])
    return path


def draw(path, n_texts, *more):
    columns = ("--text_column", "text", "--label_column", "kind")
    sample.main(["--dataset", "mine", "--data_path", str(path), "--adapt_on", str(n_texts), *columns, *more])


def test_a_sample_is_a_data_set_with_the_rows_of_the_whole(texts, tmp_path, capfd):
    draw(texts, 20)
    assert capfd.readouterr().out == "mine_n=20\n"
    path = tmp_path / "datasets" / "mine_n=20" / "small.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [record["row"] for record in records]
    assert len(set(rows)) == 20 and rows == sorted(rows) and rows != list(range(20))
    assert all(record["input"] == f"text {record['row']}" for record in records)
    assert all(record.get("label") == (f"k{record['row'] % 3}" if record["row"] else None) for record in records)
    assert corpus.load_texts(corpus.CorpusSettings("mine_n=20")) == [f"text {row}" for row in rows]
    # Again: finished, and the same name for the script.
    written = path.stat().st_mtime_ns
    draw(texts, 20)
    assert capfd.readouterr().out == "mine_n=20\n" and path.stat().st_mtime_ns == written


def test_too_large_a_sample_is_refused(texts, capfd):
    with pytest.raises(SystemExit) as ended:
        draw(texts, 50)
    assert ended.value.code == 2
    assert "--adapt_on 50: " in capfd.readouterr().err


def test_rows_are_spread_over_the_file():
    rows = sample_rows(10**6, 20_000)
    assert abs(np.mean(rows) - 5e5) < 1e4 and len(np.unique(rows)) == 20_000


def test_a_sample_is_judged_by_the_perspective_of_its_data_set():
    assert choose_wording("banking77_n=1000") == choose_wording("banking77")
    assert choose_wording("unknown_n=1000").perspective == "topic"


@pytest.mark.usefixtures("texts")
def test_a_text_with_several_labels_is_refused(tmp_path, capfd):
    table = tmp_path / "several.parquet"
    pd.DataFrame({"text": [f"text {row}" for row in range(50)], "kind": [["a", "b"]] * 50}).to_parquet(table)
    with pytest.raises(SystemExit):
        draw(table, 20)
    assert "is no single label; give another --label_column" in capfd.readouterr().err


def test_dates_are_labels_and_a_column_that_is_named_must_hold_some(texts, tmp_path, capfd):
    table = pd.DataFrame({"text": [f"text {row}" for row in range(50)]})
    table["kind"] = [datetime.date(2026, 1, 1 + row % 3) for row in range(50)]
    table.to_parquet(tmp_path / "mine.parquet")
    draw(tmp_path / "mine.parquet", 20)
    records = (tmp_path / "datasets" / "mine_n=20" / "small.jsonl").read_text().splitlines()
    assert {json.loads(record)["label"] for record in records} == {"2026-01-01", "2026-01-02", "2026-01-03"}
    with pytest.raises(SystemExit):
        draw(texts, 20, "--label_column", "kindd", "--overwrite")
    assert 'no text has a value in "kindd"' in capfd.readouterr().err
