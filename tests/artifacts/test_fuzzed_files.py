"""Damaged files of every kind: each is read, or refused in one line; what was read can be written again."""

import copy
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perspective.artifacts import (
    JudgeRecord,
    Judgment,
    Output,
    TrainingTriplet,
    Triplet,
    judgment_record,
    load_judgments,
    load_training_triplets,
    load_triplets,
    read_judgment,
    read_vectors,
    save_judgments,
    save_training_triplets,
    save_triplets,
    sidecar_path,
)
from perspective.artifacts.jsonl import read_jsonl
from perspective.artifacts.sidecar import Fingerprint, validate_record
from perspective.data.collection import Collection, load_collection, save_collection
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.data.pairs import load_pairs, save_pairs
from perspective.errors import DataError
from perspective.evaluation.labels import load_labels

TEXTS = ["top up", "lost card", "rain 한국어", "sun"]
JUDGMENTS = [
    Judgment(Triplet(0, 1, 2, " 1"), ("1",), "prompt", "Choice 1", 0.75, 0.5),
    Judgment(Triplet(3, 2, 1), (), "", "?"),
]
ODD_JSON = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1", "0", "7", "1.5", "true", "null", '""', '" "', "[]", "{}", "[[]]"),
    *('"\\ud83d"', '"\\u0000"', '"\\u200b"', '["7"]', '{"a": 1}', '{"\\udc00": 1}', "9" * 5000, "9" * 400),
    *("[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900),
]
MARK = "@odd@"

fuzzed = settings(max_examples=150)


