"""Texts in files of one JSON object a line, read strictly: a fault is named with its file and line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from perspective.artifacts.provenance import display_path
from perspective.errors import DataError


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give (place for messages, object) for each line that is not blank.

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
            try:
                record = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: bad JSON ({error.msg})") from None
            if not isinstance(record, dict):
                raise DataError(f"{place}: expected an object, found {type(record).__name__}")
            yield place, record


def read_field(record: Mapping[str, Any], name: str, place: str) -> Any:  # noqa: ANN401  whatever a file holds
    """Return a field that must be there."""
    if name not in record:
        raise DataError(f'{place}: no "{name}" field (found: {", ".join(sorted(record)) or "none"})')
    return record[name]


def read_text(record: Mapping[str, Any], name: str, place: str) -> str:
    """Return a field that must be a text and not empty."""
    return check_text(read_field(record, name, place), name, place)


def check_text(value: Any, name: str, place: str) -> str:  # noqa: ANN401  whatever a file holds
    """Return a value that must be a text and not empty."""
    if not isinstance(value, str):
        raise DataError(f'{place}: "{name}" is {type(value).__name__}, not a text')
    if not value.strip():
        raise DataError(f'{place}: "{name}" is empty; remove the line or fill it')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell half of an emoji, which no file and no tokenizer takes
        raise DataError(f'{place}: "{name}" holds half a character (a lone surrogate)') from None
    return value


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
