"""Index the documents of a collection for the three ways of an embedder with M3's heads.

Reads:  a collection, as evaluate
Writes: indexes/<collection>_<embedder>/: dense vectors, lexical weights and token vectors as plain .npy arrays;
        <folder>.partial/ until it is complete, from which a killed run resumes

python -m perspective.6_retrieval.index --collection docstrings --embedder perspective/6_retrieval/checkpoints/FOLDER
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import display_path
from perspective.cli import entry_point, parse_settings
from perspective.data.mteb_tasks import find_collection
from perspective.options import OutputOptions, option
from perspective.retrieval.layout import index_path
from perspective.retrieval.settings import IndexSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectionOptions:
    """The collection."""

    collection: str = option("a folder, a name in datasets/, or a retrieval task of mteb", group="input")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Index."""
    files, settings, out = parse_settings((CollectionOptions, IndexSettings, OutputOptions), argv, __doc__)
    collection = find_collection(files.collection)
    path = index_path(collection.name, settings.embedder, out.folder)
    from perspective.hybrid.evaluation import index_collection

    index = index_collection(collection, settings, path=Path(path), overwrite=out.overwrite)
    logger.info(
        "%s: %d documents, %.1f weights and %.1f token vectors each",
        display_path(path),
        len(index),
        index.lexical.nnz / len(index),
        len(index.vectors) / len(index),
    )


if __name__ == "__main__":
    main()
