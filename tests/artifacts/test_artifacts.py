import json

import numpy as np
import pytest

from perspective.artifacts import (
    JudgeRecord,
    Judgment,
    Output,
    TrainingTriplet,
    Triplet,
    atomic_path,
    dump_json,
    hash_file,
    load_judgments,
    load_training_triplets,
    load_triplets,
    parse_prediction,
    read_facts,
    read_json,
    read_record,
    read_sidecar,
    read_vectors,
    reading,
    save_judgments,
    save_training_triplets,
    save_triplets,
    write_text,
)
from perspective.artifacts.provenance import METHOD_VERSIONS
from perspective.errors import DataError

TEXTS = ["how do I top up?", 'quotes " and \u2028 and \n and 한국어', "NA", "lost card"]


@pytest.fixture
def records():
    """Two records of the published triplet layout."""
    rows = [(0, 1, 2), (3, 0, 1)]
    return [
        {
            "input": f"Query: {TEXTS[query]}\nChoice 1: {TEXTS[choice1]}\nChoice 2: {TEXTS[choice2]}\nChoice",
            "output": " 1",
            "options": [" 1", " 2"],
            "task": "banking77",
            "query_idx": query,
            "choice1_idx": choice1,
            "choice2_idx": choice2,
        }
        for query, choice1, choice2 in rows
    ]


@pytest.fixture
def written(tmp_path):
    def write(value, name="file.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return write


# writing


def test_atomic_path_writes_whole_or_nothing(tmp_path):
    path = tmp_path / "new" / "file"
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    write_text(path, "one")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "one"  # the old file stands until the new one is whole
        raise ZeroDivisionError
    assert [(part.name, part.read_text()) for part in path.parent.iterdir()] == [("file", "one")]


def test_atomic_path_of_a_folder(tmp_path):
    path = tmp_path / "checkpoint"

    def write(name, fail):
        with atomic_path(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
            if fail:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write("a", fail=True)
    assert list(tmp_path.iterdir()) == []
    write("a", fail=False)
    with pytest.raises(ZeroDivisionError):
        write("b", fail=True)
    assert [part.name for part in tmp_path.rglob("*")] == ["checkpoint", "a"]
    write("b", fail=False)
    assert [part.name for part in tmp_path.rglob("*")] == ["checkpoint", "b"]  # replaced, not mixed


def test_hash_of_a_folder_is_of_names_and_contents_but_not_the_card(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("x")
    seen = {hash_file(tmp_path)}
    (tmp_path / "README.md").write_text("card")
    assert {hash_file(tmp_path)} == seen
    (tmp_path / "sub" / "a").write_text("y")
    seen.add(hash_file(tmp_path))
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    seen.add(hash_file(tmp_path))
    assert len(seen) == 3


# provenance


@pytest.fixture
def stage(tmp_path):
    """An output of a stage with one input."""
    source = tmp_path / "texts.jsonl"
    source.write_text("one")

    def make(**settings):
        settings = {"seed": 100, "max_query": 8} | settings
        return Output(tmp_path / "result.json", "triplets", settings, {"texts": source}, {"n": 3})

    make.source = source
    return make


def test_output_is_finished_after_writing(stage):
    output = stage()
    assert not output.is_finished()
    output.write_json([1])
    assert stage().is_finished()
    assert not stage().is_finished(overwrite=True)
    sidecar = read_json(output.sidecar)
    assert sidecar["sha256"] == hash_file(output.path)
    assert sidecar["inputs"] == {"texts": hash_file(stage.source)}
    assert (sidecar["schema"], sidecar["settings"]["seed"]) == ("triplets", 100)
    assert {"python", "numpy", "torch"} <= sidecar["versions"].keys()
    assert read_facts(output.path) == {"n": 3}
    assert read_facts(stage.source) == {}


def test_output_refuses_what_was_made_otherwise(stage):
    stage().write_json([1])
    with pytest.raises(DataError, match=r"made with other max_query \(8, now 9\); seed \(100, now 7\); move it away"):
        stage(seed=7, max_query=9).is_finished()
    with pytest.raises(DataError, match=r"new_option \(None, now 1\)"):
        stage(new_option=1).is_finished()
    stage.source.write_text("two")
    with pytest.raises(DataError, match=r"texts \(another file\).*--overwrite"):
        stage().is_finished()
    other = stage()
    other.schema = "judgments"
    with pytest.raises(DataError, match=r"schema \(triplets, now judgments\)"):
        other.is_finished()


def test_precision_and_a_change_of_method_count_as_other_settings(stage, monkeypatch):
    made = stage()
    made.precision = "bfloat16"
    made.write_json([1])
    other = stage()
    other.precision = "float32"
    with pytest.raises(DataError, match=r"made with other precision \(bfloat16, now float32\)"):
        other.is_finished()
    other.precision = "bfloat16"
    monkeypatch.setitem(METHOD_VERSIONS, "triplets", 2)
    with pytest.raises(DataError, match=r"version of the method \(1, now 2\)"):
        other.is_finished()


def test_the_record_and_the_facts_of_a_finished_result_are_there(stage):
    made = stage()
    made.record.judge = JudgeRecord(name="llm-choice", kind="choice", orders=2)
    made.record.llm_weight = 0.5
    made.write_json([1])
    again = stage()
    assert again.is_finished()
    assert again.record == made.record == read_record(made.path) and again.facts == {"n": 3}
    assert read_record(stage.source).judge is None


def test_a_torn_sidecar_names_the_remedy(stage):
    output = stage()
    output.write_json([1])
    output.sidecar.write_text(output.sidecar.read_text()[:100])
    with pytest.raises(DataError, match=r"result\.json\.meta\.json:\d+: bad JSON .*; remove it, or .* --overwrite"):
        stage().is_finished()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "another version of this pipeline.*--overwrite"),
        ({"sha256": None}, r"result.json.meta.json: damaged \(sha256:"),
        ({"record": {"judge": {"name": "x", "orders": 3}}}, r"damaged \(record.judge.orders: .*--overwrite"),
        ({"record": {"unheard": 1}}, r"damaged \(record.unheard:"),
        ({"settings": []}, r"damaged \(settings:"),
        ({"facts": "none"}, r"damaged \(facts:"),
        ({"facts": {"loss": float("inf")}}, r"damaged \(a number is NaN or infinite"),
    ],
)
def test_a_sidecar_of_another_version_or_damaged_is_one_line(stage, change, message):
    output = stage()
    output.write_json([1])
    output.sidecar.write_text(json.dumps(read_json(output.sidecar) | change))
    for read in (stage().is_finished, lambda: read_record(output.path)):
        with pytest.raises(DataError, match=message):
            read()


