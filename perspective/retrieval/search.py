"""Search: exact dense search, BM25, their fusion, and reranking.

All rank by descending float32 score, and ties by descending document id, as trec_eval does. Equal
scores give equal rankings, independent of chunk sizes and device.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from perspective.data.mteb_tasks import REQUIREMENTS
from perspective.errors import DataError
from perspective.reranking.loading import Reranker, score_texts

DOCUMENTS_AT_A_TIME = 16_384
QUERIES_AT_A_TIME = 256
RRF_K = 60  # Cormack, Clarke and Buettcher (2009)

# Korean attaches particles to words, Japanese and Chinese have no spaces between words: Lucene's CJK analyzer
# indexes character bigrams.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
# `re` does not count marks as word characters, but they are parts of words: vowels of Hindi, combining accents.
MARKS = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code)).startswith("M"))
# The lookahead excludes characters below the first mark: matching the class of marks is slow.
TERMS = re.compile(rf"[{CJK}]+|[^\W{CJK}](?:[^\W{CJK}]|(?![\0-\u02ff])[{MARKS}])*")


@dataclass(frozen=True)
class Hits:
    """Rankings of several queries.

    Attributes:
        rows: int64 array `(n_queries, depth)`: rows of documents, best first; -1 after the end of
            a ranking.
        scores: float32 array of the same shape; -inf after the end of a ranking.
    """

    rows: np.ndarray
    scores: np.ndarray

    def drop(self, rows: np.ndarray) -> Hits:
        """Return the rankings without one document of each query, `(n_queries,)`; -1 drops none."""
        return self.drop_places(self.rows == rows[:, None])

    def drop_places(self, is_dropped: np.ndarray) -> Hits:
        """Return the rankings without some of their places, boolean `(n_queries, depth)`."""
        is_dropped = is_dropped & (self.rows >= 0)
        order = np.argsort(is_dropped, axis=1, kind="stable")  # moves dropped documents to the end
        return Hits(
            np.take_along_axis(np.where(is_dropped, -1, self.rows), order, axis=1),
            np.take_along_axis(np.where(is_dropped, -np.inf, self.scores), order, axis=1),
        )


def search_dense(
    queries: np.ndarray, documents: np.ndarray, document_ids: Sequence[str], depth: int, device: str = "cpu"
) -> Hits:
    """Find the documents with the highest inner products, by exhaustive search.

    Documents are processed in chunks and only the best `depth` of each query are kept, so memory is
    not proportional to queries times documents; `documents` may be a memory map.

    Args:
        queries: float32 array `(n_queries, dim)`; normalised for the cosine.
        documents: float32 array `(n_documents, dim)`.
        document_ids: Their ids, to break ties.
        depth: Maximum number of documents to keep.
        device: Device of the products.
    """
    depth = min(depth, len(documents))
    tie_ranks = rank_ids(document_ids)
    best = torch.empty((len(queries), 0), dtype=torch.int64)
    for start in tqdm(range(0, len(documents), DOCUMENTS_AT_A_TIME), desc="search", leave=False):
        chunk = torch.from_numpy(np.array(documents[start : start + DOCUMENTS_AT_A_TIME])).to(device)
        ranks = tie_ranks[start : start + DOCUMENTS_AT_A_TIME]
        found = []
        for first in range(0, len(queries), QUERIES_AT_A_TIME):
            part = slice(first, first + QUERIES_AT_A_TIME)
            scores = (torch.from_numpy(queries[part]).to(device) @ chunk.T).cpu()
            keys = torch.cat([best[part], make_keys(scores, ranks)], dim=1)
            found.append(keys.topk(min(depth, keys.shape[1]), dim=1).values)
        best = torch.cat(found)
    return read_keys(best, tie_ranks)


def search_bm25(queries: Sequence[str], documents: Sequence[str], document_ids: Sequence[str], depth: int) -> Hits:
    """Rank by BM25 (Lucene's variant, k1 1.5, b 0.75); documents without a term of the query are not found.

    Raises:
        DataError: bm25s is not installed.
    """
    if importlib.util.find_spec("bm25s") is None:
        raise DataError(f"BM25 needs the package bm25s; run: pip install -r {REQUIREMENTS}")
    import bm25s

    depth = min(depth, len(documents))
    tie_ranks = rank_ids(document_ids)
    terms_by_document = [split_terms(text) for text in documents]
    if not any(terms_by_document):  # bm25s cannot index an empty vocabulary
        return Hits(np.full((len(queries), depth), -1), np.full((len(queries), depth), -np.inf, dtype=np.float32))
    index = bm25s.BM25(method="lucene")
    index.index(terms_by_document, show_progress=False)
    keys = torch.empty((len(queries), depth), dtype=torch.int64)
    for row, text in enumerate(tqdm(queries, desc="BM25", leave=False)):
        terms = [term for term in split_terms(text) if term in index.vocab_dict]
        scores = torch.zeros(len(documents))
        if terms:
            scores = torch.from_numpy(np.asarray(index.get_scores(terms), dtype=np.float32))
        keys[row] = make_keys(scores[None], tie_ranks).topk(depth, dim=1).values[0]
    return end_at(read_keys(keys, tie_ranks), 0)


def split_terms(text: str) -> list[str]:
    """Return a text's terms for BM25: lower-case words, and character bigrams in CJK scripts.

    The text is normalised first (Unicode NFKC).

    >>> split_terms("Set n_jobs=2"), split_terms("검색 모델은")
    (['set', 'n_jobs', '2'], ['검색', '모델', '델은'])
    """
    terms = []
    for word in TERMS.findall(unicodedata.normalize("NFKC", text).lower()):
        if len(word) > 2 and re.match(f"[{CJK}]", word):
            terms += [word[i : i + 2] for i in range(len(word) - 1)]
        else:
            terms.append(word)
    return terms


def fuse_rankings(rankings: Sequence[Hits], document_ids: Sequence[str], depth: int) -> Hits:
    """Fuse rankings by reciprocal rank (Cormack et al., 2009): the sum of 1 / (60 + rank)."""
    n_queries, n_documents = len(rankings[0].rows), len(document_ids)
    queries = np.arange(n_queries)[:, None]
    found, shares = [], []
    for hits in rankings:
        is_hit = hits.rows >= 0
        found.append((queries * n_documents + hits.rows)[is_hit])
        shares.append(np.broadcast_to(1 / (RRF_K + 1 + np.arange(hits.rows.shape[1])), hits.rows.shape)[is_hit])
    pairs, places = np.unique(np.concatenate(found), return_inverse=True)
    scores = np.bincount(places, weights=np.concatenate(shares)).astype(np.float32)
    return sort_pairs(pairs, scores, n_queries, document_ids, depth)


def rerank(
    reranker: Reranker,
    hits: Hits,
    n_reranked: int,
    queries: Sequence[str],
    documents: Sequence[str],
    document_ids: Sequence[str],
    batch_size: int | None = None,
) -> Hits:
    """Rank the first documents of each ranking by the reranker's scores; drop the others.

    Args:
        reranker: As `load_reranker` returns it.
        hits: The rankings of the first stage.
        n_reranked: Documents of each ranking to read.
        queries: Their texts.
        documents: The texts of the corpus.
        document_ids: Their ids, to break ties.
        batch_size: Pairs at a time; chosen by the device when None.

    Raises:
        ModelError: The reranker gives something else than one finite number a pair.
    """
    rows = hits.rows[:, :n_reranked]
    query_rows, places = np.nonzero(rows >= 0)
    document_rows = rows[query_rows, places]
    pairs = [(queries[int(query)], documents[int(row)]) for query, row in zip(query_rows, document_rows, strict=True)]
    scores = score_texts(reranker, pairs, batch_size)
    keys = query_rows * len(documents) + document_rows
    return sort_pairs(keys, scores, len(queries), document_ids, n_reranked)


# order


def rank_ids(ids: Sequence[str]) -> torch.Tensor:
    """Return the rank of each id in ascending order: of equal scores, the higher rank comes first."""
    ranks = torch.empty(len(ids), dtype=torch.int64)
    ranks[torch.tensor(sorted(range(len(ids)), key=ids.__getitem__), dtype=torch.int64)] = torch.arange(len(ids))
    return ranks


def make_keys(scores: torch.Tensor, tie_ranks: torch.Tensor) -> torch.Tensor:
    """Return integers that sort as (score, rank of the id): float bits in the high half, rank in the low half."""
    bits = (scores.float() + 0.0).view(torch.int32).to(torch.int64)  # + 0.0 makes -0.0 equal to 0.0
    ordered = torch.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)
    return (ordered << 32) + tie_ranks


def read_keys(keys: torch.Tensor, tie_ranks: torch.Tensor) -> Hits:
    """Return rows and scores of keys from `make_keys`, in their order."""
    ordered = keys >> 32
    bits = torch.where(ordered < 0, (-ordered - 1) | 0x80000000, ordered)
    scores = torch.where(bits >= 0x80000000, bits - 0x100000000, bits).to(torch.int32).view(torch.float32)
    return Hits(torch.argsort(tie_ranks)[keys & 0xFFFFFFFF].numpy(), scores.numpy())


def end_at(hits: Hits, score: float) -> Hits:
    """End each ranking before the first document that scores no more than `score`."""
    is_hit = hits.scores > score
    return Hits(np.where(is_hit, hits.rows, -1), np.where(is_hit, hits.scores, np.float32(-np.inf)))


def sort_pairs(pairs: np.ndarray, scores: np.ndarray, n_queries: int, document_ids: Sequence[str], depth: int) -> Hits:
    """Rank scored pairs, each `query row * n_documents + document row`."""
    queries, documents = np.divmod(pairs, len(document_ids))
    order = np.lexsort((-rank_ids(document_ids).numpy()[documents], -scores, queries))
    queries, documents, scores = queries[order], documents[order], scores[order]
    starts = np.searchsorted(queries, np.arange(n_queries))
    places = np.arange(len(queries)) - starts[queries]
    kept = places < depth
    hits = Hits(np.full((n_queries, depth), -1, dtype=np.int64), np.full((n_queries, depth), -np.inf, dtype=np.float32))
    hits.rows[queries[kept], places[kept]] = documents[kept]
    hits.scores[queries[kept], places[kept]] = scores[kept]
    return hits
