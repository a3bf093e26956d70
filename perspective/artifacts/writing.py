"""Files written whole or not at all: to a temporary name in their own folder, then renamed."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts.reading import read_vectors


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to `path` when the block ends well.

    Works for files and folders. A block that fails leaves neither file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what a killed process left of this file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not _is_running(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:  # another user's process may not be signalled, but runs
        return not isinstance(error, ProcessLookupError)
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def dump_json(value: Any) -> str:  # noqa: ANN401
    """Return JSON as the project writes it: indented, with a line feed at the end, valid UTF-8.

    A lone surrogate, which a server's reply may hold, becomes "?": what was paid for is written.
    """
    return replace_surrogates(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)) + "\n"


def replace_surrogates(text: str) -> str:
    r"""Return a text that UTF-8 can hold.

    >>> replace_surrogates("a\ud83d \U0001f600")
    'a? 😀'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def keep_block(path: Path, n_texts: int, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return a block of vectors of an unfinished run: read where it was written, else made and written.

    Args:
        path: A `.npy` file in the run's `.partial` folder.
        n_texts: The number of its rows.
        make: Computes the float array `(n_texts, dim)`.

    Raises:
        DataError: What was written is not that array.
    """
    if not path.exists():
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.asarray(make(), dtype=np.float32), allow_pickle=False)
    return read_vectors(path, n_texts)
