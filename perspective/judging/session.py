"""A judging run that can be killed at any moment: nothing is asked twice, nothing is lost."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from perspective.artifacts import Judgment, Output, Triplet
from perspective.errors import DataError
from perspective.judging.protocol import Judge, Opinion, Question

logger = logging.getLogger(__name__)


def judge_triplets(judge: Judge, triplets: Sequence[Triplet], texts: Sequence[str], output: Output) -> list[Judgment]:
    """Ask a judge about every triplet and keep each answer the moment it comes.

    Answers are appended to `<file>.partial.jsonl`, whose first line holds what the run is made
    from; a later call with the same inputs and settings asks only what is still open.

    Args:
        judge: Whom to ask.
        triplets: The questions.
        texts: The texts that the triplets point to.
        output: The file that will hold the judgments; its fingerprint guards the partial file.

    Returns:
        One judgment a triplet, in order; those that the judge's budget did not pay for are left out.

    Raises:
        DataError: The partial file belongs to other inputs or settings.
    """
    partial = partial_path(output.path)
    opinions = _read_partial(partial, output.fingerprint)
    if opinions:
        logger.info("%d of %d judgments were made before; going on", len(opinions), len(triplets))
    questions = [question for question in _write_questions(triplets, texts) if question.row not in opinions]
    if questions:
        with _open_partial(partial, output.fingerprint) as log:
            progress = tqdm(total=len(triplets), initial=len(opinions), desc="judging", unit="triplet")
            for opinion in judge.judge(questions):
                _append(log, asdict(opinion))
                opinions[opinion.row] = opinion
                progress.update()
            progress.close()
    missing = len(triplets) - len(opinions)
    if missing and not judge.facts.get("n_not_asked"):
        raise DataError(f"{missing} of {len(triplets)} triplets have no judgment; run the same command again")
    return [_to_judgment(triplet, opinions[row]) for row, triplet in enumerate(triplets) if row in opinions]


def judge_at_once(judge: Judge, triplets: Sequence[Triplet], texts: Sequence[str]) -> list[Judgment]:
    """Ask a judge whose answers cost nothing about every triplet; nothing is kept for a later run."""
    opinions = {opinion.row: opinion for opinion in judge.judge(_write_questions(triplets, texts))}
    return [_to_judgment(triplet, opinions[row]) for row, triplet in enumerate(triplets)]


def partial_path(path: Path) -> Path:
    """Return where the judgments of an unfinished run lie."""
    return path.with_name(path.name + ".partial.jsonl")


def discard_partial(path: Path) -> None:
    """Remove the partial file once its judgments are sealed in the finished one."""
    partial_path(path).unlink(missing_ok=True)


def _write_questions(triplets: Sequence[Triplet], texts: Sequence[str]) -> list[Question]:
    return [Question(row, *(texts[index] for index in triplet.key)) for row, triplet in enumerate(triplets)]


def _to_judgment(triplet: Triplet, opinion: Opinion) -> Judgment:
    return Judgment(
        triplet, opinion.prediction, opinion.prepared, opinion.content, opinion.probability, opinion.swapped_probability
    )


def _read_partial(path: Path, fingerprint: dict[str, Any]) -> dict[int, Opinion]:
    if not path.exists():
        return {}
    # A kill can cut the last line short: what does not end with a line feed was never finished.
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    lines = whole.decode("utf-8").split("\n")[:-1]
    if not lines:
        path.unlink()
        return {}
    if json.loads(lines[0]) != fingerprint:
        if len(lines) == 1:
            path.unlink()  # begun and never answered: nothing is lost
            return {}
        raise DataError(f"{path}: an unfinished run with other inputs or settings; finish it, or remove the file")
    os.truncate(path, len(whole))
    opinions = {}
    for line in lines[1:]:
        record = json.loads(line)
        record["prediction"] = tuple(record["prediction"])
        opinions[record["row"]] = Opinion(**record)
    return opinions


def _open_partial(path: Path, fingerprint: dict[str, Any]) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    log = path.open("a", encoding="utf-8")
    if is_new:
        _append(log, fingerprint)
    return log


def _append(log: TextIO, record: dict[str, Any]) -> None:
    # One write a line, handed to the system at once: a killed process loses nothing that was paid for.
    log.write(json.dumps(record, ensure_ascii=False) + "\n")
    log.flush()
