"""Write files whole or not at all: to a temporary name in the same folder, then rename."""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts.reading import read_vectors
from perspective.errors import DataError, PerspectiveError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What numpy ("46080 requested and 992 written"), safetensors and torch say in place of an error number.
FULL_DISK_WORDS = re.compile(
    r"requested and \d+ written|No space left|File too large|quota exceeded|inline_container\.cc|iostream error"
)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block ends without an error.

    Works for files and folders. When the block fails, the temporary file is removed and `path` stays
    as it was.

    Raises:
        DataError: The disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    finish_replacing(path)
    for abandoned in _find_abandoned(path, "tmp"):
        _remove(abandoned)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with explain_full_disk(path):
            yield temporary
            if temporary.is_dir():
                _replace_folder(temporary, path)
                return
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        _remove(temporary)


def finish_replacing(path: Path) -> None:
    """Finish what a process was killed in: a folder's old version was moved aside, the new one is not in place.

    The new version is whole by then, and takes its place; without it the old one comes back.
    """
    for old in _find_abandoned(path, "old"):
        new = old.with_suffix(".tmp")
        if not path.exists():
            (new if new.exists() else old).rename(path)
        _remove(old)


def _replace_folder(new: Path, path: Path) -> None:
    """Put a folder in the place of another; both are whole at every moment, see `finish_replacing`."""
    if not path.exists():
        new.rename(path)
        return
    old = new.with_suffix(".old")
    path.rename(old)
    new.rename(path)
    _remove(old)


def _find_abandoned(path: Path, kind: str) -> list[Path]:
    """Return what killed processes left beside a file: "tmp" or "old"."""
    left = path.parent.glob(f".{glob.escape(path.name)}.*.{kind}")
    pids = ((part, part.name.split(".")[-2]) for part in left)
    return [part for part, pid in pids if pid.isdigit() and not _is_another_process(int(pid))]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn the many errors of a full disk into one that names the file.

    Raises:
        DataError: A library could not write `path`, because the disk is full or a quota is reached.
    """
    try:
        yield
    except PerspectiveError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) not in FULL_DISK and not FULL_DISK_WORDS.search(str(error)):
            raise
        free = shutil.disk_usage(path.parent).free / 1e6
        raise DataError(
            f"{path}: cannot be written, the disk is full or a quota is reached ({str(error):.160}; {free:.0f} MB "
            "free); free some space and run the same command again"
        ) from None


def _is_another_process(pid: int) -> bool:
    if pid == os.getpid():  # containers give the same ids again
        return False
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
    """Return a block of vectors of an unfinished run: read it if it was written before, else compute and write it.

    Args:
        path: A `.npy` file in the run's `.partial` folder.
        n_texts: The number of its rows.
        make: Computes the float array `(n_texts, dim)`.

    Raises:
        DataError: The file is not that array.
    """
    if not path.exists():
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.asarray(make(), dtype=np.float32), allow_pickle=False)
    return read_vectors(path, n_texts)