def test_vectors_that_changed_since_they_were_made_are_no_input(tmp_path):
    made = Output(tmp_path / "a.npy", "embeddings", {})
    made.write_vectors(np.ones((2, 3)))
    following = (tmp_path / "b.npy", "teacher", {}, {"embeddings": made.path})
    Output(*following)
    content = bytearray(made.path.read_bytes())
    content[-1] ^= 1
    made.path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy: changed since it was made; run the stage that makes it with --overw"):
        Output(*following)
    made.sidecar.unlink()  # now it is a file from elsewhere
    Output(*following)


def test_output_refuses_edited_and_foreign_files_but_not_an_interrupted_write(stage):
    output = stage()
    output.path.write_text("mine")
    with pytest.raises(DataError, match="not made by this stage"):
        output.is_finished()
    output.write_json([1])
    output.path.write_text("[2]\n")
    with pytest.raises(DataError, match="changed since it was made"):
        stage().is_finished()
    output.path.unlink()
    assert not stage().is_finished()  # a sidecar alone: killed between the two renames


def test_output_leaves_nothing_when_the_stage_fails(stage):
    with pytest.raises(ValueError, match="JSON"):
        stage().write_json([float("nan")])
    with pytest.raises(ZeroDivisionError), stage().open() as temporary:
        temporary.mkdir()
        raise ZeroDivisionError
    assert [part.name for part in stage.source.parent.iterdir()] == ["texts.jsonl"]


