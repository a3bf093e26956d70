"""Training pairs: a query, a document that answers it and, where known, documents that do not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perspective.artifacts import Output, display_path
from perspective.errors import DataError


@dataclass(frozen=True)
class Pair:
    """A query and its document.

    Attributes:
        query: What is asked.
        document: A text that answers it.
        hard_negatives: Texts near the query that do not answer it; may be none.
        weight: How sure a judge is of the pair, 0 to 1.
        source: Where the pair comes from; for analysis.
    """

    query: str
    document: str
    hard_negatives: tuple[str, ...] = ()
    weight: float = 1.0
    source: str | None = None


def load_pairs(path: Path) -> list[Pair]:
    """Read pairs from jsonl: `query`, `document`, and `hard_negative` (a text, a list, or absent).

    Raises:
        DataError: Names file, line and fault: bad JSON, a field that is missing, empty or not a
            text, a weight outside 0 to 1, no pair at all.
    """
    pairs = [_read_pair(record, place) for place, record in read_jsonl(path)]
    if not pairs:
        raise DataError(f"{path}: the file is empty")
    return pairs


def save_pairs(output: Output, pairs: Sequence[Pair]) -> None:
    """Write pairs as jsonl, as `load_pairs` reads them."""
    output.facts["n_pairs"] = len(pairs)
    with output.open() as temporary:
        write_jsonl(temporary, map(_pair_record, pairs))


def write_jsonl(path: Path, records: Iterator[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give (place for messages, object) for each line that is not blank.

    Raises:
        DataError: The file is missing, not UTF-8, or a line is not a JSON object.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    with Path(path).open("rb") as file:
        # Binary: lines end at line feeds only, not inside a text that holds U+2028.
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{display_path(path)}:{number}"
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{place}: not UTF-8 text ({error.reason})") from None
            except json.JSONDecodeError as error:
                raise DataError(f"{place}: bad JSON ({error.msg})") from None
            if not isinstance(record, dict):
                raise DataError(f"{place}: expected an object, found {type(record).__name__}")
            yield place, record


def read_text(record: Mapping[str, Any], name: str, place: str) -> str:
    """Return a field that must be a text and not empty."""
    if name not in record:
        raise DataError(f'{place}: no "{name}" field (found: {", ".join(sorted(map(str, record))) or "none"})')
    return check_text(record[name], name, place)


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


def _read_pair(record: Mapping[str, Any], place: str) -> Pair:
    negatives = record.get("hard_negative") or ()
    if isinstance(negatives, str):
        negatives = (negatives,)
    if not isinstance(negatives, list | tuple):
        raise DataError(f'{place}: "hard_negative" is {type(negatives).__name__}, not a text or a list of texts')
    weight = record.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise DataError(f'{place}: "weight" is {weight!r:.40}; it must lie between 0 and 1')
    source = record.get("source")
    return Pair(
        query=read_text(record, "query", place),
        document=read_text(record, "document", place),
        hard_negatives=tuple(check_text(text, "hard_negative", place) for text in negatives),
        weight=float(weight),
        source=source if isinstance(source, str) else None,
    )


def _pair_record(pair: Pair) -> dict[str, Any]:
    record: dict[str, Any] = {"query": pair.query, "document": pair.document}
    if pair.hard_negatives:
        several = len(pair.hard_negatives) > 1
        record["hard_negative"] = list(pair.hard_negatives) if several else pair.hard_negatives[0]
    if pair.weight != 1:
        record["weight"] = pair.weight
    if pair.source is not None:
        record["source"] = pair.source
    return record
