"""Retrieval collections to evaluate on: corpus, queries and relevance judgments (BEIR layout)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from perspective.artifacts import Output, atomic_path, discard_result, display_path
from perspective.artifacts.jsonl import check_text, is_blank, read_jsonl, read_text, write_jsonl
from perspective.errors import DataError

logger = logging.getLogger(__name__)

QRELS_FIELDS = ("query-id", "corpus-id", "score")
TEXT_FILES = ("corpus.jsonl", "queries.jsonl")
QRELS_PLACES = ("qrels.tsv", "qrels/test.tsv")  # ours, BEIR's
MAX_GRADE = 2**63 - 1  # the metrics hold grades as int64


@dataclass(frozen=True)
class Collection:
    """A corpus with judged queries.

    Attributes:
        name: Its name, also in file names.
        corpus: Text of each document by id.
        queries: Text of each query by id.
        qrels: Grade of each judged document, by query id and document id; above zero is relevant.
        origin: A folder, or mteb's data set; for the provenance.
        revision: Of mteb's data set; empty for a folder.
        split: The judged part; `split`, `subset` and `languages` are mteb's terms.
        skip_same_id: Never retrieve the document with the query's own id (ArguAna and similar sets).
    """

    name: str
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    origin: str = ""
    revision: str = ""
    split: str = "test"
    subset: str = "default"
    languages: tuple[str, ...] = ()
    skip_same_id: bool = False

    def __post_init__(self) -> None:
        """Check that the ids match.

        Raises:
            DataError: A judged query or document does not exist, or no query has a relevant document.
        """
        for query_id, grades in self.qrels.items():
            if query_id not in self.queries:
                raise DataError(f'{self.name}: the qrels name query "{query_id}", which is not among the queries')
            unknown = next((document_id for document_id in grades if document_id not in self.corpus), None)
            if unknown is not None:
                raise DataError(f'{self.name}: the qrels name document "{unknown}", which is not in the corpus')
        if not any(grade > 0 for grades in self.qrels.values() for grade in grades.values()):
            raise DataError(f"{self.name}: no query has a relevant document; there is nothing to evaluate")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what decides the scores; it does not depend on the folder."""
        digest = hashlib.sha256()
        for part in (self.corpus, self.queries, self.qrels, *(["skip_same_id"] if self.skip_same_id else [])):
            digest.update(json.dumps(part, sort_keys=True, default=dict).encode())
        return digest.hexdigest()


def keep_answerable(collection: Collection) -> Collection:
    """Remove the queries without a relevant document, for which no metric is defined; log how many."""
    answerable = {
        query_id for query_id, grades in collection.qrels.items() if any(grade > 0 for grade in grades.values())
    }
    n_left_out = len(collection.queries) - len(answerable)
    if not n_left_out:
        return collection
    logger.warning(
        "%s: %d of %d queries have no relevant document and are left out",
        collection.name,
        n_left_out,
        len(collection.queries),
    )
    queries = {key: text for key, text in collection.queries.items() if key in answerable}
    qrels = {key: grades for key, grades in collection.qrels.items() if key in answerable}
    return replace(collection, queries=queries, qrels=qrels)


def load_collection(folder: Path) -> Collection:
    """Read a folder in the BEIR layout: corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv.

    Title and text of a document are joined by a space. Queries without a relevant document are removed
    with a warning: BEIR's queries.jsonl also holds the queries of other splits. Empty documents are kept,
    as mteb does, and never found. Where queries are documents themselves, as in ArguAna, none finds itself.

    Raises:
        DataError: Names file, line and fault: bad JSON, an empty query, an id given
            twice, an unknown id in the qrels, a grade that is not a whole number or beyond `MAX_GRADE`.
    """
    folder = Path(folder).resolve()
    qrels_path = next((folder / place for place in QRELS_PLACES if (folder / place).is_file()), None)
    if qrels_path is None:
        raise DataError(f"{folder}: no {' or '.join(QRELS_PLACES)}; a collection has the BEIR layout")
    corpus = read_texts(folder / "corpus.jsonl", may_be_empty=True)
    queries, qrels = read_texts(folder / "queries.jsonl"), _read_qrels(qrels_path)
    collection = Collection(
        name=folder.name,
        corpus=corpus,
        queries=queries,
        qrels=qrels,
        origin=display_path(folder),
        split="test" if qrels_path.stem == "qrels" else qrels_path.stem,
        skip_same_id=_are_documents(queries, corpus, qrels),
    )
    n_empty = sum(not text for text in collection.corpus.values())
    if n_empty:
        logger.warning(
            "%s: %d of %d documents are empty; they are kept and never found", folder, n_empty, len(collection.corpus)
        )
    return keep_answerable(collection)


