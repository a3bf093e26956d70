"""The files that the stages hand to one another: schemas, atomic writes, provenance.

Every file is written to a temporary name in its own folder and renamed when whole. Beside it lies
`<file>.meta.json` with what it was made from, so that a stage can tell its own finished work
(skipped), another's (refused) and an interrupted write (made anew).
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from perspective.errors import DataError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
SCHEMA_VERSION = 1
LABELS = ("1", "2")
OPTIONS = (" 1", " 2")  # the published spelling, with its leading space
ROW_FIELDS = ("query_idx", "choice1_idx", "choice2_idx")


# records


@dataclass(frozen=True)
class Triplet:
    """A question: is `choice1_idx` or `choice2_idx` closer to `query_idx`?

    Attributes:
        query_idx: Row of the query in the corpus; likewise the choices.
        gold: What the labels answer (`" 1"`, `" 2"`, `"both"` or None). For analysis alone: no
            judge, conversion or training reads it.
    """

    query_idx: int
    choice1_idx: int
    choice2_idx: int
    gold: str | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        """The three rows, which identify a question within a run."""
        return self.query_idx, self.choice1_idx, self.choice2_idx


@dataclass(frozen=True)
class Judgment:
    """A judge's answer to one triplet.

    Attributes:
        triplet: The question.
        prediction: `("1",)`, `("2",)` or `()` for an abstention.
        prepared: The prompt as the judge saw it, in the order of the file.
        content: The judge's words, or what stands for them.
        probability: That choice 1 is closer, both orders averaged; None where only words are known.
        swapped_probability: That choice 1 is closer, as told when the choices stood in swapped order.
    """

    triplet: Triplet
    prediction: tuple[str, ...]
    prepared: str = ""
    content: str = ""
    probability: float | None = None
    swapped_probability: float | None = None

    @property
    def confidence(self) -> float | None:
        """Probability of the likelier choice, 0.5 to 1."""
        return None if self.probability is None else max(self.probability, 1 - self.probability)

    @property
    def leaning(self) -> str | None:
        """Label of the likelier choice, also where the judge abstains; a tie goes to choice 2."""
        if self.probability is None:
            return None
        return LABELS[0] if self.probability > 0.5 else LABELS[1]

    @property
    def forward_probability(self) -> float | None:
        """That choice 1 is closer, as told in the order of the file; None if one order was asked."""
        if self.probability is None or self.swapped_probability is None:
            return None
        return 2 * self.probability - self.swapped_probability


@dataclass(frozen=True)
class TrainingTriplet:
    """Anchor, positive and negative with the instruction that stands before each of them."""

    instruction: str
    anchor: str
    positive: str
    negative: str
    triplet: Triplet
    weight: float = 1.0


def stack_rows(triplets: Iterable[Triplet]) -> np.ndarray:
    """Return the rows of query, choice 1 and choice 2, `(n_triplets, 3)`."""
    return np.array([triplet.key for triplet in triplets], dtype=np.int64).reshape(-1, 3)


def parse_prediction(value: object) -> tuple[str, ...]:
    """Read a published or own `prediction` field.

    Published files write `["1"]`, `[" 1"]`, both labels or none; what does not name exactly one
    choice is an abstention.

    >>> parse_prediction([" 1"]), parse_prediction(["1", "2"]), parse_prediction([])
    (('1',), (), ())
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return ()
    named = {str(item).strip() for item in value} & set(LABELS)
    return tuple(named) if len(named) == 1 else ()


