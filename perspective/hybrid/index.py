"""Index files of a collection's documents: a folder of plain arrays, read as memory maps.

dense.npy            float32 (n_documents, dense_dim)
lexical_offsets.npy  int64   (n_documents + 1,)   rows of the sparse matrix (CSR)
lexical_tokens.npy   int32   (n_weights,)
lexical_weights.npy  float32 (n_weights,)
vectors.npy          float16 (n_tokens, dim)      of all documents, one after the other
vector_offsets.npy   int64   (n_documents + 1,)
index.json           {"n_documents", "n_vocabulary"}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from perspective.artifacts import Output, atomic_path, dump_json, read_object
from perspective.errors import DataError
from perspective.hybrid.encoding import EncodedTexts

TEXTS_AT_A_TIME = 1024  # encoded between two saves, as for dense vectors
COUNTS = "index.json"
DTYPES = {
    "dense": np.float32,
    "lexical_offsets": np.int64,
    "lexical_tokens": np.int32,
    "lexical_weights": np.float32,
    "vectors": np.float16,
    "vector_offsets": np.int64,
}
OFFSETS = {"lexical_offsets": "lexical_weights", "vector_offsets": "vectors"}  # and the array whose rows they count


def build_index(output: Output, texts: Sequence[str], encode: Callable[[Sequence[str]], EncodedTexts]) -> None:
    """Encode texts in blocks and write them as one index; a killed run resumes after the last block.

    Memory is that of a block: the blocks are joined on disk.

    Args:
        output: The folder to write.
        texts: The texts.
        encode: Encodes a block of them.
    """
    blocks = output.open_partial()
    folders = []
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        folder = blocks / f"{start:09d}"
        if not folder.exists():
            with atomic_path(folder) as temporary:
                _write_arrays(temporary, encode(texts[start : start + TEXTS_AT_A_TIME]))
        folders.append(folder)
    with output.open() as temporary:
        temporary.mkdir()
        for name in DTYPES:
            _join([np.load(folder / f"{name}.npy", mmap_mode="r") for folder in folders], name, temporary)
        counts = [read_object(folder / COUNTS) for folder in folders]
        whole = {**counts[0], "n_documents": sum(count["n_documents"] for count in counts)}
        (temporary / COUNTS).write_text(dump_json(whole), encoding="utf-8")
        output.facts |= whole
    output.discard_partial()


def read_index(folder: Path) -> EncodedTexts:
    """Read an index; its arrays stay on disk until their rows are used.

    Raises:
        DataError: A file is missing, a pickle, cut off, or does not fit the others.
    """
    folder = Path(folder)
    if not (folder / COUNTS).is_file():
        raise DataError(f"{folder}: no index (no {COUNTS}); make one with index.sh")
    counts = read_object(folder / COUNTS)
    n_documents, n_vocabulary = (_read_count(counts, name, folder) for name in ("n_documents", "n_vocabulary"))
    arrays = {name: _read_array(folder / f"{name}.npy", dtype) for name, dtype in DTYPES.items()}
    for name, of in OFFSETS.items():
        offsets = arrays[name]
        fits = len(offsets) == n_documents + 1 and offsets[0] == 0 and offsets[-1] == len(arrays[of])
        if not fits or (np.diff(offsets) < 0).any():
            raise DataError(
                f"{folder / name}.npy: does not fit {of}.npy and {n_documents} documents; make the index again"
            )
    if len(arrays["dense"]) != n_documents or len(arrays["lexical_tokens"]) != len(arrays["lexical_weights"]):
        raise DataError(f"{folder}: its files hold different numbers of documents; make the index again")
    lexical = (arrays["lexical_weights"], arrays["lexical_tokens"], arrays["lexical_offsets"])
    return EncodedTexts(
        dense=arrays["dense"],
        lexical=csr_array(lexical, shape=(n_documents, n_vocabulary)),
        vectors=arrays["vectors"],
        offsets=arrays["vector_offsets"],
    )


def _write_arrays(folder: Path, encoded: EncodedTexts) -> None:
    folder.mkdir()
    arrays = {
        "dense": encoded.dense,
        "lexical_offsets": encoded.lexical.indptr,
        "lexical_tokens": encoded.lexical.indices,
        "lexical_weights": encoded.lexical.data,
        "vectors": encoded.vectors,
        "vector_offsets": encoded.offsets,
    }
    for name, dtype in DTYPES.items():
        np.save(folder / f"{name}.npy", arrays[name].astype(dtype, copy=False), allow_pickle=False)
    counts = {"n_documents": len(encoded), "n_vocabulary": encoded.lexical.shape[1]}
    (folder / COUNTS).write_text(dump_json(counts), encoding="utf-8")


def _join(parts: Sequence[np.ndarray], name: str, folder: Path) -> None:
    """Write the arrays of the blocks as one, a block at a time; offsets continue those of the block before."""
    is_offset = name in OFFSETS
    n_rows = sum(len(part) - is_offset for part in parts) + is_offset
    shape = (n_rows, *parts[0].shape[1:])
    joined = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=DTYPES[name], shape=shape)
    place = 0
    for part in parts:
        if is_offset:
            joined[place : place + len(part)] = part + joined[place]
            place += len(part) - 1
        else:
            joined[place : place + len(part)] = part
            place += len(part)
    joined.flush()


def _read_array(path: Path, dtype: Any) -> np.ndarray:  # noqa: ANN401  a numpy type
    if not path.is_file():
        raise DataError(f"{path}: no such file; make the index again")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises a different type for each way a file can be broken
        if "empty" in str(error):
            array = np.load(path, allow_pickle=False)
        else:
            raise DataError(f"{path}: not a whole .npy array ({str(error):.120}); make the index again") from None
    if array.dtype != dtype or array.ndim != (2 if path.stem in ("dense", "vectors") else 1):
        raise DataError(f"{path}: expected {np.dtype(dtype)}, found {array.dtype} {array.shape}; make the index again")
    return array


def _read_count(counts: dict[str, Any], name: str, folder: Path) -> int:
    value = counts.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f'{folder / COUNTS}: "{name}" is {value!r:.40}; make the index again')
    return value
