"""Fetch the data sets from local folders or the internet, with checksums.

Searches datasets/, $EMBWITHLLM_DATASETS and ../shared/datasets in this order, then downloads from the
address in datasets/sources.json. A file with another sha256 than the recorded one is refused and not
stored.

python -m perspective.data.fetching banking77 mtop_domain
"""

from __future__ import annotations

import argparse
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from perspective.artifacts import ROOT, atomic_path, display_path, hash_file, read_json
from perspective.cli import entry_point
from perspective.data.corpus import DATASETS
from perspective.errors import DataError, suggest_name

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30
NOTHING_REACHED = 3  # exit code, for scripts


class UnreachableError(DataError):
    """A data set is not on this machine and cannot be downloaded."""


def fetch_dataset(name: str, folder: Path = DATASETS) -> Path:
    """Return the path of a data set's small.jsonl, fetching it if necessary.

    Raises:
        UnreachableError: It is not on this machine and the download fails.
        DataError: Unknown name, or a file with a wrong checksum.
    """
    target = folder / name / "small.jsonl"
    if name == "demo":
        return target
    sources = read_json(DATASETS / "sources.json")
    if name not in sources:
        raise DataError(f'unknown data set "{name}": {suggest_name(name, [*sources, "demo", "all"])}')
    expected = sources[name]["sha256"]
    if target.exists():
        _check(target, expected, hint="remove it and fetch it again")
        logger.info("%s: already there, checksum correct", display_path(target))
        return target
    for place in _local_places():
        candidate = place / name / "small.jsonl"
        if candidate.is_file():
            _check(candidate, expected, hint="remove it there, or unset EMBWITHLLM_DATASETS")
            with atomic_path(target) as temporary:
                shutil.copyfile(candidate, temporary)
            logger.info("%s: copied from %s", display_path(target), candidate)
            return target
    _download(sources[name]["url"], target, expected)
    return target


def _local_places() -> list[Path]:
    named = os.environ.get("EMBWITHLLM_DATASETS")
    return [*([Path(named)] if named else []), ROOT.parent / "shared" / "datasets"]


def _download(url: str, target: Path, expected: str) -> None:
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            atomic_path(target) as temporary,
        ):
            with temporary.open("wb") as file:
                shutil.copyfileobj(response, file)
                wanted = response.headers["Content-Length"]
                if wanted is not None and file.tell() != int(wanted):
                    raise ConnectionError(f"{file.tell()} of {wanted} bytes came")
            _check(temporary, expected, hint=f"{url} has changed", name=target)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        # The folder was created for this file only.
        if target.parent.is_dir() and not any(target.parent.iterdir()):
            target.parent.rmdir()
        raise UnreachableError(
            f"{target.parent.name}: not on this machine, and {url} cannot be reached "
            f"({getattr(error, 'reason', error)}); put it into a folder and set EMBWITHLLM_DATASETS to that folder"
        ) from None
    logger.info("%s: downloaded, checksum correct", display_path(target))


def _check(path: Path, expected: str, hint: str, name: Path | None = None) -> None:
    found = hash_file(path)
    if found != expected:
        raise DataError(f"{name or path}: sha256 {found[:12]}... differs from the released {expected[:12]}...; {hint}")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Fetch the given data sets, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["all"], help="data sets to fetch; all by default")
    parser.add_argument("--or_demo", action="store_true", help="exit with code 3 if no data set can be reached")
    arguments = parser.parse_args(argv)
    names = read_json(DATASETS / "sources.json") if "all" in arguments.names else arguments.names
    unreachable = []
    for name in names:
        try:
            fetch_dataset(name)
        except UnreachableError as error:
            unreachable.append(error)
    if not unreachable:
        return
    if not arguments.or_demo or len(unreachable) < len(names):
        raise unreachable[0]
    logger.warning("%s", unreachable[0])
    raise SystemExit(NOTHING_REACHED)


if __name__ == "__main__":
    main()
