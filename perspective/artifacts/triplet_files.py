"""Triplets, judgments and training triplets as JSON, in the published layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as shorten  # of whatever a file holds, however long or deep
from typing import Any

from perspective.artifacts.provenance import Output
from perspective.artifacts.reading import read_json
from perspective.artifacts.records import LABELS, Judgment, TrainingTriplet, Triplet, parse_prediction
from perspective.artifacts.sidecar import JudgeRecord, read_record
from perspective.artifacts.writing import replace_surrogates
from perspective.errors import DataError

OPTIONS = (" 1", " 2")  # the published spelling, with its leading space
ROW_FIELDS = ("query_idx", "choice1_idx", "choice2_idx")


def save_triplets(output: Output, triplets: Sequence[Triplet], texts: Sequence[str], task: str) -> None:
    """Write sampled triplets in the published layout."""
    output.write_json([_triplet_record(triplet, texts, task) for triplet in triplets])


def load_triplets(path: Path, texts: Sequence[str], task: str | None = None) -> list[Triplet]:
    """Read sampled triplets, ours or published.

    Raises:
        DataError: The file is not a list of triplets, an index is out of range, or the triplets
            belong to other texts, or to another data set than `task`.
    """
    return [_read_triplet(record, f"{path}: record {i}", texts, task) for i, record in enumerate(_read_records(path))]


def save_judgments(output: Output, judgments: Sequence[Judgment], texts: Sequence[str], task: str) -> None:
    """Write judgments in the published layout, with our probabilities.

    Answers that come from labels are marked in every record: a file can lose its sidecar.
    """
    judge = output.record.judge
    mark = {"uses_labels": True} if judge and judge.uses_labels else {}
    output.write_json(
        [
            {**_triplet_record(judgment.triplet, texts, task), **judgment_record(judgment), **mark}
            for judgment in judgments
        ]
    )


def read_judge(path: Path) -> JudgeRecord | None:
    """Return the judge of a file of judgments; None for a file without a sidecar and without marks.

    A judge is marked by `uses_labels` if its sidecar or any record says so.
    """
    judge = read_record(path).judge
    if any(isinstance(record, dict) and record.get("uses_labels") is True for record in _read_records(path)):
        judge = judge or JudgeRecord(name="recorded")
        return judge.model_copy(update={"uses_labels": True})
    return judge


def load_judgments(path: Path, texts: Sequence[str], task: str | None = None) -> list[Judgment]:
    """Read judgments, ours or published.

    Raises:
        DataError: As in `load_triplets`, or a record has no `prediction`.
    """
    judgments = []
    for i, record in enumerate(_read_records(path)):
        place = f"{path}: record {i}"
        if isinstance(record, dict) and "prediction" not in record:
            raise DataError(f'{place} has no "prediction"; it has not been judged')
        triplet = _read_triplet(record, place, texts, task)
        judgments.append(_judgment_of(triplet, record, place))
    return judgments


def judgment_record(judgment: Judgment) -> dict[str, Any]:
    """Return a judgment as the files hold it, ready for JSON: the triplet's rows and the judge's answer."""
    return {
        **dict(zip(ROW_FIELDS, judgment.triplet.key, strict=True)),
        "prepared": replace_surrogates(judgment.prepared),
        "content": replace_surrogates(judgment.content),
        "prediction": list(judgment.prediction),
        "probability": judgment.probability,
        "confidence": judgment.confidence,
        "swapped_probability": judgment.swapped_probability,
    }


def read_judgment(record: Mapping[str, Any], place: str) -> Judgment:
    """Read what `judgment_record` wrote, strictly.

    Raises:
        DataError: A field does not fit; the message begins with `place`.
    """
    try:
        if record.get("prediction") not in ([], *([label] for label in LABELS)):
            raise DataError(f'{place}: "prediction" is {shorten(record.get("prediction"))}')
        return _judgment_of(_read_triplet(record, place), record, place)
    except DataError as error:
        raise DataError(f"{error}; remove the line, and the question is asked again") from None


def save_training_triplets(output: Output, triplets: Sequence[TrainingTriplet], task: str) -> None:
    """Write training triplets in the published layout, with our weight."""
    output.write_json(
        [
            {
                "query": [triplet.instruction, triplet.anchor],
                "pos": [triplet.instruction, triplet.positive],
                "neg": [triplet.instruction, triplet.negative],
                "task_name": task,
                "query_idx": triplet.triplet.query_idx,
                "choice1_idx": triplet.triplet.choice1_idx,
                "choice2_idx": triplet.triplet.choice2_idx,
                "weight": triplet.weight,
            }
            for triplet in triplets
        ]
    )


def load_training_triplets(path: Path) -> list[TrainingTriplet]:
    """Read training triplets, ours or published (without a weight: 1).

    Raises:
        DataError: A record lacks a field, or a field does not fit.
    """
    triplets = []
    for i, record in enumerate(_read_records(path)):
        try:
            (instruction, anchor), (_, positive), (_, negative) = (record[key] for key in ("query", "pos", "neg"))
            query_idx, choice1_idx, choice2_idx = (int(record[key]) for key in ROW_FIELDS)
            weight = float(record.get("weight", 1.0))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DataError(f"{path}: record {i} is not a training triplet (query, pos, neg, indices)") from None
        if not all(isinstance(text, str) for text in (instruction, anchor, positive, negative)):
            raise DataError(f"{path}: record {i} holds a text that is not a string")
        if not 0 <= weight < float("inf"):
            raise DataError(f"{path}: record {i} has weight {weight}; it must be finite and not negative")
        triplet = Triplet(query_idx, choice1_idx, choice2_idx)
        triplets.append(TrainingTriplet(instruction, anchor, positive, negative, triplet, weight))
    return triplets


def _triplet_record(triplet: Triplet, texts: Sequence[str], task: str) -> dict[str, Any]:
    return {
        "input": _write_input(triplet.key, texts),
        "output": triplet.gold,
        "options": list(OPTIONS),
        "task": task,
        "query_idx": triplet.query_idx,
        "choice1_idx": triplet.choice1_idx,
        "choice2_idx": triplet.choice2_idx,
    }


def _write_input(rows: Sequence[int], texts: Sequence[str]) -> str:
    query, choice1, choice2 = (texts[row] for row in rows)
    return f"Query: {query}\nChoice 1: {choice1}\nChoice 2: {choice2}\nChoice"


def _require_same_texts(found: str, wanted: str, place: str) -> None:
    if found.split() != wanted.split():
        raise DataError(f"{place} was made of other texts: {shorten(found)}, now {shorten(wanted)}")


def _judgment_of(triplet: Triplet, record: Mapping[str, Any], place: str) -> Judgment:
    """Read the judge's fields of a record; published records have no probabilities."""
    return Judgment(
        triplet=triplet,
        prediction=parse_prediction(record.get("prediction")),
        prepared=str(record.get("prepared") or ""),
        content=str(record.get("content") or ""),
        probability=_read_probability(record, "probability", place),
        swapped_probability=_read_probability(record, "swapped_probability", place),
    )


