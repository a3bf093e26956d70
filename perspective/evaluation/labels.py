"""Labels of a data set, for measuring: nothing that learns or decides may import this module."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perspective.artifacts.jsonl import is_blank
from perspective.data.corpus import CorpusSettings, read_column
from perspective.errors import DataError
from perspective.options import option

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelOptions:
    """Which column holds the labels."""

    label_column: str = option("field or column that holds the label, if there is one", default="label", group="input")

    def made_from(self) -> dict[str, str]:
        """Return what changes gold answers: nothing by default, as in files from before the column was recorded."""
        return {} if self.label_column == LabelOptions.label_column else {"label_column": self.label_column}


Labels = Sequence[str | None]  # one a text; None where a text has none


def load_labels(corpus: CorpusSettings, column: str = "label") -> list[str | None] | None:
    """Read the labels, or None where the data set has none to measure by.

    Args:
        corpus: The data set.
        column: Field or column that holds the label.

    Returns:
        A label for each text, None for the texts without one. None in all where no text has a label,
        all labels are the same, or no label is given twice (a column of ids); the last two with a warning.

    Raises:
        DataError: A text has several labels, or a column that is not the default holds none.
    """
    rows = read_column(corpus.path, column, required=False)
    several = next((place for place, value in rows if isinstance(value, list | dict | np.ndarray)), None)
    if several:
        raise DataError(f'{several}: "{column}" is no single label; take another --label_column')
    labels = [None if _is_missing(value) else str(value) for _, value in rows]
    given = [label for label in labels if label is not None]
    if not given and column != LabelOptions.label_column:
        raise DataError(f'{corpus.path}: no text has a value in "{column}"; see --label_column')
    if not given:
        return None
    n_classes = len(set(given))
    if n_classes in (1, len(given)):
        found = "all the same" if n_classes == 1 else "all different, as ids are"
        logger.warning(
            '%s: the %d values of "%s" are %s; measured as texts without labels (or take another --label_column)',
            corpus.path.name,
            len(given),
            column,
            found,
        )
        return None
    return labels


def require_labels(corpus: CorpusSettings) -> list[str | None]:
    """Read the labels of a study's data set, see `load_labels`.

    Raises:
        DataError: There are none.
    """
    labels = load_labels(corpus)
    if labels is None:
        raise DataError(f"{corpus.path}: the study needs labels to measure with")
    return labels


def find_labelled(labels: Labels) -> np.ndarray:
    """Return the rows of the texts that have a label, `(n_labelled,)`.

    >>> find_labelled(["a", None, "b"])
    array([0, 2])
    """
    return np.flatnonzero([label is not None for label in labels])


def _is_missing(value: Any) -> bool:  # noqa: ANN401
    """Tell whether a label is none: null, blank, or the NaN that pandas writes into jsonl."""
    return value is None or value != value or is_blank(str(value))
