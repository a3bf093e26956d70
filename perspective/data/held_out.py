"""Make two labelled held-out data sets, which no setting was chosen on, from texts available offline.

debian:  one-line descriptions of Debian's programs, labelled by section
modules: first sentences of installed packages' docstrings, labelled by module

Reads:  apt's package lists (after `apt-get update`); the sources of Python packages
Writes: datasets/debian/small.jsonl, datasets/modules/small.jsonl, with their provenance

python -m perspective.data.held_out --names debian modules
"""

from __future__ import annotations

import logging
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from perspective.artifacts import Output
from perspective.artifacts.jsonl import write_jsonl
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import DATASETS
from perspective.data.docstrings import find_version, read_package
from perspective.errors import DataError
from perspective.options import OverwriteOptions, option

logger = logging.getLogger(__name__)

# Sections that describe the purpose of a program; the others are languages or parts of the system.
SECTIONS = (
    *("admin", "comm", "database", "editors", "electronics", "fonts", "games", "graphics", "hamradio", "httpd"),
    *("kernel", "mail", "math", "net", "science", "sound", "tex", "text", "vcs", "video", "web", "education"),
)
NO_PROGRAM = re.compile("transitional|dummy|documentation|common files|metapackage|data files|debug", re.IGNORECASE)
FIELD = re.compile("^(Package|Section|Description(?:-en)?|Source): (.*)", re.MULTILINE)

PACKAGES = ("scipy", "sklearn", "numpy", "matplotlib", "pandas", "torch", "networkx", "sympy")

SEED = 0  # for sampling and shuffling the texts

Texts = dict[str, list[str]]  # by label


def read_sections() -> Texts:
    """Return the descriptions of Debian's programs by section, one per source package.

    Raises:
        DataError: This machine has no apt, or apt has no package lists.
    """
    try:
        listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise DataError("apt-cache: not found; the debian set needs Debian or Ubuntu") from None
    found = group_by_section(listing)
    if not found:
        raise DataError("apt-cache: lists no packages; run apt-get update first")
    return found


def group_by_section(listing: str) -> Texts:
    r"""Parse the output of `apt-cache dumpavail` into sorted descriptions by section.

    >>> group_by_section("Package: nano\nSection: editors\nDescription-en: small text editor\n")
    {'editors': ['small text editor']}
    """
    by_source: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in listing.split("\n\n"):
        fields: dict[str, str] = dict(FIELD.findall(entry))
        section = fields.get("Section", "").rpartition("/")[2]
        text = (fields.get("Description-en") or fields.get("Description") or "").strip()
        if section in SECTIONS and text and not NO_PROGRAM.search(text):
            by_source[section].setdefault(fields.get("Source", fields["Package"]).split()[0], text)
    return {name: sorted(set(by_source[name].values())) for name in SECTIONS if name in by_source}


def read_modules() -> Texts:
    """Return first sentences of docstrings by public second-level module, such as `scipy.stats`.

    Raises:
        DataError: A package is not installed.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for entry in read_package(package):
            parts = entry.key.split(".")
            if entry.summary and len(parts) > 2 and not parts[1].startswith("_"):
                found[".".join(parts[:2])].add(entry.summary)
    return {name: sorted(found[name]) for name in sorted(found)}


def draw_records(texts: Mapping[str, Sequence[str]], task: str, n_least: int, n_most: int) -> list[dict[str, str]]:
    """Sample up to `n_most` texts per label without duplicates and shuffle them.

    Args:
        texts: Texts by label.
        task: Name of the set.
        n_least: Minimum number of texts per label; smaller labels are dropped.
        n_most: Maximum number of texts per label.
    """
    rng = random.Random(SEED)
    seen: set[str] = set()
    records = []
    for label, of_label in texts.items():
        unseen = [text for text in of_label if text.lower() not in seen]
        if len(unseen) < n_least:
            continue
        rng.shuffle(unseen)
        seen.update(text.lower() for text in unseen[:n_most])
        records += [{"task": task, "input": text, "label": label} for text in unseen[:n_most]]
    rng.shuffle(records)
    return records


class HeldOutSet(NamedTuple):
    """Recipe of a set."""

    read: Callable[[], Texts]
    n_least: int  # minimum texts per label
    n_most: int


SETS = {"debian": HeldOutSet(read_sections, 1, 250), "modules": HeldOutSet(read_modules, 40, 100)}


@dataclass(frozen=True)
class HeldOutSettings(OverwriteOptions):
    """Sets to make."""

    names: list[Literal["debian", "modules"]] = option("sets to make", default=["debian", "modules"], group="input")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Make the sets."""
    settings = parse_settings(HeldOutSettings, argv, __doc__)
    for name in settings.names:
        made = SETS[name]
        versions = {package: find_version(package) for package in PACKAGES} if name == "modules" else {}
        output = Output(DATASETS / name / "small.jsonl", "texts", {"seed": SEED, **versions})
        if output.is_finished(settings.overwrite):
            continue
        records = draw_records(made.read(), name, made.n_least, made.n_most)
        with output.open() as temporary:
            write_jsonl(temporary, records)
        logger.info("%s: %d texts of %d classes", name, len(records), len({record["label"] for record in records}))


if __name__ == "__main__":
    main()
