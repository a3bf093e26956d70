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


def require_known(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise DataError if one of the names given for an option is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            raise DataError(f'--{option} "{name}": {suggest_name(name, known)}')


def require_least(settings: object, **limits: int) -> None:
    """Raise DataError if a setting is below its limit; settings may be None."""
    for name, least in limits.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise DataError(f"--{name} {value}: must be at least {least}")


def require_above_zero(settings: object, *names: str) -> None:
    """Raise DataError if a setting is 0, below, or NaN; settings may be None."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise DataError(f"--{name} {value}: must be above 0")