def test_output_of_vectors_and_of_a_folder(stage):
    output = stage()
    output.write_vectors(np.eye(3))
    np.testing.assert_array_equal(read_vectors(output.path, 3), np.eye(3, dtype=np.float32))
    assert stage().is_finished()
    output.path.unlink()
    with stage().open() as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_text("x")
    assert stage().is_finished()
    (output.path / "README.md").write_text("the card may change")
    assert stage().is_finished()
    (output.path / "model.safetensors").write_text("y")
    with pytest.raises(DataError, match="changed since"):
        stage().is_finished()


# round trips


def test_triplets_round_trip(tmp_path):
    triplets = [Triplet(0, 1, 2, " 1"), Triplet(3, 2, 1, "both"), Triplet(1, 0, 3)]
    output = Output(tmp_path / "triplets.json", "triplets", {})
    save_triplets(output, triplets, TEXTS, "banking77")
    assert load_triplets(output.path, TEXTS, "banking77") == triplets
    record = read_json(output.path)[0]
    assert list(record) == ["input", "output", "options", "task", "query_idx", "choice1_idx", "choice2_idx"]
    assert record["input"] == f"Query: {TEXTS[0]}\nChoice 1: {TEXTS[1]}\nChoice 2: {TEXTS[2]}\nChoice"
    assert record["options"] == [" 1", " 2"]


def test_judgments_round_trip(tmp_path):
    judgments = [
        Judgment(Triplet(0, 1, 2, " 2"), ("1",), "prompt\u2028", "Choice 1 (p=0.900)", 0.9, 0.85),
        Judgment(Triplet(0, 1, 3), (), "", "?"),
        Judgment(Triplet(1, 2, 3), ("2",), "", "", 0.25),
    ]
    output = Output(tmp_path / "judgments.json", "judgments", {})
    save_judgments(output, judgments, TEXTS, "banking77")
    assert load_judgments(output.path, TEXTS, "banking77") == judgments
    record = read_json(output.path)[0]
    assert (record["prediction"], record["confidence"]) == (["1"], 0.9)
    # What judges need lies beside what triplets need: a judged file reads as triplets too.
    assert load_triplets(output.path, TEXTS) == [judgment.triplet for judgment in judgments]


def test_judgment_probabilities():
    both = Judgment(Triplet(0, 1, 2), ("2",), probability=0.25, swapped_probability=0.125)
    assert (both.confidence, both.forward_probability) == (0.75, 0.375)
    one = Judgment(Triplet(0, 1, 2), ("2",), probability=0.25)
    assert (one.confidence, one.forward_probability) == (0.75, None)
    assert Judgment(Triplet(0, 1, 2), ("2",)).confidence is None


def test_training_triplets_round_trip(tmp_path):
    triplets = [
        TrainingTriplet("Represent: ", *TEXTS[:3], Triplet(0, 1, 2), 0.5),
        TrainingTriplet("", *TEXTS[1:], Triplet(1, 2, 3)),
    ]
    output = Output(tmp_path / "train.json", "training", {})
    save_training_triplets(output, triplets, "banking77")
    assert load_training_triplets(output.path) == triplets
    record = read_json(output.path)[0]
    assert record["query"] == ["Represent: ", TEXTS[0]]
    assert record["task_name"] == "banking77"


# what does not fit


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (["1"], ("1",)),
        ([" 1"], ("1",)),
        (" 2", ("2",)),
        ([" 1", "1"], ("1",)),
        (["1", "2"], ()),
        ([], ()),
        (None, ()),
        (["Choice 1"], ()),
        ([1], ("1",)),
        (1, ()),
    ],
)
def test_parse_prediction(value, label):
    assert parse_prediction(value) == label


