import json

import numpy as np
import pytest

from perspective.artifacts import (
    Judgment,
    Output,
    Triplet,
    judgment_record,
    load_judgments,
    read_facts,
    read_json,
    read_judgment,
    read_vectors,
    save_judgments,
)
from perspective.artifacts.jsonl import read_jsonl
from perspective.errors import DataError


@pytest.fixture
def written(tmp_path):
    def write(value, name="file.json"):
        path = tmp_path / name
        path.write_text(value, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, r"file\.json: lists or objects are nested too deeply"),
        ('{"a":' * 100_000, r"file\.json: lists or objects are nested too deeply"),
        (f"[{'9' * 5000}]", r"file\.json: a number has too many digits"),
        (r'[{"output": "\ud83d"}]', r"file\.json: holds half a character"),
        (r'{"\udc00": 1}', r"file\.json: holds half a character"),
        (r'{"a": 1, "content": ["\uDFFF"]}', r'file\.json: "content" holds half a character'),
    ],
)
def test_json_that_python_cannot_take_is_one_line(written, text, message):
    with pytest.raises(DataError, match=message):
        read_json(written(text))
    with pytest.raises(DataError, match=message.replace(r"\.json", r"\.json:2")):
        list(read_jsonl(written("\n" + text)))


def test_whole_characters_spelled_as_pairs_are_read(written):
    assert read_json(written(r'["\ud83d\ude00"]')) == ["😀"]


def test_what_was_paid_for_is_written_even_with_half_a_character(tmp_path):
    judgment = Judgment(Triplet(0, 1, 2), ("1",), "prompt \ud83d", "Choice \udc00 1")
    line = json.dumps(judgment_record(judgment), ensure_ascii=False).encode("utf-8")
    assert read_judgment(json.loads(line), "x").content == "Choice ? 1"
    output = Output(tmp_path / "judgments.json", "judgments", {})
    output.facts["model"] = "half \ud83d"
    save_judgments(output, [judgment], ["a", "b", "c"], "demo")
    assert load_judgments(output.path, ["a", "b", "c"])[0].prepared == "prompt ?"
    assert read_facts(output.path) == {"model": "half ?"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": 7}, r'x:3: "probability" is 7; must be between 0 and 1; remove the line, and the question'),
        ({"swapped_probability": float("nan")}, '"swapped_probability" is nan; .*; remove the line'),
        ({"prediction": ["7"]}, r"""x:3: "prediction" is \['7'\]; remove the line"""),
        ({"prediction": "1"}, '"prediction" is .*; remove the line'),
        ({"query_idx": float("inf")}, r'no row number in "query_idx" \(found inf\); remove the line'),
    ],
)
def test_a_damaged_line_of_an_unfinished_run_names_the_remedy(change, message):
    record = judgment_record(Judgment(Triplet(0, 1, 2), ("1",), "", "", 0.75, 0.5))
    assert read_judgment(record, "x:3").probability == 0.75
    with pytest.raises(DataError, match=message):
        read_judgment(record | change, "x:3")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle ran')",))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([Bomb()], dtype=object), "a pickle or a broken array"),
        (np.zeros((2, 3), dtype=int), "expected an array of floats, found int64"),
        (np.zeros(3), r"must be 2-D and not empty, got shape \(3,\)"),
        (np.zeros((0, 3)), r"got shape \(0, 3\)"),
        (np.zeros((5, 3)), "5 rows for 4 texts"),
        (np.array([[0.0], [1], [np.nan], [np.inf]]), r"row 2 holds NaN or infinity \(2 such rows\)"),
        (np.full((4, 1), 1e300), r"row 0 holds NaN or infinity"),  # too large for float32
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, array, message):
    path = tmp_path / "v.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        read_vectors(path, 4)


def test_vectors_of_any_float_are_read_and_broken_files_refused(tmp_path):
    path = tmp_path / "v.npy"
    for kind in (np.float16, np.float32, np.float64):
        np.save(path, np.eye(4, dtype=kind))
        assert read_vectors(path).dtype == np.float32
    whole = path.read_bytes()
    huge = whole.replace(b"(4, 4), }" + b" " * 12, b"(4, 4000000000000), }")
    headers = [
        whole.replace(b"'descr': '<f8'", new) for new in (b"'descr': (((((", b"'descr': '<f\xff'", b"'descr': '<q9'")
    ]
    assert len({whole, huge, *headers}) == 5
    for broken in (huge, *headers, b"", b"not an array", whole[:-8], whole[:40], b"PK\x03\x04 not a zip"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"v\.npy: "):
            read_vectors(path)
    with path.open("wb") as file:
        np.savez(file, a=np.eye(2))
    with pytest.raises(DataError, match="expected an array of floats"):
        read_vectors(path)
