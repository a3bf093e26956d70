"""Names of data sets and models in file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from perspective.errors import DataError

# Of an embedder and of a data set in file names; file systems take 255 for the whole name.
MAX_NAME_BYTES, MAX_DATASET_BYTES = 96, 60


def slugify_model(name: str) -> str:
    """Return a model's name for file names.

    >>> slugify_model("berkeley-nest/Starling-LM-7B-alpha"), slugify_model("minilm")
    ('starling-lm-7b-alpha', 'minilm')
    """
    path = Path(name.rstrip("/"))
    slug = (path if path.name not in ("", "..") else path.resolve()).name.lower().removesuffix(".gguf")
    return "".join(char if char.isalnum() or char in "._=" else "-" for char in slug)


def name_dataset(path: Path) -> str:
    """Return the name of a data set of the user's own texts, made from the file's name.

    Letters, their marks and digits of every script are kept; everything else becomes "_".

    >>> name_dataset(Path("texts/고객 문의-2.csv")), name_dataset(Path("haikus.jsonl"))
    ('고객_문의_2', 'haikus')
    """
    stem = unicodedata.normalize("NFC", path.stem)  # macOS hands out decomposed names
    name = "".join(char if unicodedata.category(char)[0] in "LMN" else "_" for char in stem)
    return shorten_name(name, MAX_DATASET_BYTES)


def name_sample(dataset: str, n_texts: int) -> str:
    """Return the name of a sample of a data set, itself a data set."""
    return f"{dataset}_n={n_texts}"


def source_dataset(dataset: str) -> str:
    """Return the data set that a sample was drawn from; any other is its own.

    >>> source_dataset(name_sample("banking77", 1000)), source_dataset("banking77")
    ('banking77', 'banking77')
    """
    return re.sub(r"_n=\d+$", "", dataset)


def check_name(option: str, name: str) -> None:
    """Refuse a name of files that would lead into another folder, or that scripts would take for several.

    Raises:
        DataError: It is empty, only dots, or holds a slash, a space or what cannot be printed.
    """
    if not name.strip(".") or any(char in "/\\" or char.isspace() or not char.isprintable() for char in name):
        raise DataError(f'{option} "{name}": must be a name without spaces and slashes')


def shorten_name(name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Shorten a name that is too long for file systems, as after many rounds of adapting.

    >>> shorten_name("minilm"), len(shorten_name("minilm-smollm2_seed=100" * 10))
    ('minilm', 96)
    """
    if len(name.encode()) <= max_bytes:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: max_bytes - 9].decode(errors="ignore") + f"-{digest}"
