import json
import logging
import math

import pandas as pd
import pytest

from perspective.data import corpus
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import DataError
from perspective.evaluation.labels import load_labels


@pytest.fixture
def given(tmp_path):
    """Write a file of texts and return the settings that point to it."""

    def write(content, name="small.jsonl", **options):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return CorpusSettings("mine", data_path=str(path), **options)

    return write


def test_texts_and_labels_are_read_in_order(given):
    settings = given([{"task": "x", "input": f"text {i}", "label": i % 2} for i in range(5)])
    assert load_texts(settings) == [f"text {i}" for i in range(5)]
    assert load_labels(settings) == ["0", "1", "0", "1", "0"]


def test_texts_stay_as_they_are(given, caplog):
    texts = ["NA", "null", " spaced ", "a\u2028b\x85c", "same", "same", "한국어 \U0001f600", 'say "hi", you', "1"]
    blank_line_between = "\n\n".join(json.dumps({"input": text}, ensure_ascii=False) for text in texts)
    with caplog.at_level(logging.INFO):
        assert load_texts(given(blank_line_between)) == texts
    assert "9 texts, 1 of them duplicates (kept)" in caplog.text
    assert load_texts(given(b"\xef\xbb\xbf" + blank_line_between.encode())) == texts  # BOM
    assert load_texts(given(blank_line_between.replace("\n", "\r\n"))) == texts
    table = pd.DataFrame({"input": texts})
    assert load_texts(given(table.to_csv(index=False), "a.csv")) == texts
    assert load_texts(given(b"\xef\xbb\xbf" + table.to_csv(index=False).encode(), "a.csv")) == texts
    assert load_texts(given(table.to_parquet(), "a.parquet")) == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"input": "a"}\n{"input": "b"\n', r"small\.jsonl:2: bad JSON"),
        ('{"input": "a"}\n\n["b"]\n', r"small\.jsonl:3: expected an object, found list"),
        ('{"input": "a"}\n{"text": "b", "label": 1}\n', r'small\.jsonl:2: no "input" field \(found: label, text\)'),
        ('{"input": "a"}\n{}\n', r'small\.jsonl:2: no "input" field \(found: none\)'),
        ('{"input": "a"}\n{"input": 3}\n', r'small\.jsonl:2: "input" is int, not a text'),
        ('{"input": "a"}\n{"input": null}\n', r'small\.jsonl:2: "input" is NoneType, not a text'),
        ('{"input": "a"}\n{"input": " \\n"}\n', r'small\.jsonl:2: "input" is empty'),
        ('{"input": "a"}\n{"input": "\u200b\\u0000\ufeff"}\n', r'small\.jsonl:2: "input" is empty'),
        ('{"input": "a"}\n{"input": "\\ud83d"}\n', r'small\.jsonl:2: "input" holds half a character'),
        ('{"input": "a"}\n', r"small\.jsonl: 1 text; clustering needs at least two"),
        ("\n", r"small\.jsonl: the file is empty"),
        (b'{"input": "\xff"}', r"small\.jsonl: not UTF-8 text \(.* at byte 11\)"),
    ],
)
def test_faults_name_file_and_line(given, content, message):
    with pytest.raises(DataError, match=message):
        load_texts(given(content))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("text,label\na,b\n", "a.csv", r'a\.csv: no column "input" \(found: text, label\)'),
        ("input,label\na,b\n ,b\n", "a.csv", r'a\.csv: row 2: "input" is empty'),
        ("input\n", "a.csv", r"a\.csv: the file is empty"),
        ("\ninput\na\n\nb\n\n", "a.csv", r'a\.csv: row 2: "input" is empty'),
        (b"input\ncaf\xe9\n", "a.csv", r"a\.csv: not UTF-8 \(.* at byte 3\); save it as UTF-8"),
        ("", "a.csv", r"a\.csv: cannot be read as csv"),
        ("input\nplain\nhello, world\n", "a.csv", r"a\.csv: cannot be read as csv"),
        ("input\nhello, world\ngood, day\n", "a.csv", r"a\.csv: rows hold more fields than the header"),
        ("input,label\nhello, world,x\ngood, day,y\n", "a.csv", r"a\.csv: rows hold more fields than the header"),
        ("PAR1", "a.parquet", r"a\.parquet: cannot be read as parquet"),
        ("a", "a.txt", r'a\.txt: cannot read "\.txt"; give \.jsonl, \.csv or \.parquet'),
    ],
)
def test_faults_of_tables(given, content, name, message):
    with pytest.raises(DataError, match=message):
        load_texts(given(content, name))


