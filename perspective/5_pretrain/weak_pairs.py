"""Make weak training pairs of documents: a heading finds its passage, or a first sentence the rest of it.

E5 (Wang et al., 2022, section 3.1) begins with such pairs, of the whole web, and keeps those whose document an embedder
finds again among a random pool: `mine_negatives --keep_top_k 2` of stage 6 does that.

Reads:  --documents_path: a folder of .txt and .md files, or a .jsonl, .csv or .parquet file with a document a row
Writes: weak_pairs/<dataset>/corpus.jsonl, the documents cut into passages, and pairs.jsonl, without near-duplicates

python -m perspective.5_pretrain.weak_pairs --dataset notes --documents_path ~/notes
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perspective.artifacts import ROOT, Output, hash_texts
from perspective.cli import entry_point, parse_settings
from perspective.data.documents import PassageSettings, make_title_pairs, read_passages, write_passages
from perspective.data.likeness import find_similar, keep_distinct
from perspective.data.pairs import save_pairs
from perspective.errors import DataError
from perspective.options import OutputOptions, RetrievalSetOptions, option

logger = logging.getLogger(__name__)

FOLDER = ROOT / "perspective" / "5_pretrain" / "weak_pairs"
N_WORDS, SAME_TEXT = 3, 0.8  # passages with 80% of their runs of three words in common are one


@dataclass(frozen=True)
class DocumentOptions:
    """The documents."""

    documents_path: str = option("your documents", group="input")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Make pairs."""
    kinds = (OutputOptions, RetrievalSetOptions, DocumentOptions, PassageSettings)
    files, data, documents, settings = parse_settings(kinds, argv, __doc__)
    folder = (files.folder or FOLDER) / data.dataset
    passages = read_passages(Path(documents.documents_path), settings)
    pairs = make_title_pairs(passages)
    if len(pairs) < 2:
        raise DataError(
            f"{documents.documents_path}: {len(pairs)} pair(s) from {len(passages)} passage(s); "
            "documents need headings, titles, or more than one sentence"
        )
    parts = hash_texts(part for one in passages for part in (one.id, one.title, one.text))  # titles are the queries
    made_from = {"passage_chars": settings.passage_chars, "texts": parts}
    corpus = Output(folder / "corpus.jsonl", "passages", made_from)
    if not corpus.is_finished(files.overwrite, quiet=True):
        write_passages(corpus, passages)
    output = Output(folder / "pairs.jsonl", "weak pairs", asdict(settings), {"corpus": corpus.path})
    if output.is_finished(files.overwrite):
        return
    texts = [pair.document for pair in pairs]
    is_kept = keep_distinct(find_similar(texts, texts, N_WORDS, SAME_TEXT))
    kept = [pair for pair, is_distinct in zip(pairs, is_kept, strict=True) if is_distinct]
    output.facts |= {"sources": Counter(pair.source for pair in kept), "n_near_duplicates": len(pairs) - len(kept)}
    save_pairs(output, kept)
    logger.info("%d pairs; %d near-duplicates are left out", len(kept), len(pairs) - len(kept))


if __name__ == "__main__":
    main()
