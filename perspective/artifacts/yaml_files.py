"""Errors of YAML files that people write by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from perspective.errors import DataError


@contextmanager
def explain_yaml(path: Path, hint: str, what: str = "") -> Iterator[None]:
    """Turn the errors of reading and parsing a YAML file into one line with its place.

    Args:
        path: The file, for the message.
        hint: How the file should look.
        what: Put before the parser's message.

    Raises:
        DataError: The file is not UTF-8, or not YAML.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise DataError(f"{path}:{line}: {what}{error.problem or error.context}; {hint}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: not YAML ({str(error):.160}); {hint}") from None
