"""User-facing errors.

Each message is one line with the place, the value found and what to do. `perspective.cli` prints it
and exits with code 2. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PerspectiveError(Exception):
    """Base of all errors that are shown as one line."""


class DataError(PerspectiveError):
    """A file, a text or a setting is invalid."""


class ModelError(PerspectiveError):
    """A model cannot be found, loaded or used."""


class NothingToSample(DataError):
    """No triplet can be sampled: the texts are too few or all alike."""


class JudgeError(PerspectiveError):
    """A judge cannot answer: no server, a rejected key, no recorded answers."""


def suggest_name(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known name, or all of them.

    >>> suggest_name("bankin77", ["banking77", "mtop_domain"])
    'did you mean banking77?'
    >>> suggest_name("x", ["banking77", "mtop_domain"])
    'known: banking77, mtop_domain'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
