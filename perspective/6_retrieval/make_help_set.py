"""Create retrieval sets from help pages in Korean and English, or other languages: titles find their pages.

Reads:  Debian's packages gnome-user-docs and libreoffice-help-*, downloaded by apt-get into a
        temporary folder and not installed
Writes: datasets/gnome-help-ko/, gnome-help-en/ and gnome-help-ko-en/ (Korean titles, English pages):
        corpus.jsonl, queries.jsonl, qrels.tsv; datasets/libreoffice-help-ko/ and
        libreoffice-help-en-us/: train.jsonl; the packages' versions in the .meta.json files

python -m perspective.6_retrieval.make_help_set
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from perspective.artifacts import Output, display_path
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import QRELS_PLACES, is_collection_finished, save_collection
from perspective.data.corpus import DATASETS
from perspective.data.debian import unpack_packages
from perspective.data.help_pages import GNOME_PACKAGE, HelpSettings, make_collections, make_pair_sets
from perspective.data.pairs import save_pairs
from perspective.options import OutputOptions

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Create the sets."""
    settings, files = parse_settings((HelpSettings, OutputOptions), argv, __doc__)
    folder = files.folder or DATASETS
    made_from = settings.made_from()
    tests = {
        name: Output(folder / name / QRELS_PLACES[0], "collection", made_from) for name, *_ in settings.collections
    }
    trains = {name: Output(folder / name / "train.jsonl", "pairs", made_from) for name in settings.pair_sets}
    finished = [is_collection_finished(output, files.overwrite) for output in tests.values()]
    if all([*finished, *(output.is_finished(files.overwrite) for output in trains.values())]):
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        versions = unpack_packages([GNOME_PACKAGE, *trains], root)
        collections, pair_sets = make_collections(root, settings), make_pair_sets(root, settings)
    for collection in collections:
        output = tests[collection.name]
        output.facts |= {"packages": {GNOME_PACKAGE: versions[GNOME_PACKAGE]}, "license": "CC-BY-SA-3.0"}
        save_collection(output, collection)
    for name, pairs in pair_sets.items():
        trains[name].facts |= {"packages": {name: versions[name]}, "license": "MPL-2.0"}
        save_pairs(trains[name], pairs)
    logger.info(
        "%s: %d queries and %d documents a collection; %d training pairs a language",
        *(display_path(folder), len(collections[0].queries), len(collections[0].corpus), len(pairs)),
    )


if __name__ == "__main__":
    main()
