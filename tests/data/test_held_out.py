import json

import pytest

from perspective.artifacts import read_json
from perspective.data import held_out
from perspective.errors import DataError

LISTING = """Package: nano
Section: editors
Description-en: small, friendly text editor
 A long description: of several lines.

Package: nano-tiny
Source: nano (7.2)
Section: editors
Description: small, friendly text editor - tiny build

Package: chess
Section: contrib/games
Description: play chess

Package: old-chess
Section: games
Description: transitional package for chess

Package: libchess1
Section: libs
Description: shared library
"""


def test_sections_say_what_a_program_is_for():
    # One a source package; no library, nothing that is no program.
    assert held_out.group_by_section(LISTING) == {
        "editors": ["small, friendly text editor"],
        "games": ["play chess"],
    }


def test_no_text_stands_under_two_labels():
    texts = {"a": [f"text {i}" for i in range(6)], "b": ["Text 0", "other"], "c": [f"more {i}" for i in range(3)]}
    records = held_out.draw_records(texts, "tiny", n_least=2, n_most=5)
    assert records == held_out.draw_records(texts, "tiny", n_least=2, n_most=5)
    words = [record["input"].lower() for record in records]
    assert len(set(words)) == len(words)
    labels = [record["label"] for record in records]
    assert labels.count("a") == 5 and labels.count("c") == 3 and labels.count("b") in (0, 2)
    assert labels != sorted(labels) and {record["task"] for record in records} == {"tiny"}


def test_modules_of_an_installed_package(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(held_out, "DATASETS", tmp_path)
    monkeypatch.setattr(held_out, "PACKAGES", ("sklearn",))
    held_out.main(["--names", "modules"])
    made = tmp_path / "modules" / "small.jsonl"
    records = [json.loads(line) for line in made.read_text().splitlines()]
    labels = {record["label"] for record in records}
    assert {"sklearn.cluster", "sklearn.linear_model"} <= labels and len(labels) < len(records) / 39
    assert "sklearn" in read_json(made.with_name("small.jsonl.meta.json"))["settings"]
    with caplog.at_level("INFO"):
        held_out.main(["--names", "modules"])
    assert "already made" in caplog.text


def test_what_cannot_be_made_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="the debian set needs Debian"):
        held_out.read_sections()
