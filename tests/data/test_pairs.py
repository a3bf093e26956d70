"""Pairs and collections: what is read, written and refused."""

import json
import logging

import pytest
from helpers import write_jsonl

from perspective.artifacts import Output
from perspective.data.collection import Collection, is_collection_finished, load_collection, save_collection
from perspective.data.mteb_tasks import find_collection
from perspective.data.pairs import Pair, load_pairs, save_pairs
from perspective.errors import DataError

PAIRS = [
    Pair("q1", "d1"),
    Pair("q2", "d2", ("n",), 0.25, "here"),
    Pair("질문", "문서\u2028 with a line separator", ("n1", "n2")),
]


def test_pairs_survive_the_file(tmp_path):
    output = Output(tmp_path / "pairs.jsonl", "pairs", {})
    save_pairs(output, PAIRS)
    assert load_pairs(output.path) == PAIRS
    records = [json.loads(line) for line in output.path.read_text(encoding="utf-8").split("\n") if line]
    assert [record.get("hard_negative") for record in records] == [None, "n", ["n1", "n2"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "q"}', r'pairs.jsonl:2: no "document" field \(found: query\)'),
        ('{"query": "q", "document": " "}', r'pairs.jsonl:2: "document" is empty'),
        ('{"query": 1, "document": "d"}', r'pairs.jsonl:2: "query" is int, not a text'),
        ('{"query": "q", "document": "d", "hard_negative": [""]}', r'pairs.jsonl:2: "hard_negative" is empty'),
        ('{"query": "q", "document": "d", "hard_negative": {}, "weight": 2}', r'"weight" is 2; it must lie'),
        (
            '{"query": "q", "document": "d", "hard_negative": {"a": 1}}',
            r'"hard_negative" is dict, not a text or a list',
        ),
        ('{"query": "q", "document": "\\ud83d"}', r"half a character"),
        ("{", r"pairs.jsonl:2: bad JSON"),
        ("[]", r"pairs.jsonl:2: expected an object, found list"),
    ],
)
def test_pairs_that_do_not_fit_are_named_by_line(tmp_path, line, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "q", "document": "d"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_pairs(path)


def test_no_pairs(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_pairs(tmp_path / "x.jsonl")
    (tmp_path / "x.jsonl").write_text("\n")
    with pytest.raises(DataError, match="the file is empty"):
        load_pairs(tmp_path / "x.jsonl")


@pytest.fixture
def folder(tmp_path):
    """A collection in the BEIR layout, with a query of another split."""
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(
        folder / "corpus.jsonl",
        [{"_id": "a", "title": "Title", "text": "text"}, {"_id": "b", "text": "b"}, {"_id": "c", "title": "only"}],
    )
    write_jsonl(folder / "queries.jsonl", [{"_id": "1", "text": "one"}, {"_id": "2", "text": "two"}])
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n")
    return folder


def test_collection_is_read_and_says_what_it_leaves_out(folder, caplog):
    with caplog.at_level(logging.WARNING):
        collection = load_collection(folder)
    assert collection.corpus == {"a": "Title text", "b": "b", "c": "only"}
    assert collection.queries == {"1": "one"}
    assert collection.qrels == {"1": {"a": 2, "b": 0}}
    assert "1 of 2 queries have no relevant document and are left out" in caplog.text


def test_beir_qrels_folder_without_header(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    (folder / "qrels" / "test.tsv").write_text("1\tc\t1\r\n")
    assert find_collection(str(folder)).qrels == {"1": {"c": 1}}


def test_collection_survives_the_files(tmp_path):
    made = Collection("there", {"a": "x", "b": "y"}, {"1": "one"}, {"1": {"b": 2}})
    save_collection(Output(tmp_path / "there" / "qrels.tsv", "collection", {}), made)
    read = load_collection(tmp_path / "there")
    assert read.fingerprint == made.fingerprint
    assert (read.name, read.corpus, read.qrels) == ("there", made.corpus, made.qrels)


@pytest.mark.parametrize("lost", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_collection_of_which_a_file_is_missing_is_not_finished(tmp_path, lost):
    def open_output():
        return Output(tmp_path / "qrels.tsv", "collection", {})

    save_collection(open_output(), Collection("there", {"a": "x"}, {"1": "one"}, {"1": {"a": 1}}))
    assert is_collection_finished(open_output(), overwrite=False)
    (tmp_path / lost).unlink()
    assert not is_collection_finished(open_output(), overwrite=False)


def test_a_collection_that_is_written_again_is_unfinished_until_its_judgments_are(tmp_path, monkeypatch):
    made = Collection("there", {"a": "x"}, {"1": "one"}, {"1": {"a": 1}})
    save_collection(Output(tmp_path / "qrels.tsv", "collection", {}), made)
    with pytest.raises(AttributeError), monkeypatch.context() as dying:
        dying.delattr(Output, "open")  # dies between the texts and the judgments
        save_collection(Output(tmp_path / "qrels.tsv", "collection", {"seed": 7}), made)
    assert not is_collection_finished(Output(tmp_path / "qrels.tsv", "collection", {}), overwrite=False)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels.tsv", "1\tz\t1\n", r'the qrels name document "z", which is not in the corpus'),
        ("qrels.tsv", "9\ta\t1\n", r'the qrels name query "9", which is not among the queries'),
        ("qrels.tsv", "1\ta\t1\n1\ta\t2\n", r'qrels.tsv:2: query "1" and document "a" are judged twice'),
        ("qrels.tsv", "1\ta\tyes\n", r"qrels.tsv:1: grade 'yes' is not a whole number"),
        ("qrels.tsv", "1\ta\t9223372036854775808\n", r"qrels.tsv:1: grade 9223372036854775808 is too large; at most"),
        ("qrels.tsv", "1\ta\t-9223372036854775809\n", r"qrels.tsv:1: grade -9223372036854775809 is too large; at most"),
        ("qrels.tsv", "1 a 1\n", r"qrels.tsv:1: 1 fields; expected query-id, corpus-id, score"),
        ("qrels.tsv", "1\ta\t0\n", r"no query has a relevant document"),
        ("queries.jsonl", '{"_id": "1", "text": ""}\n', r'queries.jsonl:1: "text" is empty'),
        (
            "corpus.jsonl",
            '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n',
            r'corpus.jsonl:2: id "a" is given twice',
        ),
        ("corpus.jsonl", '{"text": "x"}\n', r'corpus.jsonl:1: no "_id" \(found: text\)'),
        ("corpus.jsonl", "", r"corpus.jsonl: the file is empty"),
        ("queries.jsonl", '{"_id": "1", "text": "one"\n', r"queries.jsonl:1: bad JSON"),
    ],
)
def test_collections_that_do_not_fit_are_refused(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        load_collection(folder)


def test_folder_that_is_no_collection(tmp_path):
    with pytest.raises(DataError, match="no qrels.tsv or qrels/test.tsv"):
        find_collection(str(tmp_path))


def test_fingerprint_tells_texts_and_judgments(folder):
    before = load_collection(folder).fingerprint
    (folder / "qrels.tsv").write_text("1\ta\t1\n")
    assert load_collection(folder).fingerprint != before
