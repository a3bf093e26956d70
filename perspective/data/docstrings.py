"""A retrieval set from docstrings of installed packages: the summary is the query, the rest the document.

Every installation has these texts, so no hub is needed, and the task is realistic: find the
documentation for a one-line description. Training pairs and test collection come from different
packages. Sources are parsed, never imported.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perspective.data.collection import Collection
from perspective.data.docstring_text import MAX_DOCUMENT_CHARACTERS, split_docstring
from perspective.data.likeness import find_similar, keep_distinct
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.options import option

NAME = "docstrings"

# Import name to distribution name, whose version is recorded. All are in requirements.txt.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "sentence_transformers": "sentence-transformers"}
SKIPPED_FOLDERS = {"tests", "test", "testing", "_vendor", "vendor", "externals", "_numpy", "array_api_compat"}

MAX_QUERIES = 1000
MAX_PAIRS = 1500  # per package, so that none dominates


@dataclass(frozen=True)
class DocsSettings:
    """Packages for training and testing."""

    train_packages: list[str] = option(
        "import names of the packages to train on",
        default=["scipy", "pandas", "sklearn", "torch", "transformers", "accelerate", "pyarrow"],
        group="input",
    )
    test_packages: list[str] = option(
        "import names of the packages to test on, disjoint from --train_packages",
        default=["numpy", "matplotlib", "peft", "sentence_transformers"],
        group="input",
    )

    def __post_init__(self) -> None:
        """Check that the two lists are disjoint.

        Raises:
            DataError: A package is in both.
        """
        both = set(self.train_packages) & set(self.test_packages)
        if both:
            raise DataError(f"--train_packages and --test_packages share {', '.join(sorted(both))}")

    def made_from(self) -> dict[str, Any]:
        """Return the packages with their versions, which determine the texts."""
        return {
            "train_packages": {name: find_version(name) for name in self.train_packages},
            "test_packages": {name: find_version(name) for name in self.test_packages},
            "max_document_characters": MAX_DOCUMENT_CHARACTERS,
        }


@dataclass(frozen=True)
class Entry:
    """A docstring, split into query and document.

    Attributes:
        key: Dotted name of the documented object.
        package: Import name.
        summary: Its first sentence, or "" if that is not usable as a query.
        body: The rest.
    """

    key: str
    package: str
    summary: str
    body: str


def make_docs_set(settings: DocsSettings) -> tuple[list[Pair], Collection]:
    """Make training pairs and a test collection from the docstrings of installed packages.

    The corpus contains all documents of the test packages, without near-duplicates. The queries are
    the summaries of public functions and classes that are not similar to another summary. Training
    pairs similar to a test document or query are dropped, because packages copy from one another.

    Raises:
        DataError: A package is not installed, or no docstring is usable.
    """
    test = _keep_distinct(read_packages(settings.test_packages), SAME_DOCUMENT)
    queries = [entry for entry in test if entry.summary and is_public(entry.key)]
    queries = _drop_like(queries, test, SAME_QUERY)
    queries = _spread(queries, MAX_QUERIES)
    train = [entry for entry in read_packages(settings.train_packages, public=True) if entry.summary]
    for likeness in (SAME_DOCUMENT, SAME_QUERY):
        train = _keep_distinct(_drop_like(train, test, likeness), likeness)
    by_package = [[entry for entry in train if entry.package == name] for name in settings.train_packages]
    train = [entry for entries in by_package for entry in _spread(entries, MAX_PAIRS)]
    if not queries or not train:
        raise DataError(f"{', '.join(settings.test_packages)}: no docstrings usable as queries")
    pairs = [Pair(entry.summary, entry.body, source=entry.package) for entry in train]
    collection = Collection(
        name=NAME,
        corpus={entry.key: entry.body for entry in test},
        queries={f"q-{entry.key}": entry.summary for entry in queries},
        qrels={f"q-{entry.key}": {entry.key: 1} for entry in queries},
    )
    return pairs, collection


def read_packages(names: Sequence[str], public: bool = False) -> list[Entry]:
    """Read the docstrings of packages in file order, optionally of public names only."""
    return [entry for name in names for entry in read_package(name, public)]


def read_package(name: str, public: bool = False) -> Iterator[Entry]:
    """Yield the docstrings of one package that are long enough for a document.

    Raises:
        DataError: The package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise DataError(f"{name}: not installed; run: bash scripts/setup.sh")
    origin = Path(spec.origin)
    root = origin.parent
    is_package = spec.submodule_search_locations is not None
    # A single-file module shares its folder with all installed packages.
    paths = root.rglob("*.py") if is_package else [origin]
    for path in sorted(paths, key=lambda path: path.relative_to(root).parts):
        place = path.relative_to(root).with_suffix("")
        if SKIPPED_FOLDERS.isdisjoint(place.parts):
            module = ".".join((name, *place.parts)).removesuffix(".__init__") if is_package else name
            for key, docstring in _find_docstrings(path, module):
                parts = split_docstring(docstring) if is_public(key) or not public else None
                if parts is not None:
                    yield Entry(key, name, *parts)


