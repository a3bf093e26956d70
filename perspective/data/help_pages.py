"""Retrieval sets from help pages in many languages: a page's title is the query, its body the document.

GNOME's pages (package gnome-user-docs, CC-BY-SA-3.0) are test collections, LibreOffice's
(libreoffice-help-*, MPL-2.0) training pairs. Translators keep the names of the files, so the pages
of two languages are aligned, and a title in one language finds the page in another.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from perspective.data.collection import Collection
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.options import option

ENGLISH = "en"
GNOME_PACKAGE = "gnome-user-docs"
MIN_CHARACTERS = 150  # of a body, in every language: shorter pages are lists of links

MALLARD = "{http://projectmallard.org/1.0/}"
# Mallard's elements inside a line; what follows them may be a Korean particle, part of the same word.
INLINE = {"app", "cmd", "code", "em", "file", "gui", "input", "key", "link", "output", "span", "sys", "var"}
SEQUENCES = {"guiseq", "keyseq"}  # of menus, of keys
LEFT_OUT = {"info", "comment"}

HTML_BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "td", "th", "div", "pre", "br", "dt", "dd"}
HTML_VOID = {"br", "img", "meta", "input", "link", "hr"}
CONTENT_ID = "DisplayArea"
SKIPPED_CLASSES = {"relatedtopics", "MAC"}  # titles of other pages; keys of another system

Pages = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class HelpSettings:
    """Languages of the help pages."""

    languages: list[str] = option(
        "languages besides English, as in /usr/share/help (ko, de, pt_BR, ...); only pages that all have are used",
        default=["ko"],
        group="input",
    )

    def __post_init__(self) -> None:
        """Check the languages.

        Raises:
            DataError: None is given, one is given twice, or English is among them.
        """
        if not self.languages or ENGLISH in self.languages or len(set(self.languages)) < len(self.languages):
            raise DataError(
                f"--languages {' '.join(self.languages)}: name each language once; English is always among them"
            )

    def made_from(self) -> dict[str, object]:
        """Return what determines the sets, for the fingerprint; the packages' versions are facts."""
        return {"languages": list(self.languages), "min_characters": MIN_CHARACTERS}

    @property
    def collections(self) -> list[tuple[str, str, str]]:
        """Name, language of the queries and language of the documents of each test collection."""
        alone = [(f"gnome-help-{name}", name, name) for name in (*self.languages, ENGLISH)]
        across = [(f"gnome-help-{name}-{ENGLISH}", name, ENGLISH) for name in self.languages]
        return [*alone, *across]

    @property
    def pair_sets(self) -> dict[str, str]:
        """Language of each set of training pairs, by its name, which is that of its package."""
        english = {f"libreoffice-help-{ENGLISH}-us": f"{ENGLISH}-US"}
        return {f"libreoffice-help-{name.lower().replace('_', '-')}": name for name in self.languages} | english


def make_collections(root: Path, settings: HelpSettings) -> list[Collection]:
    """Make the test collections from an unpacked gnome-user-docs.

    Pages of the same title share one query, for which all of them are relevant.

    Raises:
        DataError: A language has no pages, or none is in all languages.
    """
    folders = {
        name: root / "usr/share/help" / ("C" if name == ENGLISH else name) / "gnome-help"
        for name in (*settings.languages, ENGLISH)
    }
    pages = align_pages(
        {
            name: {path.stem: read_mallard(path) for path in _list_files(folder, "*.page", name)}
            for name, folder in folders.items()
        }
    )
    collections = []
    for name, query_language, document_language in settings.collections:
        by_title: dict[str, list[str]] = {}
        for key, (title, _) in pages[query_language].items():
            by_title.setdefault(title, []).append(key)
        collections.append(
            Collection(
                name=name,
                corpus={key: body for key, (_, body) in pages[document_language].items()},
                queries={f"q-{keys[0]}": title for title, keys in by_title.items()},
                qrels={f"q-{keys[0]}": dict.fromkeys(keys, 1) for keys in by_title.values()},
            )
        )
    return collections