def mirror_prediction(prediction: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a prediction names when the choices change places.

    >>> mirror_prediction(("1",)), mirror_prediction(())
    (('2',), ())
    """
    return tuple(LABELS[1 - LABELS.index(label)] for label in prediction)


# triplets, judgments, training triplets as JSON


def save_triplets(output: Output, triplets: Sequence[Triplet], texts: Sequence[str], task: str) -> None:
    """Write sampled triplets in the published layout."""
    output.write_json([_triplet_record(triplet, texts, task) for triplet in triplets])


def load_triplets(path: Path, n_texts: int, task: str | None = None) -> list[Triplet]:
    """Read sampled triplets, ours or published.

    Raises:
        DataError: The file is not a list of triplets, an index is out of range, or the triplets
            belong to another data set than `task`.
    """
    return [_read_triplet(record, path, i, n_texts, task) for i, record in enumerate(_read_records(path))]


def save_judgments(output: Output, judgments: Sequence[Judgment], texts: Sequence[str], task: str) -> None:
    """Write judgments in the published layout with our probabilities beside."""
    output.write_json(
        [{**_triplet_record(judgment.triplet, texts, task), **judgment_fields(judgment)} for judgment in judgments]
    )


def judgment_fields(judgment: Judgment) -> dict[str, Any]:
    """Return what a judge adds to a triplet's record, ready for JSON."""
    return {
        "prepared": judgment.prepared,
        "content": judgment.content,
        "prediction": list(judgment.prediction),
        "probability": judgment.probability,
        "confidence": judgment.confidence,
        "swapped_probability": judgment.swapped_probability,
    }


def judgment_from_fields(triplet: Triplet, record: Mapping[str, Any]) -> Judgment:
    """Inverse of `judgment_fields`; published records lack the probabilities."""
    return Judgment(
        triplet=triplet,
        prediction=parse_prediction(record.get("prediction")),
        prepared=str(record.get("prepared") or ""),
        content=str(record.get("content") or ""),
        probability=_read_probability(record, "probability"),
        swapped_probability=_read_probability(record, "swapped_probability"),
    )


def load_judgments(path: Path, n_texts: int, task: str | None = None) -> list[Judgment]:
    """Read judgments, ours or published.

    Raises:
        DataError: As `load_triplets`, or a record holds no `prediction`.
    """
    judgments = []
    for i, record in enumerate(_read_records(path)):
        if isinstance(record, dict) and "prediction" not in record:
            raise DataError(f'{path}: record {i} has no "prediction"; it has not been judged')
        triplet = _read_triplet(record, path, i, n_texts, task)
        try:
            judgments.append(judgment_from_fields(triplet, record))
        except DataError as error:
            raise DataError(f"{path}: record {i}: {error}") from None
    return judgments


def save_training_triplets(output: Output, triplets: Sequence[TrainingTriplet], task: str) -> None:
    """Write training triplets in the published layout with our weight beside."""
    output.write_json(
        [
            {
                "query": [triplet.instruction, triplet.anchor],
                "pos": [triplet.instruction, triplet.positive],
                "neg": [triplet.instruction, triplet.negative],
                "task_name": task,
                "query_idx": triplet.triplet.query_idx,
                "choice1_idx": triplet.triplet.choice1_idx,
                "choice2_idx": triplet.triplet.choice2_idx,
                "weight": triplet.weight,
            }
            for triplet in triplets
        ]
    )


def load_training_triplets(path: Path) -> list[TrainingTriplet]:
    """Read training triplets, ours or published (without a weight: 1).

    Raises:
        DataError: A record lacks a field or holds a text that is not one.
    """
    triplets = []
    for i, record in enumerate(_read_records(path)):
        try:
            (instruction, anchor), (_, positive), (_, negative) = (record[key] for key in ("query", "pos", "neg"))
            query_idx, choice1_idx, choice2_idx = (int(record[key]) for key in ROW_FIELDS)
            weight = float(record.get("weight", 1.0))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DataError(f"{path}: record {i} is not a training triplet (query, pos, neg, indices)") from None
        if not all(isinstance(text, str) for text in (instruction, anchor, positive, negative)):
            raise DataError(f"{path}: record {i} holds a text that is not a string")
        if not 0 <= weight < float("inf"):
            raise DataError(f"{path}: record {i} has weight {weight}; it must be finite and not negative")
        triplet = Triplet(query_idx, choice1_idx, choice2_idx)
        triplets.append(TrainingTriplet(instruction, anchor, positive, negative, triplet, weight))
    return triplets


def _triplet_record(triplet: Triplet, texts: Sequence[str], task: str) -> dict[str, Any]:
    query, choice1, choice2 = (texts[row] for row in triplet.key)
    return {
        "input": f"Query: {query}\nChoice 1: {choice1}\nChoice 2: {choice2}\nChoice",
        "output": triplet.gold,
        "options": list(OPTIONS),
        "task": task,
        "query_idx": triplet.query_idx,
        "choice1_idx": triplet.choice1_idx,
        "choice2_idx": triplet.choice2_idx,
    }


def _read_records(path: Path) -> list[Any]:
    records = read_json(path)
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list of records, found {type(records).__name__}")
    return records


def _read_triplet(record: Any, path: Path, position: int, n_texts: int, task: str | None) -> Triplet:  # noqa: ANN401
    if not isinstance(record, dict):
        raise DataError(f"{path}: record {position} is {type(record).__name__}, not an object")
    rows = []
    for name in ROW_FIELDS:
        row = record.get(name)
        if not isinstance(row, int) or isinstance(row, bool):
            raise DataError(f'{path}: record {position} has no whole number in "{name}" (found {row!r:.40})')
        if not 0 <= row < n_texts:
            raise DataError(
                f"{path}: record {position} has {name} {row}, but there are {n_texts} texts; another data set?"
            )
        rows.append(row)
    found = record.get("task")
    if task is not None and found is not None and found != task:
        raise DataError(f'{path}: made for data set "{found}", not "{task}"')
    gold = record.get("output")
    query_idx, choice1_idx, choice2_idx = rows
    return Triplet(query_idx, choice1_idx, choice2_idx, gold if isinstance(gold, str) else None)


def _read_probability(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f'"{name}" is {value!r:.40}; it must lie between 0 and 1')
    return float(value)


# reading


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


# writing


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
    """Return JSON as the project writes it: readable, UTF-8, a line at the end."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


# provenance


@dataclass
class Output:
    """One file or folder that a stage makes, with its sidecar.

    The sidecar is renamed into place before the file itself and holds the file's sha256: a kill
    between the two leaves a sidecar without its file, which reads as 'not made yet'.

    Attributes:
        path: Where the result goes.
        schema: Name of what it holds.
        settings: Every setting that changes the result.
        inputs: Files and folders it is made from, by role; hashed.
        facts: Counts, model names and revisions to be recorded; filled while the stage runs.
    """

    path: Path
    schema: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the clock and hash the inputs, before anything can change them.

        Raises:
            DataError: An input is not there.
        """
        self.path = Path(self.path)
        self._started = time.perf_counter()
        for role, path in self.inputs.items():
            if not Path(path).exists():
                raise DataError(f"{path}: no such file ({role.replace('_', ' ')}); run the stage that makes it first")
        self._hashes = {role: hash_file(Path(path)) for role, path in self.inputs.items()}

    @property
    def sidecar(self) -> Path:
        """The path of the provenance beside the result."""
        return sidecar_path(self.path)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the result: schema, settings and the inputs' hashes."""
        made_from = {"settings": dict(self.settings), "inputs": self._hashes}
        # Through JSON, so that it compares equal to what a sidecar gives back.
        return json.loads(json.dumps({"schema": self.schema, "schema_version": SCHEMA_VERSION, **made_from}))

    def is_finished(self, overwrite: bool = False) -> bool:
        """Tell whether the result is there, whole, and made from the same inputs and settings.

        Raises:
            DataError: It was made from others, was changed since, or is not the pipeline's own.
        """
        if overwrite or not self.path.exists():
            return False
        hint = "move it away, or add --overwrite to make it anew"
        if not self.sidecar.exists():
            raise DataError(f"{self.path}: there already, but not made by this stage (no {self.sidecar.name}); {hint}")
        found = read_json(self.sidecar)
        if found.get("sha256") != hash_file(self.path):
            raise DataError(f"{self.path}: changed since it was made; {hint}")
        differences = list(_differences(found, self.fingerprint))
        if differences:
            raise DataError(f"{self.path}: made with other {'; '.join(differences[:3])}; {hint}")
        logger.info("%s: already made from the same inputs and settings", display_path(self.path))
        return True

    @property
    def partial(self) -> Path:
        """The folder of an unfinished run: what a killed stage goes on from."""
        return self.path.with_name(self.path.name + ".partial")

    def open_partial(self, anew: bool = False) -> Path:
        """Find the folder of an unfinished run, or make it.

        Args:
            anew: Whether to begin with an empty one in any case.

        Raises:
            DataError: The unfinished run has other inputs or settings.
        """
        guard = self.partial / "fingerprint.json"
        if guard.exists() and not anew:
            if read_json(guard) != self.fingerprint:
                raise DataError(
                    f"{self.partial}: an unfinished run with other inputs or settings; finish it, or remove the folder"
                )
            return self.partial
        with atomic_path(self.partial) as folder:
            folder.mkdir()
            (folder / guard.name).write_text(dump_json(self.fingerprint), encoding="utf-8")
        return self.partial

    def discard_partial(self) -> None:
        """Remove the folder of an unfinished run once the result is sealed."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def write_json(self, value: Any) -> None:  # noqa: ANN401
        """Write the result as JSON."""
        with self.open() as temporary:
            temporary.write_text(dump_json(value), encoding="utf-8")

    def write_vectors(self, vectors: np.ndarray) -> None:
        """Write the result as a float32 `.npy` array."""
        with self.open() as temporary, temporary.open("wb") as file:
            np.save(file, np.asarray(vectors, dtype=np.float32), allow_pickle=False)

    @contextmanager
    def open(self) -> Iterator[Path]:
        """Give a temporary path to write to; seal it with its sidecar when the block ends well."""
        with atomic_path(self.path) as temporary:
            yield temporary
            write_text(self.sidecar, dump_json({**self.fingerprint, **self._provenance(temporary)}))
        logger.info("wrote %s", display_path(self.path))

    def _provenance(self, made: Path) -> dict[str, Any]:
        return {
            "sha256": hash_file(made),
            "facts": self.facts,
            "input_paths": {role: display_path(Path(path)) for role, path in self.inputs.items()},
            "wall_seconds": round(time.perf_counter() - self._started, 1),
            "git_commit": _git_commit(),
            "versions": _versions(),
        }


def sidecar_path(path: Path) -> Path:
    """Return the path of the provenance beside a result."""
    return path.with_name(path.name + ".meta.json")


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts recorded beside a result; empty for a file without a sidecar."""
    sidecar = sidecar_path(Path(path))
    return read_json(sidecar).get("facts", {}) if sidecar.exists() else {}


def display_path(path: Path) -> str:
    """Return a path relative to the repository where it lies inside."""
    resolved = Path(path).resolve()
    return resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else str(path)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    if (found.get("schema"), found.get("schema_version")) != (wanted["schema"], wanted["schema_version"]):
        yield f"schema ({found.get('schema')} {found.get('schema_version')})"
    for part in ("settings", "inputs"):
        was, now = found.get(part) or {}, wanted[part]
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                if part == "inputs":
                    yield f"{name} (another file)"
                else:
                    yield f"{name} ({was.get(name)}, now {now.get(name)})"


@lru_cache(maxsize=1)
def _git_commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("torch", "transformers", "sentence-transformers", "scikit-learn", "numpy", "peft"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
