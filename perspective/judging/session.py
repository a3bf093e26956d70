"""Resumable judging: answers are saved one by one, and no question is asked twice."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from perspective.artifacts import Judgment, Output, Triplet, judgment_record, read_judgment
from perspective.artifacts.jsonl import read_jsonl
from perspective.artifacts.sidecar import Fingerprint, validate_record
from perspective.errors import DataError
from perspective.judging.protocol import Judge, Question

logger = logging.getLogger(__name__)


COUNTED = ("n_requests", "n_retries", "prompt_tokens", "completion_tokens", "cost")  # summed over resumed runs


def judge_triplets(
    judge: Judge, triplets: Sequence[Triplet], texts: Sequence[str], output: Output, earlier: Sequence[Judgment] = ()
) -> list[Judgment]:
    """Judge all triplets and save each answer immediately.

    Answers are appended to `<file>.partial.jsonl`. Its first line is the fingerprint of the run; a
    later call with the same inputs and settings asks only the open questions and continues the counts
    of tokens and cost. The file is locked, so that two processes do not ask the same questions.

    Args:
        judge: The judge.
        triplets: The triplets to judge.
        texts: The texts that the triplets index.
        output: The output file; its fingerprint must match that of the partial file.
        earlier: Judgments of a finished file that the budget cut short; not asked again.

    Returns:
        One judgment per triplet, in order, without those beyond the judge's budget.

    Raises:
        DataError: The partial file has other inputs or settings, or another process uses it.
    """
    partial = partial_path(output.path)
    with _lock(partial):
        known = {judgment.triplet.key: judgment for judgment in earlier}
        known |= _read_partial(partial, output.fingerprint, judge.facts)
        if known:
            logger.info("%d of %d judgments exist already; resuming", len(known), len(triplets))
        questions = [question for question in _write_questions(triplets, texts) if question.triplet.key not in known]
        if questions:
            with _open_partial(partial, output.fingerprint) as log:
                progress = tqdm(total=len(known) + len(questions), initial=len(known), desc="judging", unit="triplet")
                for judgment in judge.judge(questions):
                    counted = {name: judge.facts[name] for name in COUNTED if name in judge.facts}
                    _append(log, {**judgment_record(judgment), "counted": counted})
                    known[judgment.triplet.key] = judgment
                    progress.update()
                progress.close()
    missing = sum(triplet.key not in known for triplet in triplets)
    if missing and not judge.facts.get("n_not_asked"):
        raise DataError(f"{missing} of {len(triplets)} triplets have no judgment; run the same command again")
    # Use the file's triplets, which may have gold answers for analysis.
    return [replace(known[triplet.key], triplet=triplet) for triplet in triplets if triplet.key in known]


def partial_path(path: Path) -> Path:
    """Return the path of an unfinished run's judgments."""
    return path.with_name(path.name + ".partial.jsonl")


def discard_partial(path: Path) -> None:
    """Remove the partial file after the finished one is written."""
    partial_path(path).unlink(missing_ok=True)


def _write_questions(triplets: Sequence[Triplet], texts: Sequence[str]) -> list[Question]:
    """Return one question per distinct triplet, so that duplicates are asked once."""
    distinct = {triplet.key: triplet for triplet in triplets}
    return [Question(triplet, *(texts[index] for index in key)) for key, triplet in distinct.items()]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other processes off an unfinished run while the block runs; the lock ends with the process.

    Raises:
        DataError: Another process holds it; names the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = path.with_name(path.name + ".lock")
    while True:
        file = held.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            who = file.read().strip() or "another process"
            file.close()
            raise DataError(f"{path}: {who} is judging these triplets; wait for it, or stop it") from None
        # Who held it before may have removed the file in the meantime: then the lock is on nothing.
        if held.exists() and os.path.samestat(os.fstat(file.fileno()), held.stat()):
            break
        file.close()
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
    finally:
        held.unlink(missing_ok=True)
        file.close()


def _read_partial(path: Path, fingerprint: Fingerprint, facts: dict[str, Any]) -> dict[tuple[int, int, int], Judgment]:
    if not path.exists():
        return {}
    # A killed run can leave an incomplete last line, which has no line feed.
    n_complete = path.read_bytes().rfind(b"\n") + 1
    if not n_complete:
        path.unlink()
        return {}
    os.truncate(path, n_complete)
    try:
        (_, header), *records = read_jsonl(path)
    except ValueError:
        raise DataError(f"{path}: has no first line that says what it was made from; remove it") from None
    if validate_record(Fingerprint, header, path) != fingerprint:
        if not records:
            path.unlink()  # no answers yet: nothing is lost
            return {}
        raise DataError(f"{path}: an unfinished run with other inputs or settings; finish it, or remove the file")
    counted = records[-1][1].get("counted", {}) if records else {}
    facts |= {name: value for name, value in counted.items() if name in COUNTED and isinstance(value, int | float)}
    judgments = (read_judgment(record, place) for place, record in records)
    return {judgment.triplet.key: judgment for judgment in judgments}


def _open_partial(path: Path, fingerprint: Fingerprint) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    log = path.open("a", encoding="utf-8")
    if is_new:
        _append(log, fingerprint.model_dump())
    return log


def _append(log: TextIO, record: dict[str, Any]) -> None:
    # One write per line, flushed at once, so that a killed process loses no paid answers.
    log.write(json.dumps(record, ensure_ascii=False) + "\n")
    log.flush()
