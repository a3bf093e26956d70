"""Filters, the set that is made, and its report."""

import json
from dataclasses import replace

import pytest
from helpers import run_stage

from perspective.artifacts import Output, read_sidecar, sidecar_path
from perspective.data.documents import (
    Passage,
    PassageSettings,
    load_passages,
    make_title_pairs,
    read_passages,
    split_text,
    write_passages,
)
from perspective.data.pairs import Pair, load_pairs
from perspective.errors import DataError
from perspective.synthesis.assembly import assemble_set, hold_out, save_set
from perspective.synthesis.examples import Example, load_examples, save_examples
from perspective.synthesis.filters import DUPLICATE, INCONSISTENT, LANGUAGE, NEAR, filter_examples, is_other_language
from perspective.synthesis.settings import SynthesisFiles

ENGLISH = {"language": "en"}


def grounded(number, query, passage, fault=""):
    return Example("grounded", number, ENGLISH, passage, (query,) if not fault else (), "", fault)


PASSAGES = [
    Passage(f"p{row}", f"Passage {row} tells of thing {row}. A second sentence follows, which is long.")
    for row in range(8)
]
QUERIES = [
    "where is the lighthouse of the northern island",
    "Where is the lighthouse of the northern island?",
    "where is the old lighthouse of the northern island",
    "comment réparer une bicyclette sans outils à la maison",
    "how deep do roots of an oak tree grow",
    "why does bread rise in a warm kitchen",
    "which birds sleep while they fly over the sea",
]


def test_duplicates_and_other_languages_are_left_out():
    examples = [grounded(row, query, f"p{row}") for row, query in enumerate(QUERIES)]
    examples.append(grounded(7, "", "p7", "not JSON"))
    faults = [example.fault for example in filter_examples(examples)]
    assert faults == ["", DUPLICATE, NEAR, LANGUAGE, "", "", "", "not JSON"]


@pytest.mark.parametrize(
    ("texts", "values", "is_other"),
    [
        (("파이썬에서 배열을 정렬하는 방법을 알려 주세요",), {"language": "ko"}, False),
        (("파이썬에서 배열을 정렬하는 방법을 알려 주세요",), {"language": "en"}, True),
        (("eigh",), {"language": "ko"}, False),  # too short to tell
        (("Hawaiian text of a code that the identifier lacks",), {"language": "su"}, False),
        (("The shop is closed on Monday mornings.",) * 2, {"language": "en", "target_language": "fr"}, True),
        (
            ("The shop is closed on Monday.", "Le magasin est fermé."),
            {"language": "en", "target_language": "fr"},
            False,
        ),
    ],
)
def test_a_language_is_told_where_it_can_be(texts, values, is_other):
    assert is_other_language(Example("bitext", 0, values, texts=texts)) == is_other


def test_prose_alone_is_one_line():
    examples = [grounded(row, "", f"p{row}", "not JSON") for row in range(3)]
    with pytest.raises(DataError, match=r"none of 3 replies conforms \(most: not JSON, 3\)"):
        filter_examples(examples)


@pytest.mark.parametrize("n_held_out", [0, 100])
def test_replies_that_are_all_in_another_language_are_one_line(n_held_out):
    examples = [Example("grounded", row, {"language": "ko"}, f"p{row}", (QUERIES[row],)) for row in (0, 4, 5)]
    examples.append(grounded(7, "", "p7", "not JSON"))
    with pytest.raises(DataError, match=r"^0 of 4 examples are left to train on \(most: wrong language, 3\); ask for"):
        assemble_set(examples, PASSAGES, lambda pairs, _: list(pairs), n_held_out, seed=0)


