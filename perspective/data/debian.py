"""Unpack packages of Debian and its relatives into a folder, without installing them."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

from perspective.errors import DataError

logger = logging.getLogger(__name__)

SECONDS = 600  # of one command; the largest help package has 4 MB


def unpack_packages(names: Sequence[str], folder: Path) -> dict[str, str]:
    """Download packages with apt-get and unpack them into one folder; nothing is installed.

    Returns:
        The version of each package.

    Raises:
        DataError: apt-get or dpkg-deb is not on this machine, or a package cannot be downloaded.
    """
    versions = {}
    for name in names:
        logger.info("downloading %s", name)
        before = set(folder.glob("*.deb"))
        _run(["apt-get", "download", name], folder, name)
        (path,) = set(folder.glob("*.deb")) - before
        _run(["dpkg-deb", "-x", path.name, "."], folder, name)
        versions[name] = _run(["dpkg-deb", "--field", path.name, "Version"], folder, name).strip()
    return versions


def _run(command: list[str], folder: Path, package: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise DataError(
            f"{package}: needs {command[0]}, which this machine lacks; make the sets on Debian or Ubuntu "
            "and copy their folders into datasets/"
        ) from None
    except subprocess.TimeoutExpired:
        raise DataError(f"{package}: {command[0]} took over {SECONDS} seconds; run the same command again") from None
    if done.returncode:
        # apt-get also warns that it does not change its user; the fault is on a line that begins with E.
        lines = done.stderr.strip().splitlines()
        reason = next((line for line in lines if line.startswith("E:")), lines[-1] if lines else "no message")
        raise DataError(
            f"{package}: {command[0]} failed ({reason.removeprefix('E:').strip()}); check the name, and that "
            "`apt-get update` has run and the package server can be reached"
        )
    return done.stdout