def list_places(value, path=()):
    """Every place in a JSON value, as a path of keys."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from list_places(part, (*path, key))


def put(value, path, replace):
    """A copy with the part at `path` dropped, or replaced by odd JSON."""
    if not path:
        return replace
    value = copy.deepcopy(value)
    *way, last = path
    holder = value
    for key in way:
        holder = holder[key]
    if replace is None:
        del holder[last]
    else:
        holder[last] = replace
    return value


@st.composite
def damaged_json(draw, value):
    path = draw(st.sampled_from(list(list_places(value))))
    odd = draw(st.sampled_from([None, *ODD_JSON]))
    if odd is None and not path:
        return b""
    return json.dumps(put(value, path, odd and MARK)).replace(f'"{MARK}"', odd or "").encode()


@st.composite
def damaged_bytes(draw, whole):
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 40)))
    middle = draw(
        st.sampled_from([b"", b"\0", b"\xff", b"\n", b"\n\n", b'"', b",", b"\t", b"-", b"(", b"9" * 30, whole[:9]])
    )
    return whole[:start] + middle + (b"" if draw(st.booleans()) else whole[end:])


def damaged(whole):
    """A file as bytes, damaged as bytes; JSON and its lines at their values too."""
    try:
        return damaged_json(json.loads(whole)) | damaged_bytes(whole)
    except ValueError:
        pass
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        return damaged_bytes(whole)
    numbers = st.integers(0, len(lines) - 1)
    replaced = numbers.flatmap(lambda n: damaged_json(lines[n]).map(lambda new: (n, new)))
    return damaged_bytes(whole) | replaced.map(
        lambda one: b"\n".join(one[1] if i == one[0] else json.dumps(line).encode() for i, line in enumerate(lines))
    )


class Kinds:
    """One whole file of each kind, and how it is read and what was read is written."""

    def __init__(self, folder):
        self.folder = folder
        self.again = Output(folder / "again", "again", {})

    def triplets(self):
        path = self.folder / "triplets.json"
        save_triplets(Output(path, "triplets", {}), [one.triplet for one in JUDGMENTS], TEXTS, "demo")
        return path, lambda: save_triplets(self.again, load_triplets(path, TEXTS, "demo"), TEXTS, "demo")

    def judgments(self):
        path = self.folder / "judgments.json"
        save_judgments(Output(path, "judgments", {}), JUDGMENTS, TEXTS, "demo")
        return path, lambda: save_judgments(self.again, load_judgments(path, TEXTS, "demo"), TEXTS, "demo")

    def training(self):
        path = self.folder / "training.json"
        triplets = [TrainingTriplet("Represent: ", *TEXTS[:3], Triplet(0, 1, 2), 0.5)]
        save_training_triplets(Output(path, "training", {}), triplets, "demo")
        return path, lambda: save_training_triplets(self.again, load_training_triplets(path), "demo")

    def partial(self):
        path = self.folder / "judgments.json.partial.jsonl"
        fingerprint = Output(self.folder / "x", "judgments", {"seed": 1}).fingerprint
        records = [fingerprint.model_dump(), *map(judgment_record, JUDGMENTS)]
        path.write_text("\n".join(map(json.dumps, records)))

        def read():
            found = list(read_jsonl(path))
            for _, first in found[:1]:
                validate_record(Fingerprint, first, path)
            judgments = [read_judgment(record, place) for place, record in found[1:]]
            known = [one for one in judgments if max(one.triplet.key) < len(TEXTS)]
            save_judgments(self.again, known, TEXTS, "demo")

        return path, read

    def sidecar(self):
        def make():
            made = Output(self.folder / "result.json", "measures", {"seed": 1, "names": ["a"]}, {"texts": source})
            made.record.judge = JudgeRecord(name="llm", kind="choice", orders=2, asked={"model": "x"})
            made.record.llm_weight, made.record.prompts, made.facts["n"] = 0.5, ("query: ", ""), 3
            return made

        source = self.folder / "source.txt"
        source.write_text("x")
        make().write_json([1])

        def read():
            found = make()
            if found.is_finished():
                found.write_json([1])  # with the record and the facts that were read

        return sidecar_path(make().path), read

    def vectors(self):
        path = self.folder / "vectors.npy"
        np.save(path, np.eye(4, 3, dtype=np.float32))
        return path, lambda: self.again.write_vectors(read_vectors(path, 4))

    def texts(self, suffix):
        path = self.folder / f"texts{suffix}"
        table = pd.DataFrame({"input": TEXTS, "label": ["a", "b", "a", "b"]})
        if suffix == ".parquet":
            table.to_parquet(path)
        elif suffix == ".csv":
            table.to_csv(path, index=False)
        else:
            table.to_json(path, orient="records", lines=True)
        corpus = CorpusSettings("demo", data_path=str(path))
        return path, lambda: self.again.write_json([load_texts(corpus), load_labels(corpus)])

    def pairs(self):
        path = self.folder / "pairs.jsonl"
        record = {"query": "q", "document": "d", "hard_negative": ["n", "m"], "weight": 0.5, "source": "s"}
        path.write_text(json.dumps(record) + "\n" + json.dumps(record | {"hard_negative": "n"}))
        return path, lambda: save_pairs(self.again, load_pairs(path))

    def collection(self, name):
        folder = self.folder / f"collection {name}"
        grades = {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}
        made = Collection("docs", {"d1": "a", "d2": "b"}, {"q1": "x", "q2": "y"}, grades)
        save_collection(Output(folder / "qrels.tsv", "collection", {}), made)
        again = Output(self.folder / "again docs" / "qrels.tsv", "collection", {})
        return folder / name, lambda: save_collection(again, load_collection(folder))


KINDS = {
    **{name: (name,) for name in ("triplets", "judgments", "training", "partial", "sidecar", "vectors", "pairs")},
    **{f"texts{suffix}": ("texts", suffix) for suffix in (".jsonl", ".csv", ".parquet")},
    **{name: ("collection", name) for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused_in_one_line(kind, tmp_path_factory):
    name, *arguments = KINDS[kind]
    path, read = getattr(Kinds(tmp_path_factory.mktemp("fuzz")), name)(*arguments)
    whole = Path(path).read_bytes()
    read()  # undamaged
    outcomes = set()

    @fuzzed
    @given(damaged(whole))
    def check(content):
        path.write_bytes(content)
        try:
            read()
            outcomes.add("read")
        except DataError as error:
            assert str(error).strip() and len(str(error)) < 1000
            outcomes.add("refused")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check()
    assert "refused" in outcomes
