"""What a result was made from, kept beside it.

`<file>.meta.json` lets a stage tell its own finished work (skipped), another's (refused) and an
interrupted write (made anew).
"""

from __future__ import annotations

import importlib.metadata
import json
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

from perspective.artifacts.reading import hash_file, read_json
from perspective.artifacts.writing import atomic_path, dump_json, write_text
from perspective.errors import DataError

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
SCHEMA_VERSION = 1


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


def discard_result(path: Path) -> None:
    """Remove a result that no longer holds, with its sidecar."""
    for file in (path, sidecar_path(path)):
        file.unlink(missing_ok=True)


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