def _read_records(path: Path) -> list[Any]:
    records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of records, found {type(records).__name__}")
    return records


def _read_triplet(
    record: Any,  # noqa: ANN401  whatever the file holds
    place: str,
    texts: Sequence[str] | None = None,
    task: str | None = None,
) -> Triplet:
    if not isinstance(record, dict):
        raise DataError(f"{place} is {type(record).__name__}, not an object")
    rows = []
    for name in ROW_FIELDS:
        row = record.get(name)
        if not isinstance(row, int) or isinstance(row, bool) or row < 0:
            raise DataError(f'{place} has no row number in "{name}" (found {shorten(row)})')
        if texts is not None and row >= len(texts):
            raise DataError(f"{place} has {name} {row}, but there are {len(texts)} texts; another data set?")
        rows.append(row)
    found = record.get("task")
    if task is not None and found is not None and found != task:
        raise DataError(f"{place} was made for data set {shorten(found)}, not {task!r}")
    asked = record.get("input")
    if texts is not None and isinstance(asked, str) and asked.startswith("Query: "):
        _require_same_texts(asked, _write_input(rows, texts), place)
    gold = record.get("output")
    query_idx, choice1_idx, choice2_idx = rows
    return Triplet(query_idx, choice1_idx, choice2_idx, gold if isinstance(gold, str) else None)


def _read_probability(record: Mapping[str, Any], name: str, place: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise DataError(f'{place}: "{name}" is {shorten(value)}; must be between 0 and 1')
    return float(value)
