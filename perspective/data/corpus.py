"""Texts of a data set. Their labels are read elsewhere, by `perspective.evaluation.labels`."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perspective.artifacts import ROOT, display_path, read_json
from perspective.artifacts.jsonl import check_text, read_field, read_jsonl
from perspective.errors import DataError, suggest_name
from perspective.options import DatasetOptions, option

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)
Item = TypeVar("Item")

DATASETS = ROOT / "datasets"


@dataclass(frozen=True)
class CorpusSettings(DatasetOptions):
    """Which file holds the texts."""

    data_path: str | None = option(
        "your own texts: .jsonl, .csv or .parquet; default datasets/<dataset>/<scale>.jsonl",
        default=None,
        group="input",
    )
    text_column: str = option("field or column that holds the text", default="input", group="input")

    def made_from(self) -> dict[str, str]:
        """Return the column for a fingerprint; nothing for the default, so that earlier files stay valid."""
        return {} if self.text_column == CorpusSettings.text_column else {"text_column": self.text_column}

    @property
    def path(self) -> Path:
        """The file of texts.

        Raises:
            DataError: There is no such file.
        """
        path = Path(self.data_path) if self.data_path else DATASETS / self.dataset / f"{self.scale}.jsonl"
        if path.is_file():
            return path
        if self.data_path:
            raise DataError(f"{path}: no such file")
        if self.scale != "small":
            raise DataError(f"{path}: no such file; only the scale small can be fetched, give others with --data_path")
        known = known_datasets()
        if self.dataset in known:
            raise DataError(f"{path}: not fetched yet; run: bash scripts/fetch_datasets.sh {self.dataset}")
        raise DataError(
            f'unknown data set "{self.dataset}": {suggest_name(self.dataset, known)} '
            "(for your own texts add --data_path FILE)"
        )


def known_datasets() -> list[str]:
    """Return the names of the data sets that can be fetched, and of the demo."""
    return [*read_json(DATASETS / "sources.json"), "demo"]


def load_texts(settings: CorpusSettings) -> list[str]:
    """Read the texts, in file order; row i of every other file of a run belongs to text i.

    Raises:
        DataError: Names file, line and fault: bad JSON, a missing field, a text that is empty or not a
            string, fewer than two texts.
    """
    path = settings.path
    texts = read_texts(path, settings.text_column)
    if len(texts) < 2:
        raise DataError(f"{path}: {len(texts)} text; clustering needs at least two")
    n_duplicates = len(texts) - len(set(texts))
    if n_duplicates:
        logger.info("%s: %d texts, %d of them duplicates (kept)", path.name, len(texts), n_duplicates)
    return texts


def read_texts(path: Path, column: str) -> list[str]:
    """Read the texts of a file, in its order.

    Raises:
        DataError: Names file, line and fault: bad JSON, a missing field, a text that is empty or not a string.
    """
    return [check_text(value, column, place) for place, value in read_column(path, column, required=True)]


def read_column(path: Path, column: str, required: bool) -> Sequence[tuple[str, Any]]:
    """Return (place for messages, value) of one field of every line; None if the field is absent."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return _read_jsonl_column(path, column, required)
    if suffix in (".csv", ".parquet"):
        return _read_table_column(path, column, required)
    raise DataError(f'{path}: cannot read "{suffix}"; give .jsonl, .csv or .parquet')


def _read_jsonl_column(path: Path, column: str, required: bool) -> list[tuple[str, Any]]:
    values = [
        (place, read_field(record, column, place) if required else record.get(column))
        for place, record in read_jsonl(path)
    ]
    if not values:
        raise DataError(f"{path}: the file is empty")
    return values


def _read_table_column(path: Path, column: str, required: bool) -> list[tuple[str, Any]]:
    import pandas as pd
    import pyarrow.parquet as pq

    try:
        # "NA" and "null" are texts, not missing values.
        with warnings.catch_warnings():
            # A row with too many commas (a text without quotes) must not lose a part of its text.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            if path.suffix.lower() == ".csv":
                table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
                names = table.columns.tolist()
                if len(names) == 1:  # an empty cell is an empty line, and rows must keep their numbers
                    table = _read_lines(path, table)
            else:  # a column of vectors would take gigabytes
                names = pq.read_schema(path).names
                wanted = [column] if column in names else names[:1]
                table = pq.read_table(path, columns=wanted).to_pandas(ignore_metadata=True)  # an index is a column
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path}: rows hold more fields than the header; separate columns by commas, and put texts with commas in "
            "quotes"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except Exception as error:  # pandas raises a different type for each kind of damage
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from None
    if table.empty:
        raise DataError(f"{path}: the file is empty")
    if column not in table.columns:
        if required:
            raise DataError(f'{path}: no column "{column}" (found: {", ".join(map(str, names))})')
        values = [None] * len(table)
    else:
        values = table[column].astype(object).where(table[column].notna(), None)
    shown = display_path(path)
    return [(f"{shown}: row {i}", value) for i, value in enumerate(values, start=1)]


def _read_lines(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of one column with its empty cells, which pandas takes for no rows; not those at its end."""
    import pandas as pd

    lines = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, header=None, names=["lines"])
    lines = lines["lines"]
    first, last = (lines != "").to_numpy().nonzero()[0][[0, -1]]  # the header, and the last text
    return pd.DataFrame({table.columns[0]: lines[first + 1 : last + 1].tolist()})


def sample_in_order(items: Sequence[Item], n: int | None, seed: int) -> list[Item]:
    """Return a random sample of at most n items (all, if n is None), in their order."""
    if n is None or n >= len(items):
        return list(items)
    return [items[row] for row in sorted(random.Random(seed).sample(range(len(items)), n))]