def test_published_judgments_are_read(records, written):
    records[0]["prediction"] = [" 1"]
    records[1] |= {"prediction": ["1", "2"], "prepared": None, "content": "Both."}
    first, second = load_judgments(written(records), TEXTS[:4], "banking77")
    assert first == Judgment(Triplet(0, 1, 2, " 1"), ("1",))
    assert second == Judgment(Triplet(3, 0, 1, " 1"), (), content="Both.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_idx": 4}, r"file\.json: record 1 has query_idx 4, but there are 4 texts"),
        ({"choice2_idx": -1}, 'record 1 has no row number in "choice2_idx"'),
        ({"choice1_idx": "2"}, r'record 1 has no row number in "choice1_idx" \(found \'2\'\)'),
        ({"choice1_idx": True}, r"found True"),
        ({"choice1_idx": 1.0}, r"found 1\.0"),
        ({"choice2_idx": 2}, r"record 1 was made of other texts: .*, now "),
        ({"task": "mtop_domain"}, "made for data set 'mtop_domain', not 'banking77'"),
    ],
)
def test_triplets_that_do_not_fit_are_refused(records, written, change, message):
    records[1] |= change
    with pytest.raises(DataError, match=message):
        load_triplets(written(records), TEXTS[:4], "banking77")


def test_other_shapes_are_refused(records, written):
    for value, message in (
        ({"a": 1}, "expected a list of records, found dict"),
        ([3], "record 0 is int, not an object"),
        ("", "the file is empty"),
        ('[\n{"a": 1},\n{"a" 2}]', r"file\.json:3: bad JSON"),
    ):
        with pytest.raises(DataError, match=message):
            load_triplets(written(value), TEXTS[:4])
    with pytest.raises(DataError, match='record 0 has no "prediction"; it has not been judged'):
        load_judgments(written(records), TEXTS[:4])
    for probability in (1.5, -0.1, "0.5", float("nan")):
        broken = [records[0] | {"prediction": ["1"], "probability": probability}]
        with pytest.raises(DataError, match=r'file\.json: record 0: "probability" is .*between 0 and 1'):
            load_judgments(written(broken), TEXTS[:4])
    path = written("")
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="not UTF-8 text .* at byte 2"):
        read_json(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos": ["only one"]}, "record 0 is not a training triplet"),
        ({"neg": None}, "record 0 is not a training triplet"),
        ({"query_idx": "x"}, "record 0 is not a training triplet"),
        ({"query_idx": float("inf")}, "record 0 is not a training triplet"),
        ({"weight": 10**400}, "record 0 is not a training triplet"),
        ({"weight": None}, "record 0 is not a training triplet"),
        ({"neg": ["", 3]}, "record 0 holds a text that is not a string"),
        ({"weight": -1}, r"record 0 has weight -1\.0"),
        ({"weight": float("inf")}, "record 0 has weight inf"),
        ({"weight": float("nan")}, "record 0 has weight nan"),
    ],
)
def test_broken_training_triplets_are_refused(written, change, message):
    record = {"query": ["", "a"], "pos": ["", "b"], "neg": ["", "c"]}
    record |= {"query_idx": 0, "choice1_idx": 1, "choice2_idx": 2}
    assert load_training_triplets(written([record]))[0].weight == 1.0  # published: without a weight
    with pytest.raises(DataError, match=message):
        load_training_triplets(written([record | change]))


def test_large_vectors_are_mapped_and_checked_as_others(tmp_path, monkeypatch):
    """They stay on disk until they are used; changes do not reach the file."""
    monkeypatch.setattr(reading, "MAPPED_BYTES", 100)
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.save(tmp_path / "large.npy", rows)
    found = read_vectors(tmp_path / "large.npy", 20)
    assert isinstance(found.base, np.memmap) and not isinstance(found, np.memmap)
    found[0] = -1
    np.testing.assert_array_equal(read_vectors(tmp_path / "large.npy"), rows)
    rows[7, 1] = np.nan
    np.save(tmp_path / "large.npy", rows)
    with pytest.raises(DataError, match="row 7 holds NaN"):
        read_vectors(tmp_path / "large.npy")


def test_inputs_are_those_of_the_beginning(tmp_path):
    """A file that changes while a stage runs is not what the result was made from."""
    source = tmp_path / "texts.jsonl"
    source.write_text("one")
    hashed = hash_file(source)
    output = Output(tmp_path / "result.json", "triplets", {}, {"texts": source})
    source.write_text("two")
    output.write_json([1])
    assert read_json(output.sidecar)["inputs"] == {"texts": hashed}
    with pytest.raises(DataError, match=r"texts \(another file\)"):
        Output(output.path, "triplets", {}, {"texts": source}).is_finished()


