"""Labels of a data set. They exist to measure: nothing that learns or decides may import this module."""

from __future__ import annotations

from typing import Any

import numpy as np

from perspective.data.corpus import CorpusSettings, read_column
from perspective.errors import DataError


def load_labels(settings: CorpusSettings) -> list[str] | None:
    """Read the labels, or None where the data set has none.

    For measuring and analysis only: nothing that learns or decides may call this.

    Raises:
        DataError: Some lines have a label and others have none, one has several, or all have the same.
    """
    path = settings.path
    rows = list(read_column(path, settings.label_column, required=False))
    several = next((place for place, value in rows if isinstance(value, list | dict | np.ndarray)), None)
    if several:
        raise DataError(f'{several}: "{settings.label_column}" is no single label; take another --label_column')
    missing = [place for place, value in rows if _is_missing(value)]
    if len(missing) == len(rows):
        return None
    if missing:
        raise DataError(
            f'{missing[0]}: no "{settings.label_column}", but other lines have one ({len(missing)} missing)'
        )
    labels = [str(value) for _, value in rows]
    if len(set(labels)) == 1:
        raise DataError(
            f'{path}: every "{settings.label_column}" is "{labels[0]:.40}", which measures nothing; '
            "take another --label_column"
        )
    return labels


def _is_missing(value: Any) -> bool:  # noqa: ANN401
    """Tell whether a label is none: null, blank, or the NaN that pandas writes into jsonl."""
    return value is None or value != value or not str(value).strip()
