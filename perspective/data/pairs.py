"""Training pairs: a query, a document that answers it and optional hard negatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perspective.artifacts import Output
from perspective.artifacts.jsonl import check_text, read_jsonl, read_text, write_jsonl
from perspective.errors import DataError


@dataclass(frozen=True)
class Pair:
    """A query and its document.

    Attributes:
        query: The query.
        document: A text that answers it.
        hard_negatives: Texts similar to the query that do not answer it; may be empty.
        weight: A judge's confidence in the pair, 0 to 1.
        source: Origin of the pair, for analysis.
        scores: A teacher's scores of the document and each hard negative, in this order; empty without a teacher.
    """

    query: str
    document: str
    hard_negatives: tuple[str, ...] = ()
    weight: float = 1.0
    source: str | None = None
    scores: tuple[float, ...] = ()


def load_pairs(path: Path) -> list[Pair]:
    """Read pairs from jsonl: `query`, `document`, and `hard_negative` (a text, a list, or absent).

    Raises:
        DataError: With file, line and cause: invalid JSON, a field that is missing, empty or not a
            text, a weight outside 0 to 1, scores that are not one number a text, or an empty file.
    """
    pairs = [_read_pair(record, place) for place, record in read_jsonl(path)]
    if not pairs:
        raise DataError(f"{path}: the file is empty")
    return pairs


def save_pairs(output: Output, pairs: Sequence[Pair]) -> None:
    """Write pairs as jsonl in the format of `load_pairs`."""
    output.facts["n_pairs"] = len(pairs)
    with output.open() as temporary:
        write_jsonl(temporary, map(_pair_record, pairs))


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
        scores=_read_scores(record.get("scores") or (), 1 + len(negatives), place),
    )


def _read_scores(scores: Any, n_texts: int, place: str) -> tuple[float, ...]:  # noqa: ANN401  whatever a file holds
    if not isinstance(scores, list | tuple) or len(scores) not in (0, n_texts):
        found = len(scores) if isinstance(scores, list | tuple) else repr(scores)[:40]
        raise DataError(
            f'{place}: "scores" must be {n_texts} numbers, of the document and its hard negatives (found: {found}); '
            "they belong to other pairs: run score_pairs again"
        )
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in scores):
        raise DataError(f'{place}: "scores" holds something else than finite numbers')
    return tuple(map(float, scores))


def _pair_record(pair: Pair) -> dict[str, Any]:
    record: dict[str, Any] = {"query": pair.query, "document": pair.document}
    if pair.hard_negatives:
        several = len(pair.hard_negatives) > 1
        record["hard_negative"] = list(pair.hard_negatives) if several else pair.hard_negatives[0]
    if pair.weight != 1:
        record["weight"] = pair.weight
    if pair.source is not None:
        record["source"] = pair.source
    if pair.scores:
        record["scores"] = list(pair.scores)
    return record