def test_a_set_is_made_and_reported(tmp_path):
    examples = [grounded(row, query, f"p{row}") for row, query in enumerate(QUERIES)]
    examples.append(grounded(7, "", "p7", "not JSON"))
    seen = []

    def find(pairs, documents):
        seen.append(len(documents))
        return [pair for pair in pairs if "oak" not in pair.query]

    made = assemble_set(examples, PASSAGES, find, n_held_out=1, seed=0)
    assert seen == [8] and len(made.held_out) == 1
    assert made.examples[4].fault == INCONSISTENT
    assert {pair.document for pair in made.held_out}.isdisjoint(pair.document for pair in made.pairs)
    numbers = [pair.document.split()[1] for pair in made.pairs]
    assert [pair.query for pair in made.control] == [f"Passage {n} tells of thing {n}." for n in numbers]
    files = SynthesisFiles(tmp_path)
    save_set(made, PASSAGES, files, Output(files.pairs, "synthetic pairs", {}), "tiny", "shots")
    assert load_pairs(files.pairs) == made.pairs
    assert load_examples(files.filtered) == made.examples
    (row,) = json.loads(files.report.read_text(encoding="utf-8"))
    assert [row[name] for name in ("asked", "conforming", "unique", "right_language", "found")] == [8, 7, 5, 4, 3]
    assert row["faults"] == {DUPLICATE: 1, NEAR: 1, LANGUAGE: 1, INCONSISTENT: 1, "not JSON": 1}
    assert "| grounded | tiny (shots) | 8 | 88 | 62 | 50 | 38 |" in files.report.with_suffix(".md").read_text()
    assert (tmp_path / "report.png").stat().st_size and (tmp_path / "held_out" / "qrels.tsv").exists()
    # Without held-out queries there are none of earlier: they may be trained on now.
    made = assemble_set(examples, PASSAGES, find, n_held_out=0, seed=0)
    save_set(replace(made, control=[]), PASSAGES, files, Output(files.pairs, "synthetic pairs", {}), "tiny", "shots")
    assert not files.held_out.exists() and not files.control.exists()


def test_free_examples_are_not_about_the_corpus_of_an_earlier_run(tmp_path):
    files, options = SynthesisFiles(tmp_path), ("--output_path", tmp_path, "--keep_top_k", 0)
    write_passages(Output(files.corpus, "passages", {}), PASSAGES)
    save_examples(Output(files.examples, "examples", {}), [grounded(row, QUERIES[row], f"p{row}") for row in (0, 4, 5)])
    sidecar_path(files.examples).unlink()  # written by a person
    run_stage("filter", *options)
    assert load_passages(files.train_corpus) == PASSAGES
    free = [Example("short_short", row, ENGLISH, texts=(QUERIES[row], f"answer {row}")) for row in (0, 4, 5)]
    save_examples(Output(files.examples, "examples", {}), free)
    run_stage("filter", *options, "--overwrite")
    assert len(load_pairs(files.pairs)) == 3 and "corpus" not in read_sidecar(files.pairs).inputs
    assert not files.train_corpus.exists()


def test_of_a_document_with_several_queries_one_is_held_out():
    """All of a document's queries leave the training pairs, so that documents are counted."""
    pairs = [Pair(f"query {row} of it", f"document {row // 8}", source="grounded") for row in range(320)]
    held_out = hold_out(pairs, 10, 0)
    assert len(held_out) == len({pair.document for pair in held_out}) == 10
    assert len(hold_out(pairs, 100, 0)) == 20


def test_pairs_of_a_set_that_was_not_finished_are_gone(tmp_path, monkeypatch):
    """The held-out queries are of the new set then, and their documents among the pairs of the old one."""
    files, examples = SynthesisFiles(tmp_path), [grounded(row, query, f"p{row}") for row, query in enumerate(QUERIES)]
    made = assemble_set(examples, PASSAGES, lambda pairs, _: list(pairs), n_held_out=1, seed=0)
    save_set(made, PASSAGES, files, Output(files.pairs, "synthetic pairs", {"n": 1}), "tiny", "shots")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("perspective.synthesis.assembly.draw_report", stop)
    with pytest.raises(KeyboardInterrupt):
        save_set(made, PASSAGES, files, Output(files.pairs, "synthetic pairs", {"n": 2}), "tiny", "shots")
    assert not Output(files.pairs, "synthetic pairs", {"n": 1}).is_finished()


def test_queries_of_no_documents_cannot_be_held_out():
    with pytest.raises(DataError, match="only queries of real documents"):
        hold_out([], 3, 0)


def test_examples_are_read_as_they_were_written(tmp_path):
    examples = [Example("sts", 3, {"unit": "a"}, texts=("a", "b", "c")), grounded(1, "", "p1", "no reply")]
    path = tmp_path / "examples.jsonl"
    save_examples(Output(path, "examples", {}), examples)
    assert load_examples(path) == examples
    path.write_text('{"type": "stss", "texts": ["a"]}\n', encoding="utf-8")
    with pytest.raises(DataError, match="examples.jsonl:1: not an example"):
        load_examples(path)