def make_pair_sets(root: Path, settings: HelpSettings) -> dict[str, list[Pair]]:
    """Make the training pairs from unpacked libreoffice-help packages, by the names of the packages.

    Raises:
        DataError: A language has no pages, or none is in all languages.
    """
    pages: dict[str, Pages] = {}
    for name, language in settings.pair_sets.items():
        folder = root / "usr/share/libreoffice/help" / language.replace("_", "-") / "text"
        paths = _list_files(folder, "*.html", language)
        pages[name] = {path.relative_to(folder).as_posix(): read_html(path) for path in paths}
    return {
        name: [Pair(title, body, source=key) for key, (title, body) in aligned.items()]
        for name, aligned in align_pages(pages).items()
    }


def align_pages(pages: Mapping[str, Pages]) -> dict[str, Pages]:
    """Keep the pages that every language has, with a title and enough text, translated.

    Args:
        pages: Title and body of each page, by language and key; English is the last.

    Raises:
        DataError: No page is left.
    """
    *others, english = pages.values()
    kept = []
    for key, (_, original) in english.items():
        versions = [part.get(key, ("", "")) for part in pages.values()]
        is_translated = all(part[key][1] != original for part in others if key in part)
        if is_translated and all(title and len(body) >= MIN_CHARACTERS for title, body in versions):
            kept.append(key)
    if not kept:
        raise DataError(f"no help page is there in all of {', '.join(pages)}; choose other --languages")
    return {name: {key: part[key] for key in kept} for name, part in pages.items()}


def _list_files(folder: Path, pattern: str, language: str) -> list[Path]:
    paths = sorted(folder.rglob(pattern))
    if not paths:
        known = sorted(path.name for path in folder.parents[1].glob("*/") if path.name != "C")
        raise DataError(f"--languages {language}: no help pages in this language (there are: {' '.join(known)})")
    return paths


# Mallard


def read_mallard(path: Path) -> tuple[str, str]:
    """Return a page's title and its body without markup and without that title.

    Raises:
        DataError: The file is not well-formed XML.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise DataError(f"{path}: not a help page ({error})") from None
    title = root.find(f"{MALLARD}title")
    if title is None:
        return "", ""
    root.remove(title)
    return _join("".join(_read_element(title))), _join("".join(_read_element(root)))


def _read_element(element: ET.Element) -> Iterable[str]:
    yield element.text or ""
    separator = " " if _tag(element) in SEQUENCES else ""
    for child in element:
        tag = _tag(child)
        if tag not in LEFT_OUT:
            block = "" if tag in INLINE or tag in SEQUENCES else " "
            yield block
            yield from _read_element(child)
            yield block or separator
        yield child.tail or ""


def _tag(element: ET.Element) -> str:
    return str(element.tag).removeprefix(MALLARD)


# HTML


def read_html(path: Path) -> tuple[str, str]:
    """Return the first heading of a LibreOffice page and the text after it, without links to related pages."""
    parser = _PageParser()
    parser.feed(path.read_text(encoding="utf-8", errors="replace"))
    return _join("".join(parser.title)), _join("".join(parser.body))


class _PageParser(HTMLParser):
    """Collect the text of the content area.

    Attributes:
        title: Pieces of the first `h1`.
        body: Pieces of what follows it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.title: list[str] = []
        self.body: list[str] = []
        self._open: list[tuple[str, bool]] = []  # tag, and whether text in it counts
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._separate(tag)
        if tag in HTML_VOID:
            return
        counts = self._counts or given.get("id") == CONTENT_ID
        if tag in ("script", "style") or given.get("class") in SKIPPED_CLASSES:
            counts = False
        self._in_title |= tag == "h1" and counts and not self.title
        self._open.append((tag, counts))

    def handle_endtag(self, tag: str) -> None:
        self._separate(tag)
        if tag == "h1":
            self._in_title = False
        while any(name == tag for name, _ in self._open) and self._open.pop()[0] != tag:
            pass  # an element that was not closed

    def handle_data(self, data: str) -> None:
        if self._counts:
            (self.title if self._in_title else self.body).append(data)

    @property
    def _counts(self) -> bool:
        return bool(self._open) and self._open[-1][1]

    def _separate(self, tag: str) -> None:
        if tag in HTML_BLOCKS:
            self.handle_data(" ")


def _join(text: str) -> str:
    return " ".join(text.split())
