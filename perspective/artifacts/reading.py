"""Read JSON and vectors; errors name the fault. Hashes of files and folders."""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from perspective.errors import DataError

MAPPED_BYTES = 2**30
ROWS_AT_A_TIME = 2**16  # checked; bounds memory beyond the vectors
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # a half of a pair, as JSON spells it


def read_json(path: Path) -> Any:  # noqa: ANN401  whatever the file holds
    """Read a JSON file; DataError names the file and the line of a fault."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    return parse_json(text, str(path))


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object, found {type(found).__name__}")
    return found


def parse_json(text: str, path: str, line: int | None = None) -> Any:  # noqa: ANN401  whatever the text holds
    """Parse JSON strictly.

    Args:
        text: One JSON value.
        path: Of the file, for messages.
        line: Where the text is one line of the file.

    Raises:
        DataError: The text is not JSON, is nested too deeply, or holds a number of thousands of digits
            or a lone surrogate, which no file and no tokenizer takes.
    """
    try:
        value = json.loads(text)
        if not SURROGATE.search(text) or is_encodable(value):
            return value
    except json.JSONDecodeError as error:
        advice = "; each line is a JSON object by itself: correct this one or remove it" if line else ""
        raise DataError(f"{path}:{line or error.lineno}: bad JSON ({error.msg}){advice}") from None
    except RecursionError:
        reason = "lists or objects are nested too deeply"
    except ValueError:  # Python converts at most 4,300 digits
        reason = "a number has too many digits"
    else:
        entries = value if isinstance(value, dict) else {}
        field = next((f'"{name}" ' for name, entry in entries.items() if not is_encodable(entry)), "")
        reason = f"{field}holds half a character (a lone surrogate)"
    raise DataError(f"{path}{f':{line}' if line else ''}: {reason}")


def is_encodable(value: Any) -> bool:  # noqa: ANN401  whatever JSON holds
    """Whether UTF-8 can hold all strings of a JSON value."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read_vectors(path: Path, n_texts: int | None = None) -> np.ndarray:
    """Read vectors from a `.npy` file; one of more than `MAPPED_BYTES` stays on disk until its rows are used.

    Args:
        path: A float array `(n_texts, dim)`.
        n_texts: The number of texts that it must have a row for.

    Returns:
        float32 array `(n_texts, dim)`.

    Raises:
        DataError: The file is a pickle, of another shape, or holds NaN or infinity.
    """
    try:
        is_large = Path(path).stat().st_size > MAPPED_BYTES
        # c: changes stay in memory. asarray: an array like any other.
        vectors = np.asarray(np.load(path, mmap_mode="c" if is_large else None, allow_pickle=False))
    except OSError:
        raise
    except Exception as error:  # numpy raises a different type for each way a header can be broken
        if "pickle" in str(error).lower():
            raise DataError(f"{path}: a pickle or a broken array; only plain .npy arrays are read") from None
        reason = f"{str(error) or type(error).__name__:.160}"
        raise DataError(
            f"{path}: not a whole .npy array ({reason}); run the stage that writes it, with --overwrite"
        ) from None
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f":
        raise DataError(f"{path}: expected an array of floats, found {getattr(vectors, 'dtype', type(vectors))}")
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"{path}: must be 2-D and not empty, got shape {vectors.shape}")
    if n_texts is not None and len(vectors) != n_texts:
        raise DataError(f"{path}: {len(vectors)} rows for {n_texts} texts; embed the texts again")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, refused below
        vectors = vectors.astype(np.float32, copy=False)
    bad = np.empty(len(vectors), dtype=bool)
    for start in range(0, len(vectors), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        bad[rows] = ~np.isfinite(vectors[rows]).all(axis=1)
        forget_pages(vectors)
    if bad.any():
        raise DataError(f"{path}: row {int(bad.argmax())} holds NaN or infinity ({int(bad.sum())} such rows)")
    return vectors


def forget_pages(vectors: np.ndarray) -> None:
    """Release the pages that were read of a memory-mapped file: otherwise all of it counts as this process's memory."""
    mapped = getattr(vectors.base, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def hash_texts(texts: Iterable[str]) -> str:
    """Return the sha256 of texts in their order."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, or of a model folder's files (names and contents).

    A folder's README.md is left out: measures are added to the model card after training. So are hidden files, which
    file managers and download tools add.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(part.relative_to(path) for part in path.rglob("*") if part.is_file())
        shown = [name for name in names if name.name != "README.md" and not any(p.startswith(".") for p in name.parts)]
        listing = "\n".join(f"{name.as_posix()} {hash_file(path / name)}" for name in shown)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
