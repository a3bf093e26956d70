"""Help pages as retrieval sets: what is read of a page, which pages are aligned, how packages are fetched."""

import importlib
import json
import shutil
import subprocess

import pytest

from perspective.data.debian import unpack_packages
from perspective.data.help_pages import HelpSettings, align_pages, make_collections, read_html, read_mallard
from perspective.data.mteb_tasks import find_collection
from perspective.data.pairs import load_pairs
from perspective.errors import DataError

LONG = {"C": "It says what to do, step by step. " * 6, "ko": "무엇을 해야 하는지 하나씩 차례대로 알려 줍니다. " * 8}
MALLARD = """<?xml version="1.0" encoding="utf-8"?>
<page xmlns="http://projectmallard.org/1.0/" xmlns:its="http://www.w3.org/2005/11/its" type="topic" id="x">
  <info><desc>A description.</desc><credit type="author"><name>A Name</name></credit></info>
  <title>{title}</title>{body}
  <section><title>More</title><p>{text}</p></section>
</page>"""
HTML = """<!DOCTYPE html><html><head><title>Head</title><script>code()</script></head><body>
<header><p>LibreOffice Help</p></header><div id="DisplayArea"><meta itemprop="keywords" content="words">
<h1 id="h"><a name="a"></a>{title}</h1><p>One<br>two <span class="emph">three</span>을 <img src="x"> &amp; four.
<span class="switchinline"><span hidden class="MAC">Command</span><span hidden>Ctrl</span></span>+Enter</p>
<p>not closed<div class="relatedtopics"><p>Other page</p><div>and more</div></div><p>{text}</p></div>
<footer><p>Footer</p></footer></body></html>"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_pages(root, titles):
    """Pages of GNOME and LibreOffice by key, with a title in English and in Korean."""
    for key, given in titles.items():
        for language, title in zip(("C", "ko"), given, strict=True):
            if title is None:
                continue
            text = f"{LONG[language]} {key}"
            page = MALLARD.format(title=title, body="", text=text)
            write(root / "usr/share/help" / language / "gnome-help" / f"{key}.page", page)
            folder = root / "usr/share/libreoffice/help" / {"C": "en-US"}.get(language, language) / "text/swriter"
            write(folder / f"{key}.html", HTML.format(title=title, text=text))


def test_a_mallard_page_is_read_without_its_title_and_markup(tmp_path):
    body = (
        '<p><gui xref="#x">설정</gui>을 누르고 <em>탄력 키</em>를 켭니다.</p><comment><p>No</p></comment>'
        "<table><tr><td><p>one</p></td><td><p>two</p></td></tr></table>"
        "<p><guiseq><gui>File</gui><gui>Open</gui></guiseq></p><p><keyseq><key>Ctrl</key><key>S</key></keyseq></p>"
    )
    write(tmp_path / "x.page", MALLARD.format(title="An <app>App</app>", body=body, text="End."))
    assert read_mallard(tmp_path / "x.page") == (
        "An App",
        "설정을 누르고 탄력 키를 켭니다. one two File Open Ctrl S More End.",
    )
    write(tmp_path / "x.page", "<page>")
    with pytest.raises(DataError, match="x.page: not a help page"):
        read_mallard(tmp_path / "x.page")


def test_an_html_page_is_read_from_its_first_heading_without_other_pages_titles(tmp_path):
    write(tmp_path / "x.html", HTML.format(title="A  title", text="End."))
    assert read_html(tmp_path / "x.html") == ("A title", "One two three을 & four. Ctrl+Enter not closed End.")


def test_pages_are_aligned_translated_and_long_enough():
    text = "long enough " * 20
    english = {"a": ("A", text), "b": ("B", text), "c": ("C", text), "d": ("D", "short"), "e": ("E", text)}
    korean = {"a": ("가", text + "x"), "b": ("나", text), "d": ("라", text + "x"), "e": ("", text + "x")}
    kept = align_pages({"ko": korean, "en": english})
    assert {name: list(pages) for name, pages in kept.items()} == {"ko": ["a"], "en": ["a"]}
    with pytest.raises(DataError, match="no help page is there in all of ko, en"):
        align_pages({"ko": {}, "en": english})


def test_titles_find_pages_within_and_across_languages(tmp_path):
    write_pages(
        tmp_path, {"one": ("One", "하나"), "two": ("Two", "같음"), "three": ("Three", "같음"), "four": ("F", None)}
    )
    made = {one.name: one for one in make_collections(tmp_path, HelpSettings())}
    assert list(made) == ["gnome-help-ko", "gnome-help-en", "gnome-help-ko-en"]
    assert made["gnome-help-en"].queries == {"q-one": "One", "q-two": "Two", "q-three": "Three"}
    across = made["gnome-help-ko-en"]
    assert across.queries == {"q-one": "하나", "q-three": "같음"}  # a title of two pages is one query
    assert across.qrels == {"q-one": {"one": 1}, "q-three": {"three": 1, "two": 1}}
    assert across.corpus == made["gnome-help-en"].corpus
    assert across.corpus["one"].startswith("More It says") and "One" not in across.corpus["one"]
    with pytest.raises(DataError, match=r"--languages xx: no help pages in this language \(there are: ko\)"):
        make_collections(tmp_path, HelpSettings(["xx"]))


@pytest.mark.parametrize("languages", [[], ["en"], ["ko", "ko"]])
def test_languages_are_named_once(languages):
    with pytest.raises(DataError, match="name each language once; English is always among them"):
        HelpSettings(languages)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages of pages, and an apt-get that copies them; everything else is real."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    store, tools = tmp_path / "store", tmp_path / "tools"
    store.mkdir()
    for name in ("gnome-user-docs", "libreoffice-help-ko", "libreoffice-help-en-us"):
        tree = tmp_path / name
        write_pages(tree, {"one": ("One", "하나"), "two": ("Two", "둘")})
        control = f"Package: {name}\nVersion: 1:2.3-4\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: pages\n"
        write(tree / "DEBIAN/control", control)
        subprocess.run(["dpkg-deb", "-b", str(tree), str(store / f"{name}_2_all.deb")], check=True, capture_output=True)
    write(
        tools / "apt-get",
        f'#!/bin/sh\n[ -e "{store}/$2_2_all.deb" ] || {{ echo "W: x" >&2; echo "E: Unable to locate package $2" >&2; '
        f'exit 100; }}\ncp "{store}/$2_2_all.deb" .\n',
    )
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    return store


def call(*options):
    importlib.import_module("perspective.6_retrieval.make_help_set").main([str(one) for one in options])


def test_the_sets_are_made_once_from_packages(tmp_path, packages, capsys):
    call("--output_path", tmp_path / "sets")
    assert set(find_collection(str(tmp_path / "sets/gnome-help-ko-en")).queries.values()) == {"하나", "둘"}
    pairs = load_pairs(tmp_path / "sets/libreoffice-help-ko/train.jsonl")
    assert [(pair.query, pair.source) for pair in pairs] == [("하나", "swriter/one.html"), ("둘", "swriter/two.html")]
    facts = json.loads((tmp_path / "sets/gnome-help-ko/qrels.tsv.meta.json").read_text())["facts"]
    assert facts["packages"] == {"gnome-user-docs": "1:2.3-4"} and facts["license"] == "CC-BY-SA-3.0"
    shutil.rmtree(packages)  # a second run downloads nothing
    call("--output_path", tmp_path / "sets")
    with pytest.raises(SystemExit):
        call("--output_path", tmp_path / "sets", "--overwrite")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: gnome-user-docs: apt-get failed (Unable to locate package gnome-user-docs); check")
    assert find_collection(str(tmp_path / "sets/gnome-help-ko-en")).queries  # left as they were


def test_a_machine_without_apt_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="gnome-user-docs: needs apt-get, which this machine lacks; make the sets on"):
        unpack_packages(["gnome-user-docs"], tmp_path)
