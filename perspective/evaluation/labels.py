"""Labels of a data set. They exist to measure: nothing that learns or decides may import this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from perspective.data.corpus import CorpusSettings, read_column
from perspective.errors import DataError
from perspective.options import option


@dataclass(frozen=True)
class LabelOptions:
    """Where the labels are."""

    label_column: str = option(
        "field or column that holds the label, where there is one", default="label", group="input"
    )


def load_labels(corpus: CorpusSettings, column: str = "label") -> list[str] | None:
    """Read the labels, or None where the data set has none.

    For measuring and analysis only: nothing that learns or decides may call this.

    Args:
        corpus: The data set.
        column: Field or column that holds the label.

    Raises:
        DataError: Some lines have a label and others have none, one has several, or all have the same.
    """
    path = corpus.path
    rows = list(read_column(path, column, required=False))
    several = next((place for place, value in rows if isinstance(value, list | dict | np.ndarray)), None)
    if several:
        raise DataError(f'{several}: "{column}" is no single label; take another --label_column')
    missing = [place for place, value in rows if _is_missing(value)]
    if len(missing) == len(rows):
        return None
    if missing:
        raise DataError(f'{missing[0]}: no "{column}", but other lines have one ({len(missing)} missing)')
    labels = [str(value) for _, value in rows]
    if len(set(labels)) == 1:
        raise DataError(
            f'{path}: every "{column}" is "{labels[0]:.40}", which measures nothing; take another --label_column'
        )
    return labels


def _is_missing(value: Any) -> bool:  # noqa: ANN401
    """Tell whether a label is none: null, blank, or the NaN that pandas writes into jsonl."""
    return value is None or value != value or not str(value).strip()
