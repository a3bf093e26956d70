"""A folder or a file of documents, cut into passages that an embedder can read."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output
from perspective.artifacts.jsonl import is_blank, read_jsonl, read_text, write_jsonl
from perspective.data.corpus import read_texts
from perspective.data.pairs import Pair
from perspective.errors import DataError, require_least
from perspective.options import option

logger = logging.getLogger(__name__)

TEXT_ENDINGS = (".txt", ".md")
TABLE_ENDINGS = (".jsonl", ".csv", ".parquet")
MIN_PASSAGE_CHARS = 40  # a heading alone is no document
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_SENTENCE_END = r"(?<=[.!?])\s+|(?<=[。！？])\s*(?=\S)"  # Chinese and Japanese write no space there
_BREAKS = (r"\n\s*\n", r"\n", _SENTENCE_END, r"\s+")  # where a text is cut, best first


@dataclass(frozen=True)
class PassageSettings:
    """How documents are read and cut."""

    text_column: str = option("field or column of the text in a file of documents", default="text", group="input")
    passage_chars: int = option("documents are cut into passages of at most this length", default=600)

    def __post_init__(self) -> None:
        """Check the length."""
        require_least(self, passage_chars=100)


@dataclass(frozen=True)
class Passage:
    """A part of a document.

    Attributes:
        id: Name of the document and number of the part; the id of the row for a document that is one passage.
        text: Its text, in one line.
        title: Its heading, or the title of the document; may be empty.
    """

    id: str
    text: str
    title: str = ""


def read_passages(path: Path, settings: PassageSettings = PassageSettings()) -> list[Passage]:  # noqa: B008  frozen
    """Read documents and cut them into passages; equal passages are kept once.

    Args:
        path: A folder with .txt and .md files, also in folders of it; or a .jsonl, .csv or .parquet file with a
            document a row, such as the corpus.jsonl of a retrieval collection.
        settings: Field of the text in files of rows, and the longest passage.

    Raises:
        DataError: There is no document, or a file cannot be read.
    """
    passages: dict[str, Passage] = {}
    n_documents = n_short = 0
    for name, title, text in _read_documents(Path(path), settings.text_column):
        n_documents += 1
        parts = [part for part in split_text(text, settings.passage_chars) if len(part[1]) >= MIN_PASSAGE_CHARS]
        n_short += not parts
        for number, (heading, part) in enumerate(parts):
            key = name if len(parts) == 1 else f"{name}#{number}"
            passages.setdefault(part, Passage(key, part, heading or title))
    if not passages:
        endings = ", ".join(TEXT_ENDINGS)
        what = f"{n_documents} document(s), none of {MIN_PASSAGE_CHARS} characters or more" if n_documents else "empty"
        raise DataError(f"{path}: {what}; give a folder with {endings} files, or a file of texts")
    logger.info(
        "%s: %d documents, %d passages%s",
        *(path, n_documents, len(passages), f"; {n_short} documents are too short" if n_short else ""),
    )
    return list(passages.values())


def write_passages(output: Output, passages: Sequence[Passage]) -> None:
    """Write passages as the corpus.jsonl of a retrieval collection; stage 6 does not read their headings."""
    output.facts["n_passages"] = len(passages)
    with output.open() as temporary:
        write_jsonl(temporary, ({"_id": one.id, "text": one.text, "heading": one.title} for one in passages))


def load_passages(path: Path) -> list[Passage]:
    """Read what `write_passages` wrote."""
    return [
        Passage(read_text(record, "_id", place), read_text(record, "text", place), str(record.get("heading", "")))
        for place, record in read_jsonl(path)
    ]


def make_title_pairs(passages: Sequence[Passage]) -> list[Pair]:
    """Make training pairs without an LLM: the heading is the query, or the first sentence of a passage without one.

    The sentence is taken out of the passage; a passage of one sentence makes no pair.
    """
    pairs = []
    for passage in passages:
        query, text = passage.title, passage.text
        if not query:
            query, _, text = re.sub(_SENTENCE_END, "\n", text, count=1).partition("\n")
        if not is_blank(query) and len(text) >= MIN_PASSAGE_CHARS:
            pairs.append(Pair(query, text, source="title" if passage.title else "first sentence"))
    return pairs


def split_text(text: str, max_chars: int) -> list[tuple[str, str]]:
    r"""Cut a text at headings, paragraphs, lines, sentences or words, in this order of preference.

    Returns:
        (heading, passage) pairs; a heading holds until the next one.

    >>> split_text("# Ropes\nA knot holds.\n\nA hitch slips.\n# Sails\nReef early.", 20)
    [('Ropes', 'A knot holds.'), ('Ropes', 'A hitch slips.'), ('Sails', 'Reef early.')]
    >>> [len(part) for _, part in split_text("x" * 25, 10)]
    [10, 10, 5]
    """
    sections: list[tuple[str, list[str]]] = [("", [])]
    for line in text.splitlines():
        heading = _HEADING.match(line)
        if heading:
            sections.append((heading[1], []))
        else:
            sections[-1][1].append(line)
    return [
        (heading, " ".join(part.split()))
        for heading, lines in sections
        for part in _pack("\n".join(lines).strip(), max_chars, _BREAKS)
        if not is_blank(part)
    ]


def _pack(text: str, max_chars: int, breaks: Sequence[str]) -> Iterator[str]:
    if len(text) <= max_chars:
        yield text
        return
    if not breaks:
        yield from (text[start : start + max_chars] for start in range(0, len(text), max_chars))
        return
    packed = ""
    for part in re.split(breaks[0], text):
        if len(packed) + 1 + len(part) <= max_chars:
            packed = f"{packed}\n{part}" if packed else part
            continue
        if packed:
            yield packed
        *whole, packed = _pack(part, max_chars, breaks[1:])
        yield from whole
    if packed:
        yield packed


def _read_documents(path: Path, text_column: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, title and text of each document."""
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.suffix.lower() in TEXT_ENDINGS and file.is_file()):
            try:
                text = file.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
            yield file.relative_to(path).as_posix(), file.stem.replace("_", " ").replace("-", " "), text
    elif path.suffix.lower() == ".jsonl" and path.is_file():
        ids: set[str] = set()
        for number, (place, record) in enumerate(read_jsonl(path), start=1):
            value = record.get(text_column)
            if not isinstance(value, str):
                found = ", ".join(sorted(map(str, record))) or "none"
                raise DataError(f'{place}: no text "{text_column}" (found: {found}); name it with --text_column')
            name = str(number if record.get("_id") is None else record["_id"])
            if name in ids:
                raise DataError(f'{place}: the id "{name}" is given twice')
            ids.add(name)
            yield name, str(record.get("title") or ""), value
    elif path.suffix.lower() in TABLE_ENDINGS and path.is_file():
        yield from ((str(number), "", text) for number, text in enumerate(read_texts(path, text_column), start=1))
    else:
        raise DataError(f"{path}: no folder and no {', '.join(TABLE_ENDINGS)} file")
