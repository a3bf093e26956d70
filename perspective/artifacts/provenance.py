"""Results with their sidecars: finished work is recognised, other work refused, unfinished work resumed.

By the sidecar `<file>.meta.json` a stage decides whether a result is complete and made from the same
inputs and settings (skipped), made from others (refused), or interrupted (computed again).
"""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts.reading import hash_file, read_json, read_vectors
from perspective.artifacts.sidecar import (
    SCHEMA_VERSION,
    Fingerprint,
    ResultRecord,
    Sidecar,
    read_facts,
    read_sidecar,
    sidecar_path,
    validate_record,
)
from perspective.artifacts.writing import atomic_path, dump_json, finish_replacing, write_text
from perspective.errors import DataError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]

REPLACED = "replaced"  # fact: sha256 of the earlier versions of a result, to which later answers were added

# Versions of the methods by schema; 1 if not listed. Raise one when a change of code changes the numbers that the
# same settings give: prompts and their examples, token limits, the trust rule, neighbours ...
METHOD_VERSIONS = {
    **{"answer states": 2, "teacher": 4, "embedder": 3},
    **{"number of clusters": 2, "clusters": 2, "cluster names": 3, "map": 2},
}


def require_unchanged(path: Path, present: str) -> None:
    """Refuse vectors that were changed or damaged since a stage made them; those from elsewhere are taken as they are.

    Args:
        path: Vectors as `.npy`. Another file passes: people edit some, and their readers check them.
        present: Its sha256.

    Raises:
        DataError: They are not what their sidecar describes.
    """
    made = read_sidecar(path) if path.suffix == ".npy" else None
    if made and not _has_been(made, present):
        raise DataError(
            f"{path}: changed since it was made; run the stage that makes it with --overwrite, or remove "
            f"{sidecar_path(path).name} to use it as a file from elsewhere"
        )


