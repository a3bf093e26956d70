"""Create a retrieval set from the docstrings of installed packages: training pairs and a test collection.

Reads:  the source files of the packages named by --train_packages and --test_packages
Writes: datasets/docstrings/: train.jsonl, corpus.jsonl, queries.jsonl, qrels.tsv, and the
        provenance with package versions in train.jsonl.meta.json and qrels.tsv.meta.json

python -m perspective.6_retrieval.make_docs_set
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from perspective.artifacts import Output, display_path
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import QRELS_PLACES, is_collection_finished, save_collection
from perspective.data.corpus import DATASETS
from perspective.data.docstrings import NAME, DocsSettings, make_docs_set
from perspective.data.pairs import save_pairs
from perspective.options import OutputOptions

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Create the set."""
    settings, files = parse_settings((DocsSettings, OutputOptions), argv, __doc__)
    folder = files.folder or DATASETS / NAME
    train = Output(folder / "train.jsonl", "pairs", settings.made_from())
    qrels = Output(folder / QRELS_PLACES[0], "collection", settings.made_from())
    if train.is_finished(files.overwrite) and is_collection_finished(qrels, files.overwrite):
        return
    pairs, collection = make_docs_set(settings)
    save_collection(qrels, collection)
    save_pairs(train, pairs)
    logger.info(
        "%s: %d pairs to train on, %d queries and %d documents to test on",
        display_path(folder),
        len(pairs),
        len(collection.queries),
        len(collection.corpus),
    )


if __name__ == "__main__":
    main()