def _are_documents(
    queries: Mapping[str, str], corpus: Mapping[str, str], qrels: Mapping[str, Mapping[str, int]]
) -> bool:
    """Return whether queries are documents of the same id, for which they are not judged."""
    shared = queries.keys() & corpus.keys()
    is_judged = any(key in qrels.get(key, {}) for key in shared)
    return not is_judged and any(queries[key] in corpus[key] for key in shared)


def read_texts(path: Path, may_be_empty: bool = False) -> dict[str, str]:
    """Read corpus.jsonl or queries.jsonl: text by id, a document's title before its text.

    Args:
        path: The file.
        may_be_empty: Return a blank text as "" instead of refusing it.

    Raises:
        DataError: Names file, line and fault, as `load_collection`.
    """
    texts: dict[str, str] = {}
    for place, record in read_jsonl(path):
        key = _read_id(record, place)
        if key in texts:
            raise DataError(f'{place}: id "{key}" is given twice; ids must differ')
        title, text = str(record.get("title") or "").strip(), record.get("text")
        if (
            may_be_empty
            and not title
            and "text" in record
            and (text is None or (isinstance(text, str) and is_blank(text)))
        ):
            texts[key] = ""
        elif not title:
            texts[key] = read_text(record, "text", place)
        else:  # a document may consist of its title
            texts[key] = check_text(f"{title} {text or ''}".strip(), "text", place)
    if not texts:
        raise DataError(f"{path}: the file is empty")
    return texts


def is_collection_finished(output: Output, overwrite: bool) -> bool:
    """Return whether `save_collection` wrote all files of a collection, from the same settings."""
    return all(output.path.with_name(name).is_file() for name in TEXT_FILES) and output.is_finished(overwrite)


def save_collection(output: Output, collection: Collection) -> None:
    """Write corpus.jsonl and queries.jsonl, then the qrels.tsv of `output`, which says that all three are there."""
    discard_result(output.path)
    for name, texts in zip(TEXT_FILES, (collection.corpus, collection.queries), strict=True):
        with atomic_path(output.path.with_name(name)) as temporary:
            write_jsonl(temporary, ({"_id": key, "text": text} for key, text in texts.items()))
    output.facts |= {"n_queries": len(collection.queries), "n_documents": len(collection.corpus)}
    with output.open() as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("\t".join(QRELS_FIELDS) + "\n")
        for query_id, grades in collection.qrels.items():
            file.writelines(f"{query_id}\t{document_id}\t{grade}\n" for document_id, grade in grades.items())


def _read_id(record: Mapping[str, Any], place: str) -> str:
    key = record.get("_id", record.get("id"))
    if isinstance(key, bool) or not isinstance(key, str | int) or not str(key):
        raise DataError(f'{place}: no "_id" (found: {", ".join(sorted(map(str, record))) or "none"})')
    return str(key)


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for place, (query_id, document_id, grade) in _read_rows(path):
        grades = qrels.setdefault(query_id, {})
        if document_id in grades:
            raise DataError(f'{place}: query "{query_id}" and document "{document_id}" are judged twice')
        try:
            grades[document_id] = int(grade)
        except ValueError:
            raise DataError(f"{place}: grade {grade!r:.40} is not a whole number") from None
        if abs(grades[document_id]) > MAX_GRADE:
            raise DataError(f"{place}: grade {grade:.40} is too large; at most {MAX_GRADE}")
    return qrels


def _read_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    shown = display_path(path)
    for number, line in enumerate(lines, start=1):
        row = line.rstrip("\r").split("\t")
        if row == [""] or (number == 1 and row[0] == QRELS_FIELDS[0]):
            continue
        place = f"{shown}:{number}"
        if len(row) != len(QRELS_FIELDS):
            raise DataError(f"{place}: {len(row)} fields; expected {', '.join(QRELS_FIELDS)}, separated by tabs")
        yield place, row