def test_faults_of_a_parquet_row(given):
    table = pd.DataFrame({"input": ["a", None, "c"], "label": [1, None, 2]}).to_parquet()
    with pytest.raises(DataError, match=r'a\.parquet: row 2: "input" is NoneType'):
        load_texts(given(table, "a.parquet"))


def test_one_column_of_a_table_is_read_even_if_it_is_an_index(given):
    table = pd.DataFrame({"input": ["a", "b", "c"], "label": ["x", "y", "x"], "vector": [[0.5, 1.0]] * 3})
    settings = given(table.set_index("input").to_parquet(), "a.parquet")
    assert (load_texts(settings), load_labels(settings)) == (["a", "b", "c"], ["x", "y", "x"])
    with pytest.raises(DataError, match=r'a\.parquet: no column "text" \(found: input, label, vector\)'):
        load_texts(given(table.to_parquet(), "a.parquet", text_column="text"))


def test_labels(given):
    lines = [{"input": "a", "label": "NA"}, {"input": "b", "label": "x"}, {"input": "c", "label": "x"}]
    assert load_labels(given(lines)) == ["NA", "x", "x"]
    assert load_labels(given(pd.DataFrame(lines).to_csv(index=False), "a.csv")) == ["NA", "x", "x"]
    assert load_labels(given(pd.DataFrame(lines).to_parquet(), "a.parquet")) == ["NA", "x", "x"]
    without = [{"input": "a"}, {"input": "b", "label": None}]
    assert load_labels(given(without)) is None
    assert load_labels(given("input\na\nb\n", "a.csv")) is None
    assert load_labels(given("input,label\na,\nb,\n", "a.csv")) is None
    assert load_labels(given([{"input": "a", "label": math.nan}, {"input": "b", "label": " "}])) is None
    several = [{"input": "a", "label": ["x", "y"]}, {"input": "b", "label": ["x"]}]
    for content, name in ((several, "small.jsonl"), (pd.DataFrame(several).to_parquet(), "a.parquet")):
        with pytest.raises(DataError, match=r'(:| row )1: "label" is no single label'):
            load_labels(given(content, name))


def test_columns_of_other_names(given):
    settings = given([{"q": "a", "y": 1}, {"q": "b", "y": 2}, {"q": "c", "y": 2}], text_column="q")
    assert (load_texts(settings), load_labels(settings, "y")) == (["a", "b", "c"], ["1", "2", "2"])


def test_unknown_and_unfetched_data_sets(tmp_path, monkeypatch):
    (tmp_path / "sources.json").write_text('{"banking77": {}, "mtop_domain": {}}')
    monkeypatch.setattr(corpus, "DATASETS", tmp_path)
    with pytest.raises(DataError, match=r'unknown data set "bankin77": did you mean banking77\? .*--data_path'):
        load_texts(CorpusSettings("bankin77"))
    with pytest.raises(DataError, match=r"small\.jsonl: not fetched yet; .*fetch_datasets\.sh banking77"):
        load_texts(CorpusSettings("banking77"))
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        load_texts(CorpusSettings("banking77", data_path="gone.csv"))
    (tmp_path / "banking77").mkdir()
    (tmp_path / "banking77" / "large.jsonl").write_text('{"input": "a"}\n{"input": "b"}\n')
    assert load_texts(CorpusSettings("banking77", "large")) == ["a", "b"]