def _find_docstrings(path: Path, module: str) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # from invalid escapes in other packages
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # a template or Python 2
        return
    seen: set[str] = set()
    scopes: list[tuple[str, ast.AST]] = [(module, tree)]
    while scopes:
        scope, node = scopes.pop(0)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                key = f"{scope}.{child.name}"
                docstring = ast.get_docstring(child)
                if docstring and key not in seen:
                    seen.add(key)
                    yield key, docstring
                if isinstance(child, ast.ClassDef):
                    scopes.append((key, child))
            elif isinstance(child, ast.If | ast.Try):
                scopes.append((scope, child))


def is_public(key: str) -> bool:
    """Return whether the last part of a dotted name is public.

    >>> is_public("numpy._core.numeric.ones_like"), is_public("numpy.ma.core._mask_method")
    (True, False)
    """
    return not key.rsplit(".", 1)[-1].startswith("_")


def find_version(name: str) -> str:
    """Return the version of an installed package.

    Raises:
        DataError: The package is not installed.
    """
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        raise DataError(f"{name}: not installed; run: bash scripts/setup.sh") from None


def _spread(entries: Sequence[Entry], n_most: int) -> list[Entry]:
    """Select at most `n_most` entries at equal intervals."""
    rows = np.linspace(0, len(entries), min(n_most, len(entries)), endpoint=False).astype(int)
    return [entries[row] for row in rows]


# similarity


@dataclass(frozen=True)
class Likeness:
    """Criterion for near-duplicates: the cosine of binary vectors of word n-grams.

    Attributes:
        part: Field of the entry to compare.
        n_words: Length of the n-grams; longer ones also compare word order.
        threshold: Minimum cosine of near-duplicates.
    """

    part: str
    n_words: int
    threshold: float

    def find(self, entries: Sequence[Entry], others: Sequence[Entry]) -> Any:  # noqa: ANN401  a sparse matrix
        """Return a sparse matrix `(n_entries, n_others)` that is non-zero for near-duplicates."""
        texts, other_texts = ([getattr(entry, self.part) for entry in part] for part in (entries, others))
        return find_similar(texts, other_texts, self.n_words, self.threshold)


SAME_QUERY = Likeness("summary", n_words=1, threshold=0.85)
SAME_DOCUMENT = Likeness("body", n_words=3, threshold=0.7)


def _keep_distinct(entries: Sequence[Entry], likeness: Likeness) -> list[Entry]:
    """Keep the first entry of each group of near-duplicates."""
    is_kept = keep_distinct(likeness.find(entries, entries))
    return [entry for entry, kept in zip(entries, is_kept, strict=True) if kept]


def _drop_like(entries: Sequence[Entry], others: Sequence[Entry], likeness: Likeness) -> list[Entry]:
    """Drop entries that are near-duplicates of any other entry, not counting themselves."""
    near = likeness.find(entries, others)
    n_similar = np.diff(near.indptr)
    other_ids = {id(other) for other in others}
    n_self = np.array([id(entry) in other_ids for entry in entries], dtype=int)
    return [entry for entry, n, own in zip(entries, n_similar, n_self, strict=True) if n <= own]