def test_a_folder_of_documents_is_cut_into_passages(tmp_path):
    (tmp_path / "sub").mkdir()
    long = " ".join(f"Sentence number {row} of a very long document." for row in range(2200))
    assert len(long) > 100_000
    (tmp_path / "sub" / "long.txt").write_text(long, encoding="utf-8")
    (tmp_path / "no_spaces.txt").write_text("x" * 100_000, encoding="utf-8")
    (tmp_path / "page.md").write_text(f"# Knots\n\n{'A knot holds. ' * 5}\n\n## Hitches\n\n{'A hitch slips. ' * 5}")
    (tmp_path / "other.pdf").write_bytes(b"%PDF")
    passages = read_passages(tmp_path)
    assert all(len(passage.text) <= 600 for passage in passages)
    assert " ".join(one.text for one in passages if one.id.startswith("sub/long")) == long
    assert [(one.id, one.title) for one in passages if one.id.startswith("page")] == [
        ("page.md#0", "Knots"),
        ("page.md#1", "Hitches"),
    ]
    assert len(passages) < 400
    pairs = make_title_pairs(
        [passages[-1], Passage("a", "One sentence here. And then a second one that is much longer.")]
    )
    assert pairs[1].query == "One sentence here." and pairs[1].document == "And then a second one that is much longer."


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", "empty"),
        ("a.txt", "too short", r"1 document\(s\), none of 40"),
        ("a.txt", b"\xff\xfe\xff" * 40, "not UTF-8"),
    ],
)
def test_a_folder_without_documents_is_one_line(tmp_path, name, content, message):
    if name:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_passages(tmp_path)


def test_files_of_documents_are_read(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "a", "title": "Ropes", "text": "%s"}\n' % ("A rope is long. " * 4), encoding="utf-8")
    assert read_passages(path) == [Passage("a", ("A rope is long. " * 4).strip(), "Ropes")]
    with pytest.raises(DataError, match=r'corpus.jsonl:1: no text "body" \(found: _id, text, title\)'):
        read_passages(path, PassageSettings(text_column="body"))
    text = "A rope is long. " * 4
    rows = [{"_id": None, "text": text}, {"_id": "a", "text": f"{text}1"}, {"_id": "a", "text": f"{text}2"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r'corpus.jsonl:3: the id "a" is given twice'):
        read_passages(path)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), encoding="utf-8")
    assert [passage.id for passage in read_passages(path)] == ["1", "a"]
    with pytest.raises(DataError, match="no folder and no"):
        read_passages(tmp_path / "nothing.pdf")


def test_chinese_is_cut_at_sentences_without_spaces():
    sentence = "我的银行卡昨天丢失了请尽快补办一张新卡。"
    assert [part for _, part in split_text(sentence * 6, 45)] == [f"{sentence} {sentence}"] * 3
    (pair,) = make_title_pairs([Passage("a", sentence * 4, "")])
    assert pair.query == sentence and pair.document == sentence * 3


def test_texts_are_cut_at_the_best_place():
    assert [part for _, part in split_text("One two.\n\nThree four. Five six.", 12)] == [
        "One two.",
        "Three four.",
        "Five six.",
    ]


def test_texts_of_another_kind_of_example_are_no_duplicates():
    same, near = "where is the lighthouse of the northern island", "where is the old lighthouse of the northern island"
    examples = [
        Example("sts", 0, {"language": "en"}, texts=(same, "a", "b")),
        Example("short_long", 1, {"language": "en"}, texts=(same, "c", "d")),
        Example("short_long", 2, {"language": "en"}, texts=(near, "e", "f")),
        Example("long_short", 3, {"language": "en"}, texts=(near, "g", "h")),
        Example("sts", 4, {"language": "en"}, texts=(same.upper(), "i", "j")),
    ]
    assert [example.fault for example in filter_examples(examples)] == ["", "", NEAR, "", DUPLICATE]


def test_held_out_queries_are_drawn_by_the_seed_from_all_of_them():
    pairs = [Pair(f"query {row} about a thing", f"document {row}", source="grounded") for row in range(40)]
    first, again, other = (hold_out(pairs, 10, seed) for seed in (1, 1, 2))
    assert first == again != other and len(first) == 10
    assert first == [pair for pair in pairs if pair in first]  # in their order
    assert len(hold_out(pairs, 99, 0)) == 20


def test_queries_that_the_embedder_does_not_find_are_held_out_too():
    words = ("northern lighthouse", "oak roots", "bread", "birds", "knots", "salt lake", "snow", "bees")
    passages = [Passage(f"p{row}", f"Passage {row}. It tells of {words[row]} at some length.") for row in range(8)]
    examples = [Example("grounded", row, {"language": "xx"}, f"p{row}", (words[row],)) for row in range(8)]
    made = assemble_set(examples, passages, lambda pairs, _: list(pairs)[:4], n_held_out=4, seed=0)
    documents = [passage.text for passage in passages]
    places = [documents.index(pair.document) for pair in made.held_out]
    assert len(places) == 4 and max(places) > 3  # drawn before the search, which finds the first four alone
