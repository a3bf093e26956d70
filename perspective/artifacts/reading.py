"""JSON and vectors read with refusals that name the fault; hashes of what was read."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from perspective.errors import DataError


def read_json(path: Path) -> Any:  # noqa: ANN401  whatever the file holds
    """Read a JSON file; DataError names the file and the line of a fault."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: bad JSON ({error.msg})") from None


def read_vectors(path: Path, n_texts: int | None = None) -> np.ndarray:
    """Read embeddings from a `.npy` file.

    Args:
        path: A float array `(n_texts, dim)`.
        n_texts: The number of texts that the rows must match.

    Returns:
        float32 array `(n_texts, dim)`.

    Raises:
        DataError: The file is a pickle, of another shape, or holds NaN or infinity.
    """
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error).lower():
            raise DataError(f"{path}: a pickle or a broken array; only plain .npy arrays are read") from None
        raise DataError(f"{path}: not a whole .npy array ({error})") from None
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f":
        raise DataError(f"{path}: expected an array of floats, found {getattr(vectors, 'dtype', type(vectors))}")
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise DataError(f"{path}: must be 2-D and not empty, got shape {vectors.shape}")
    if n_texts is not None and len(vectors) != n_texts:
        raise DataError(f"{path}: {len(vectors)} rows for {n_texts} texts; embed the texts again")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, refused below
        vectors = vectors.astype(np.float32, copy=False)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise DataError(f"{path}: row {int(bad.argmax())} holds NaN or infinity ({int(bad.sum())} such rows)")
    return vectors


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, or of a model folder's files (names and contents).

    A folder's README.md is left out: the model card gains its figures after the model is made.
    """
    path = Path(path)
    if path.is_dir():
        parts = sorted(part for part in path.rglob("*") if part.is_file() and part.name != "README.md")
        listing = "\n".join(f"{part.relative_to(path).as_posix()} {hash_file(part)}" for part in parts)
        return hashlib.sha256(listing.encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
