"""Draw a random sample of a data set, to adapt the embedder on fewer texts than are embedded in the end.

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path
Writes: datasets/<dataset>_n=<adapt_on>/<scale>.jsonl, a data set of its own with each text's "row" in the
        whole; its name to standard output

python -m perspective.data.sample --dataset banking77 --adapt_on 1000
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perspective.artifacts import Output
from perspective.artifacts.jsonl import write_jsonl
from perspective.artifacts.names import name_sample
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import DATASETS, CorpusSettings, load_texts, read_column
from perspective.errors import DataError, require_least
from perspective.options import OverwriteOptions, option
from perspective.vectors import sample_rows

SEED = 0


@dataclass(frozen=True)
class TextSampleSettings(OverwriteOptions):
    """Which sample is drawn."""

    adapt_on: int = option("number of texts", default=20_000)
    label_column: str = option("field or column of the label, copied if there is one", default="label", group="input")

    def __post_init__(self) -> None:
        """Check the number."""
        require_least(self, adapt_on=2)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Draw and write."""
    corpus, settings = parse_settings((CorpusSettings, TextSampleSettings), argv, __doc__)
    name = name_sample(corpus.dataset, settings.adapt_on)
    made_from = {"adapt_on": settings.adapt_on, "seed": SEED, "text_column": corpus.text_column}
    made_from["label_column"] = settings.label_column
    output = Output(DATASETS / name / f"{corpus.scale}.jsonl", "texts", made_from, {"texts": corpus.path})
    if not output.is_finished(settings.overwrite):
        texts = load_texts(corpus)
        if settings.adapt_on >= len(texts):
            raise DataError(
                f"--adapt_on {settings.adapt_on}: {corpus.path} has {len(texts)} texts; leave the option out"
            )
        labels = read_column(corpus.path, settings.label_column, required=False)
        if settings.label_column != "label" and all(label is None for _, label in labels):
            raise DataError(f'{corpus.path}: no text has a value in "{settings.label_column}"; see --label_column')
        records = []
        for row in sample_rows(len(texts), settings.adapt_on, SEED).tolist():
            place, label = labels[row]
            if isinstance(label, list | dict | np.ndarray):
                raise DataError(f"{place}: the label {label!r:.60} is no single label; give another --label_column")
            if not isinstance(label, str | int | float | None):
                label = str(label)  # a date or a decimal number of a parquet file
            records.append(
                {"task": name, "input": texts[row], **({} if label is None else {"label": label}), "row": row}
            )
        output.facts |= {"n_texts": len(records), "n_texts_of_whole": len(texts)}
        with output.open() as temporary:
            write_jsonl(temporary, records)
    sys.stdout.buffer.write(f"{name}\n".encode())


if __name__ == "__main__":
    main()