@dataclass
class Output:
    """One file or folder that a stage writes, with its sidecar.

    The sidecar is renamed into place before the file and holds the file's sha256: a kill between the two
    leaves a sidecar without its file, which counts as not made yet.

    Attributes:
        path: Path of the result.
        schema: Name of its content, such as "triplets".
        settings: Every setting that changes the numbers; not budgets, prices and batch sizes.
        inputs: Files and folders it is made from, by role; hashed.
        facts: Counts, model names and revisions, for people; filled while the stage runs.
        precision: Data type in which a model computes it; None without a model.
        record: Fields that later stages read; filled while the stage runs.
        earlier: Sidecar of the version that `replace` lets the result replace; None before.
    """

    path: Path
    schema: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    precision: str | None = field(default=None, kw_only=True)
    record: ResultRecord = field(default_factory=ResultRecord)

    def __post_init__(self) -> None:
        """Start the clock and hash the inputs, before anything can change them.

        Raises:
            DataError: An input does not exist, or vectors are not as the stage that made them left them.
        """
        self.path = Path(self.path)
        self._started = time.perf_counter()
        for role, path in self.inputs.items():
            finish_replacing(Path(path))
            if not Path(path).exists():
                raise DataError(f"{path}: no such file ({role.replace('_', ' ')}); run the stage that makes it first")
        self._hashes = {role: hash_file(Path(path)) for role, path in self.inputs.items()}
        for role, path in self.inputs.items():
            require_unchanged(Path(path), self._hashes[role])
        self._overwrites = False
        self.earlier: Sidecar | None = None

    def beside(self, path: Path, schema: str) -> Output:
        """Return another result of the same settings and inputs, which are not hashed again.

        Args:
            path: The other result.
            schema: Its kind.
        """
        other = copy.copy(self)
        other.path, other.schema, other.facts, other.record = path, schema, {}, self.record.model_copy()
        return other

    @property
    def sidecar(self) -> Path:
        """Path of the sidecar."""
        return sidecar_path(self.path)

    @property
    def fingerprint(self) -> Fingerprint:
        """Everything that determines the result's numbers."""
        fingerprint = Fingerprint(
            schema=self.schema,
            schema_version=SCHEMA_VERSION,
            method_version=METHOD_VERSIONS.get(self.schema, 1),
            settings=dict(self.settings),
            precision=self.precision,
            inputs=self._hashes,
        )
        # Through JSON, so that it equals the one that is read from a sidecar.
        return Fingerprint.model_validate_json(fingerprint.model_dump_json())

    def is_finished(self, overwrite: bool = False, quiet: bool = False) -> bool:
        """Tell whether the result exists, is complete, and was made from the same inputs and settings.

        Args:
            overwrite: Whether it is replaced in any case.
            quiet: Whether to leave the log line to the caller.

        Raises:
            DataError: It was made from others, was changed since, or was not made by this stage.
        """
        finish_replacing(self.path)
        self._overwrites = overwrite
        if overwrite or not self.path.exists():
            return False
        hint = "move it away, or add --overwrite to replace it"
        found = read_sidecar(self.path)
        if found is None:
            raise DataError(f"{self.path}: exists, but not made by this stage (no {self.sidecar.name}); {hint}")
        present = hash_file(self.path)
        if not _has_been(found, present):
            raise DataError(f"{self.path}: changed since it was made; {hint}")
        was_killed = present != found.sha256  # between the sidecar and the file
        differences = list(_differences(found, self.fingerprint))
        if (was_killed or differences) and self.is_of_earlier_inputs(found):
            logger.info("%s: made again, there are more answers now", display_path(self.path))
            self.replace(found)
            return False
        if differences:
            raise DataError(f"{self.path}: made with other {'; '.join(differences[:3])}; {hint}")
        self.record, self.facts = found.record, found.facts
        if not quiet:
            self.log_finished()
        return True

    def replace(self, earlier: Sidecar) -> None:
        """Let the result replace an earlier version of itself; what was made of that one is then made again."""
        self.earlier = earlier
        self.facts[REPLACED] = [earlier.sha256, *earlier.facts.get(REPLACED, [])]
        self._overwrites = True

    def is_of_earlier_inputs(self, found: Fingerprint) -> bool:
        """Tell whether a result differs at most in inputs that say that they replaced those it was made from."""
        wanted = self.fingerprint
        changed = [role for role, now in wanted.inputs.items() if found.inputs.get(role) != now]
        alike = {"inputs": {**found.inputs, **wanted.inputs}}
        if list(_differences(found.model_copy(update=alike), wanted)):
            return False
        return all(found.inputs.get(role) in read_facts(self.inputs[role]).get(REPLACED, []) for role in changed)

    def is_current(self) -> bool:
        """As `is_finished`, for results that are cheap to recompute: one made from others is replaced, not refused.

        Raises:
            DataError: The file was not made by this stage.
        """
        finish_replacing(self.path)
        if not self.path.exists():
            return False
        found = read_sidecar(self.path)
        if found is None:
            return self.is_finished()  # a file from elsewhere
        return found.sha256 == hash_file(self.path) and not list(_differences(found, self.fingerprint))

    def log_finished(self) -> None:
        """Log that there is nothing to do."""
        logger.info("%s: already made from the same inputs and settings", display_path(self.path))

    @property
    def partial(self) -> Path:
        """Folder of an unfinished run, from which a killed stage resumes."""
        return self.path.with_name(self.path.name + ".partial")

    def open_partial(self, restart: bool = False) -> Path:
        """Return the folder of an unfinished run; create it if there is none.

        Args:
            restart: Whether to start with an empty folder in any case.

        Raises:
            DataError: The unfinished run has other inputs or settings, and `is_finished` was not told to overwrite.
        """
        guard = self.partial / "fingerprint.json"
        if guard.exists() and not restart:
            found = validate_record(Fingerprint, read_json(guard), guard)
            if found == self.fingerprint:
                return self.partial
            has_work = any(path.name != guard.name for path in self.partial.iterdir())
            if has_work and not self._overwrites and not self.is_of_earlier_inputs(found):
                raise DataError(
                    f"{self.partial}: an unfinished run with other inputs or settings; finish it, or add --overwrite "
                    "to begin again"
                )
        with atomic_path(self.partial) as folder:
            folder.mkdir()
            (folder / guard.name).write_text(dump_json(self.fingerprint.model_dump()), encoding="utf-8")
        return self.partial

    def discard_partial(self) -> None:
        """Remove the folder of an unfinished run after the result is written."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def read_vectors(self, role: str, n_texts: int) -> np.ndarray:
        """Read an input that has a row for each of the texts, which are another input.

        Args:
            role: The input.
            n_texts: Number of texts.

        Returns:
            float32 array `(n_texts, dim)`.

        Raises:
            DataError: As in `read_vectors`, or the sidecar says that they were made from another file of texts.
        """
        path = self.inputs[role]
        made = read_sidecar(path)
        if made and made.inputs.get("texts") not in (None, self._hashes["texts"]):
            texts = display_path(self.inputs["texts"])
            raise DataError(f"{path}: made from other texts than {texts} holds; make it again (--overwrite)")
        return read_vectors(path, n_texts)

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
        """Yield a temporary path to write to; write the sidecar and rename it when the block ends without an error."""
        with atomic_path(self.path) as temporary:
            yield temporary
            write_text(self.sidecar, dump_json(self._describe(temporary).model_dump()))
        logger.info("wrote %s", display_path(self.path))

    def _describe(self, result: Path) -> Sidecar:
        return Sidecar(
            **self.fingerprint.model_dump(),
            sha256=hash_file(result),
            record=self.record,
            facts=self.facts,
            input_paths={role: display_path(Path(path).resolve()) for role, path in self.inputs.items()},
            wall_seconds=round(time.perf_counter() - self._started, 1),
            git_commit=_git_commit(),
            versions=_versions(),
        )


def discard_result(path: Path) -> None:
    """Remove an outdated result with its sidecar."""
    for file in (path, sidecar_path(path)):
        file.unlink(missing_ok=True)


def display_path(path: Path) -> str:
    """Return a path relative to the repository if it is inside, else as it is."""
    resolved = Path(path).resolve()
    return resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else str(path)


def _has_been(made: Sidecar, present: str) -> bool:
    """Tell whether a sha256 is that of the file that a sidecar describes, or of an earlier version of it."""
    return present in (made.sha256, *made.facts.get(REPLACED, []))


def _differences(found: Fingerprint, wanted: Fingerprint) -> Iterator[str]:
    if found.schema_name != wanted.schema_name:
        yield f"schema ({found.schema_name}, now {wanted.schema_name})"
    if found.method_version != wanted.method_version:
        yield f"version of the method ({found.method_version}, now {wanted.method_version})"
    if found.precision != wanted.precision:
        yield f"precision ({found.precision}, now {wanted.precision})"
    for name in sorted(found.settings.keys() | wanted.settings.keys()):
        was, now = found.settings.get(name), wanted.settings.get(name)
        if was != now:
            yield f"{name} ({was!s:.60}, now {now!s:.60})"
    for role in sorted(found.inputs.keys() | wanted.inputs.keys()):
        if found.inputs.get(role) != wanted.inputs.get(role):
            yield f"{role} (another file)"


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