def test_a_file_that_moves_within_a_folder_changes_its_hash(tmp_path):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "config.json").write_text("{}")
    before = hash_file(tmp_path)
    (tmp_path / "one" / "config.json").rename(tmp_path / "other" / "config.json")
    assert hash_file(tmp_path) != before


def test_an_edited_cheap_result_is_made_again(tmp_path):
    output = Output(tmp_path / "page.html", "page", {})
    output.write_json([1])
    assert output.is_current()
    output.path.write_text("edited")
    assert not output.is_current()


def test_the_facts_of_a_finished_result_are_those_of_the_run_that_made_it(tmp_path):
    made = Output(tmp_path / "result.json", "triplets", {})
    made.facts["n"] = 3
    made.write_json([1])
    again = Output(tmp_path / "result.json", "triplets", {})
    assert again.is_finished() and again.facts == {"n": 3}


def test_the_instruction_stands_before_all_three_texts(tmp_path):
    output = Output(tmp_path / "train.json", "training", {})
    save_training_triplets(output, [TrainingTriplet("Represent: ", "a", "b", "c", Triplet(0, 1, 2))], "x")
    (record,) = read_json(output.path)
    assert [record[name] for name in ("query", "pos", "neg")] == [["Represent: ", text] for text in "abc"]


def test_an_unfinished_run_of_other_settings_is_begun_again_on_request(tmp_path):
    (Output(tmp_path / "vectors.npy", "embeddings", {"n": 1}).open_partial() / "block").write_text("old")
    other = Output(tmp_path / "vectors.npy", "embeddings", {"n": 2})
    assert not other.is_finished()
    with pytest.raises(DataError, match="finish it, or add --overwrite to begin again"):
        other.open_partial()
    assert not other.is_finished(overwrite=True)
    assert [path.name for path in other.open_partial().iterdir()] == ["fingerprint.json"]
    (other.partial / "block").write_text("new")
    assert not other.is_finished(overwrite=True) and (other.open_partial() / "block").read_text() == "new"


def test_hidden_files_are_no_part_of_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    before = hash_file(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"y")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").write_bytes(b"z")
    assert hash_file(tmp_path) == before
    (tmp_path / "config.json").write_bytes(b"{}")
    assert hash_file(tmp_path) != before


def test_a_result_of_replaced_inputs_is_made_again(tmp_path):
    """Answers are added to judgments: what was made of them follows; what was made of something else is refused."""
    names = ("judgments", "training", "model")
    paths = [tmp_path / f"{name}.json" for name in names]

    def make(place, value, **settings):
        inputs = {names[place - 1]: paths[place - 1]} if place else {}
        output = Output(paths[place], names[place], settings, inputs)
        if output.is_finished():
            return False
        output.write_json(value)
        return True

    assert all(make(place, [place]) for place in range(3)) and not make(1, [])
    killed = Output(paths[1], names[1], {}, {names[0]: paths[0]}).open_partial()
    (killed / "work").touch()
    judgments = Output(paths[0], "judgments", {})
    assert judgments.is_finished()
    judgments.replace(read_sidecar(paths[0]))
    judgments.write_json([0, "more"])
    with pytest.raises(DataError, match=r"made with other size \(None, now 2\); judgments"):
        make(1, [1], size=2)
    begun = Output(paths[1], names[1], {}, {names[0]: paths[0]}).open_partial()
    assert [path.name for path in begun.iterdir()] == ["fingerprint.json"]  # of fewer answers: begun again
    assert make(1, [1, "more"]) and make(2, [2, "more"])
    assert not make(1, []) and not make(2, [])
    paths[1].write_text(dump_json([1]))  # a kill after the sidecar: the earlier version is still there
    assert make(1, [1, "more"]) and not make(2, [])
    paths[1].write_text("[]")
    with pytest.raises(DataError, match="changed since it was made"):
        make(1, [])
    paths[1].write_text(dump_json([1, "more"]))
    Output(paths[0], "judgments", {}).write_json(["others"])
    with pytest.raises(DataError, match=r"made with other judgments \(another file\); move it away"):
        make(1, [])
