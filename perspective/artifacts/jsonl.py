"""Files of one JSON object a line, read strictly: errors name the file and the line."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from perspective.artifacts.provenance import display_path
from perspective.artifacts.reading import parse_json
from perspective.errors import DataError

# Letters, marks and symbols that show nothing: Hangul fillers, the grapheme joiner, an empty Braille cell.
INVISIBLE = frozenset("\u034f\u115f\u1160\u3164\uffa0\u2800")
INVISIBLE_CATEGORIES = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))  # control, format, spaces and breaks


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place for messages, object) for each line that is not blank.

    Raises:
        DataError: The file is missing, not UTF-8, or a line is not a JSON object.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    shown, offset = display_path(path), 0
    with Path(path).open("rb") as file:
        # Binary: lines end at line feeds only, not inside a text that holds U+2028.
        for number, line in enumerate(file, start=1):
            place = f"{shown}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {offset + error.start})") from None
            offset += len(line)
            if not text.strip():
                continue
            record = parse_json(text, shown, number)
            if not isinstance(record, dict):
                raise DataError(f"{place}: expected an object, found {type(record).__name__}")
            yield place, record


def read_field(record: Mapping[str, Any], name: str, place: str) -> Any:  # noqa: ANN401  whatever a file holds
    """Return a required field."""
    if name not in record:
        raise DataError(f'{place}: no "{name}" field (found: {", ".join(sorted(record)) or "none"})')
    return record[name]


def read_text(record: Mapping[str, Any], name: str, place: str) -> str:
    """Return a required field that is a text and not empty."""
    return check_text(read_field(record, name, place), name, place)


def check_text(value: Any, name: str, place: str) -> str:  # noqa: ANN401  whatever a file holds
    """Return a value that is a text, not empty, and valid Unicode."""
    if not isinstance(value, str):
        raise DataError(f'{place}: "{name}" is {type(value).__name__}, not a text')
    if is_blank(value):
        raise DataError(f'{place}: "{name}" is empty; remove the line or fill it')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of an emoji, which no file and no tokenizer takes
        raise DataError(f'{place}: "{name}" holds half a character (a lone surrogate)') from None
    return value


def is_blank(text: str) -> bool:
    r"""Tell whether a text shows nothing: it has only spaces, control characters and zero-width characters.

    >>> is_blank(" \u200b\0\n"), is_blank("\u200bcaf\u00e9"), is_blank("\U0001f600")
    (True, False, False)
    """
    return all(char in INVISIBLE or unicodedata.category(char) in INVISIBLE_CATEGORIES for char in text)


def append_jsonl(log: TextIO, record: Mapping[str, Any]) -> None:
    """Append one object, in one write that is flushed at once: a killed process loses nothing that was appended."""
    log.write(json.dumps(record, ensure_ascii=False) + "\n")
    log.flush()


def drop_cut_line(path: Path) -> int:
    """Remove the last line of a log if a killed process left it incomplete; return the bytes that are left."""
    n_complete = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, n_complete)
    return n_complete


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
