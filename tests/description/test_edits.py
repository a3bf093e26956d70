import numpy as np
import pytest
from helpers import make_vectors
from hypothesis import given
from hypothesis import strategies as st

from perspective.description.edits import Edits, apply_edits, list_unknown_names, load_edits, write_template
from perspective.errors import DataError
from perspective.vectors import normalize_rows

UNIT = normalize_rows(make_vectors(60, n_groups=4))
FOUND = np.repeat([0, 1, 2, 7], 15)
TEXTS = [f"text {row % 50}" for row in range(60)]  # the last ten stand twice


def write(tmp_path, text):
    path = tmp_path / "edits.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("key", ["yes", "1.0", "2024-01-01"])
def test_texts_that_yaml_takes_for_something_else_need_quotes(tmp_path, key):
    path = tmp_path / "edits.yaml"
    path.write_text(f"pin:\n  {key}: 3\n")
    with pytest.raises(DataError, match=r"edits\.yaml:\d: pin: .*: rows are whole numbers, .* needs quotes"):
        load_edits(path)
    path.write_text(f"pin:\n  '{key}': 3\n")
    assert load_edits(path).pin == {key: 3}


def apply(**edits):
    return apply_edits(Edits(**edits), UNIT, TEXTS, FOUND, seed=0)


def test_the_template_changes_nothing_and_is_written_once(tmp_path):
    path = tmp_path / "edits.yaml"
    write_template(path, 31)
    assert load_edits(path) == Edits() == load_edits(tmp_path / "none.yaml")
    assert "31" in path.read_text()
    path.write_text("rename: {3: mine}")
    write_template(path, 99)
    assert load_edits(path).rename == {3: "mine"}


def test_the_examples_of_the_template_can_be_used(tmp_path):
    path = tmp_path / "edits.yaml"
    write_template(path, 31)
    path.write_text("\n".join(line.replace("#  ", "  ") for line in path.read_text().splitlines()))
    assert load_edits(path) == Edits(
        rename={3: "lost or stolen card"},
        merge=[[3, 17, 21]],
        split={5: [5, 31]},
        pin={120: 7, "where is my card?": 7},
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rename:\n  3: a\nmerg:\n - [1, 2]\n", 3, 'unknown edit "merg": did you mean merge?'),
        ("rename:\n  3: 404\n", 2, "put the name in quotes"),
        ("rename:\n  three: a\n", 2, "ids are whole numbers"),
        ("merge:\n  - [1, 2]\n  - [4]\n", 3, "two or more different ids"),
        ("merge:\n  - [1, 2]\n  - [4, x]\n", 3, "ids are whole numbers"),
        ("merge:\n  - [-7, 1, 2]\n", 2, "ids of clusters, from 0 on"),
        ("split:\n  3: [3, 100000000000000000000]\n", 2, "ids of clusters, from 0 on"),
        ("split:\n  5: [5, 5]\n", 2, "two or more different ids"),
        ("pin:\n  120: there\n", 2, "ids are whole numbers"),
        ("rename:\n  3: a\n  3: b\n", 3, '"3" is given twice'),
        ("rename:\n  3: a\nrename:\n  4: b\n", 3, '"rename" is given twice'),
        ("rename:\n  3: [a\nmerge:\n", 3, "expected"),
        ("rename:\n\t3: a\n", 2, "found character"),
        ("- rename\n", 1, "found list"),
        ("rename: !!python/object/apply:os.system [ls]\n", 1, "could not determine a constructor"),
        ("just words", 1, "found str"),
    ],
)
def test_a_typo_is_named_with_its_line_and_a_remedy(tmp_path, text, line, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError) as error:
        load_edits(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)
    assert ";" in str(error.value) or "did you mean" in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "edits.yaml"
    path.write_bytes(b"rename:\n  3: \xff\n")
    with pytest.raises(DataError, match="not UTF-8"):
        load_edits(path)


@given(text=st.text(max_size=60))
def test_whatever_stands_in_the_file_is_edits_or_one_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "edits.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        assert isinstance(load_edits(path), Edits)
    except DataError as error:
        assert str(path) in str(error)


def test_merged_clusters_have_the_first_id():
    edited = apply(merge=[[2, 0], [7, 1]])
    assert edited.cluster.tolist() == [2] * 15 + [7] * 15 + [2] * 15 + [7] * 15
    assert edited.remarks == []


def test_the_largest_part_of_a_split_has_the_first_id():
    edited = apply(split={1: [8, 1]})
    parts = edited.cluster[15:30]
    assert set(parts) == {1, 8}
    assert (parts == 8).sum() >= (parts == 1).sum()
    assert (edited.cluster == FOUND)[FOUND != 1].all()
    assert (apply(split={1: [8, 1]}).cluster == edited.cluster).all()


def test_pins_go_by_row_and_by_text_and_last():
    edited = apply(merge=[[0, 1]], pin={3: 7, "text 5": -1, "text 20": 0})
    assert edited.cluster[[3, 5, 55, 20]].tolist() == [7, -1, -1, 0]
    assert edited.pinned.sum() == 4


@pytest.mark.parametrize(
    ("edits", "remark"),
    [
        ({"merge": [[33, 0, 1]]}, "merge [33, 0, 1]: there is no cluster 33"),
        ({"split": {33: [33, 34]}}, "split 33: [33, 34]: there is no cluster 33"),
        ({"split": {0: [0, 7]}}, "split 0: [0, 7]: id 7 is taken; take 8 and above"),
        ({"pin": {60: 1}}, "pin 60: 1: there is no such row among those that were clustered"),
        (
            {"pin": {"text 90": 1}},
            'pin "text 90": 1: there is no such text among those that were clustered; it holds for a new text',
        ),
        ({"pin": {1: 33}}, "pin 1: 33: there is no cluster 33"),
    ],
)
def test_an_edit_that_does_not_fit_is_said_and_changes_nothing(edits, remark):
    edited = apply(**edits)
    assert edited.remarks == [remark]
    assert (edited.cluster == FOUND).all()


def test_equal_texts_cannot_be_split():
    edited = apply_edits(Edits(split={0: [0, 1]}), np.ones((4, 2)) / 2**0.5, list("abcd"), np.zeros(4, int), 0)
    assert "do not have 2 different vectors" in edited.remarks[0]
    assert (edited.cluster == 0).all()


def test_names_of_unknown_clusters_are_said():
    edits = Edits(rename={1: "a", 5: "b"})
    assert list_unknown_names(edits, [0, 1]) == ["rename 5: b: there is no cluster or branch 5"]


def test_mentioned_ids_are_listed():
    edits = Edits(rename={1: "a"}, merge=[[2, 3]], split={4: [4, 5]}, pin={9: 6, 10: -1})
    assert edits.list_ids() == {1, 2, 3, 4, 5, 6}
