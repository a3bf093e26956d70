"""Tasks: one sentence each, asked for by type, pooled and without duplicates; a person may edit the list."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from perspective.artifacts import Output, display_path, hash_file, read_sidecar
from perspective.artifacts.jsonl import is_blank
from perspective.data.likeness import find_similar, keep_distinct
from perspective.errors import DataError, suggest_name
from perspective.synthesis.forms import BRAINSTORMED, TypeName, normalize_text
from perspective.synthesis.recipe import load_yaml

logger = logging.getLogger(__name__)

WORDS = (4, 40)  # of a sentence
SAME_TASK = 0.85  # cosine of binary vectors of words
_LINE = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(.*\S)\s*$")


def read_tasks(reply: str, is_whole: bool = True) -> tuple[list[str], int]:
    r"""Return the tasks of a reply, and the number of lines that are none.

    Args:
        reply: A task a line, each after a dash or a number.
        is_whole: Whether the reply ended by itself; otherwise its last line may be cut off.

    >>> read_tasks("- Given a symptom, find its cause.\n2. Given a city, find its river.\nHere you are!")
    (['Given a symptom, find its cause.', 'Given a city, find its river.'], 1)
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    found = [_LINE.match(line) for line in (lines if is_whole else lines[:-1])]
    tasks = [match[1] for match in found if match and WORDS[0] <= len(match[1].split()) <= WORDS[1]]
    return tasks, len(lines) - len(tasks)


def pool_tasks(replies: Iterable[tuple[TypeName, str]], known: Mapping[TypeName, Sequence[str]]) -> dict[str, Any]:
    """Join the tasks of all replies, those that are known first, without exact and near duplicates.

    Returns:
        Tasks by type under "tasks", and counts under "facts".
    """
    pool: dict[TypeName, list[str]] = {kind: list(tasks) for kind, tasks in known.items()}
    n_other_lines = n_found = 0
    for kind, reply in replies:
        tasks, n_other = read_tasks(reply, is_whole=reply.rstrip().endswith((".", "!", "?")))
        pool[kind] += tasks
        n_found += len(tasks)
        n_other_lines += n_other
    kept = {}
    for kind, tasks in pool.items():
        words = [normalize_text(task) for task in tasks]
        near = find_similar(words, words, 1, SAME_TASK)
        kept[kind] = [task for task, is_kept in zip(tasks, keep_distinct(near), strict=True) if is_kept]
    n_new = sum(map(len, kept.values())) - sum(map(len, known.values()))
    return {"tasks": kept, "facts": {"n_tasks": n_found, "n_new": n_new, "n_other_lines": n_other_lines}}


def save_tasks(output: Output, tasks: Mapping[str, Sequence[str]]) -> None:
    """Write the list of tasks."""
    with output.open() as temporary:
        text = yaml.safe_dump(dict(tasks), allow_unicode=True, sort_keys=False, width=1000)
        temporary.write_text(f"# Tasks by type. Edit, remove and add lines as you like.\n{text}", encoding="utf-8")


def is_edited(path: Path) -> bool:
    """Tell whether a person wrote or changed the list of tasks."""
    if not path.exists():
        return False
    found = read_sidecar(path)
    return found is None or found.sha256 != hash_file(path)


def load_tasks(path: Path) -> dict[str, list[str]]:
    """Read the list of tasks, which a person may have edited.

    Raises:
        DataError: It is not a list of sentences for each type.
    """
    found = load_yaml(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected types with their tasks, found {type(found).__name__}")
    for kind, tasks in found.items():
        if kind not in BRAINSTORMED:
            raise DataError(f'{path}: type "{kind}": {suggest_name(str(kind), BRAINSTORMED)}')
        if not isinstance(tasks, list):
            raise DataError(f'{path}: "{kind}" must be a list of sentences, found {type(tasks).__name__}')
        for number, task in enumerate(tasks, start=1):
            if not isinstance(task, str) or is_blank(task):
                hint = "; put a sentence with a colon in quotes" if isinstance(task, dict) else ""
                raise DataError(f'{path}: task {number} of "{kind}" is no sentence ({task!r:.40}){hint}')
    distinct = {kind: list(dict.fromkeys(tasks)) for kind, tasks in found.items()}
    n_twice = sum(map(len, found.values())) - sum(map(len, distinct.values()))
    if n_twice:
        logger.info("%s: %d tasks are there twice and count once", display_path(path), n_twice)
    return distinct
