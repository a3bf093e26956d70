"""Resumable judging: answers are saved one by one, and no question is asked twice."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from perspective.artifacts import Judgment, Output, Triplet, judgment_record, read_judgment
from perspective.artifacts.jsonl import append_jsonl, drop_cut_line, read_jsonl
from perspective.artifacts.sidecar import Fingerprint, read_sidecar, validate_record
from perspective.errors import DataError
from perspective.judging.protocol import Judge, Question, is_unanswered
from perspective.llm.server.budget import read_counts, take_counts

logger = logging.getLogger(__name__)


def judge_triplets(
    judge: Judge,
    triplets: Sequence[Triplet],
    texts: Sequence[str],
    output: Output,
    earlier: Sequence[Judgment] = (),
    restart: bool = False,
) -> list[Judgment]:
    """Judge all triplets and save each answer immediately.

    Answers are appended to `<file>.partial.jsonl`. Its first line is the fingerprint of the run; a
    later call with the same inputs and settings asks only the open questions and continues the counts
    of tokens and cost. Questions that failed are open. Call it within `lock_judgments`.

    Args:
        judge: The judge.
        triplets: The triplets to judge.
        texts: The texts that the triplets index.
        output: The output file; its fingerprint must match that of the partial file.
        earlier: Judgments of a finished file with open questions, or of earlier triplets; its answers are not asked
            again.
        restart: Whether an unfinished run of other inputs or settings is begun again.

    Returns:
        One judgment per triplet, in order, without those beyond the judge's budget.

    Raises:
        DataError: The partial file has other inputs or settings.
    """
    partial = partial_path(output.path)
    if earlier and output.record.judge:
        judge.facts |= take_counts(output.record.judge.figures)
    if earlier and (replaced := read_sidecar(output.path)):
        output.replace(replaced)
    known = {judgment.triplet.key: judgment for judgment in earlier if not is_unanswered(judgment)}
    known |= _read_partial(partial, output, judge.facts, restart)
    asked = {triplet.key for triplet in triplets}
    known = {key: judgment for key, judgment in known.items() if key in asked}
    if known:
        logger.info("%d of %d judgments exist already; resuming", len(known), len(triplets))
    if "n_answered" in judge.facts:
        judge.facts["n_answered"] = len(known)
    questions = [question for question in _write_questions(triplets, texts) if question.triplet.key not in known]
    if questions:
        progress = tqdm(total=len(known) + len(questions), initial=len(known), desc="judging", unit="triplet")
        with (
            progress,
            _open_partial(partial, output.fingerprint) as log,
            contextlib.closing(_record_answers(judge, questions, log)) as judgments,
        ):
            for judgment in judgments:
                known[judgment.triplet.key] = judgment
                progress.update()
    missing = sum(triplet.key not in known for triplet in triplets)
    if missing and not judge.facts.get("n_not_asked"):
        raise DataError(f"{missing} of {len(triplets)} triplets have no judgment; run the same command again")
    # Use the file's triplets, which may have gold answers for analysis.
    return [replace(known[triplet.key], triplet=triplet) for triplet in triplets if triplet.key in known]


def _record_answers(judge: Judge, questions: Sequence[Question], log: TextIO) -> Generator[Judgment, None, None]:
    """Yield judgments, after writing the answers and what they cost."""
    written: dict[str, Any] = {}
    answers = judge.judge(questions)
    try:
        for judgment in answers:
            if not is_unanswered(judgment):
                written = take_counts(judge.facts)
                append_jsonl(log, {**judgment_record(judgment), "counted": written})
            yield judgment
    finally:
        if isinstance(answers, Generator):
            answers.close()  # counts the requests that are cancelled
        if take_counts(judge.facts) != written:
            append_jsonl(log, {"counted": take_counts(judge.facts)})


def is_complete(output: Output, limits: Sequence[float | None], overwrite: bool = False) -> bool:
    """Tell whether the output file exists and has no open questions.

    Questions that failed are open. Those beyond the budget are open if the budget or a price is
    another than in the run that wrote the file.

    Args:
        output: The output file.
        limits: `ServerSettings.limits` of this run.
        overwrite: Whether an existing file is replaced in any case.
    """
    if not output.is_finished(overwrite, quiet=True):
        return False
    figures = output.record.judge.figures if output.record.judge else {}
    n_failed, n_not_asked = figures.get("n_unanswered", 0), figures.get("n_not_asked", 0)
    if n_failed or (n_not_asked and figures.get("limits") != list(limits)):
        logger.info("%s: %d questions are open, asking them", output.path.name, n_failed + n_not_asked)
        return False
    if n_not_asked:
        logger.info("%d questions are beyond the budget; a higher --budget asks only these", n_not_asked)
    return True


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
def lock_judgments(path: Path) -> Iterator[None]:
    """Keep other processes off a file of judgments, so that no question is asked and paid twice.

    The lock ends with the process, however that ends.

    Args:
        path: The output file.

    Raises:
        DataError: Another process holds the lock; the message names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock")
    file = _open_locked(lock, path)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


def _open_locked(lock: Path, path: Path) -> TextIO:
    while True:
        file = lock.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise DataError(f"{path}: {holder} is working on this file; wait for it, or stop it") from None
        except OSError as error:
            logger.warning("%s: this file system has no locks (%s); start no second process", lock, error.strerror)
        # The previous holder may have removed the file in the meantime, which leaves a lock on nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()


def _read_partial(
    path: Path, output: Output, facts: dict[str, Any], restart: bool
) -> dict[tuple[int, int, int], Judgment]:
    if not path.exists():
        return {}
    if not drop_cut_line(path):
        path.unlink()
        return {}
    try:
        (_, header), *records = read_jsonl(path)
    except ValueError:
        raise DataError(f"{path}: has no first line that says what it was made from; remove it") from None
    # A line with counts only is what a run spent after its last answer.
    answers = [(place, record) for place, record in records if record.keys() != {"counted"}]
    made_from = validate_record(Fingerprint, header, path)
    if made_from != output.fingerprint and not output.is_of_earlier_inputs(made_from):
        if restart or not answers:
            path.unlink()
            return {}
        raise DataError(f"{path}: an unfinished run with other inputs or settings; finish it, or remove the file")
    if records:
        facts |= read_counts(records[-1][1].get("counted"))
    judgments = (read_judgment(record, place) for place, record in answers)
    return {judgment.triplet.key: judgment for judgment in judgments if not is_unanswered(judgment)}


def _open_partial(path: Path, fingerprint: Fingerprint) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    log = path.open("a", encoding="utf-8")
    if is_new:
        append_jsonl(log, fingerprint.model_dump())
    return log
