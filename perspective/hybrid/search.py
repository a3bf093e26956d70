"""Search in three ways and by their sums. Ranking and ties as in `perspective.retrieval.search`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from tqdm import tqdm

from perspective.hybrid.encoding import EncodedTexts
from perspective.models.hybrid import Way, sum_scores
from perspective.retrieval.search import Hits, end_at, make_keys, rank_ids, read_keys, search_dense, sort_pairs

N_CANDIDATES = 200  # of the dense search, which token vectors rank again, as in the paper

HybridWay = Literal["dense", "sparse", "multi", "dense-sparse", "all"]
# The ways whose weighted scores are summed; the first stages whose hits are the candidates.
SUMMED: dict[HybridWay, tuple[tuple[Way, ...], tuple[Way, ...]]] = {
    "multi": (("multi",), ("dense",)),
    "dense-sparse": (("dense", "sparse"), ("dense", "sparse")),
    "all": (("dense", "sparse", "multi"), ("dense", "sparse")),
}
HYBRID_WAYS: tuple[HybridWay, ...] = get_args(HybridWay)


def search_hybrid(
    queries: EncodedTexts, documents: EncodedTexts, document_ids: Sequence[str], way: HybridWay, depth: int
) -> Hits:
    """Rank the documents for every query.

    "dense" and "sparse" search all documents. "multi" ranks the first `N_CANDIDATES` of the dense search
    again by the token vectors. "dense-sparse" and "all" rank the union of the first `N_CANDIDATES` of both
    by the weighted sum of the scores, each computed for every candidate.

    Args:
        queries: The queries.
        documents: The documents; their arrays may be memory maps.
        document_ids: Their ids, to break ties.
        way: What to rank by.
        depth: Maximum number of documents to keep.
    """
    first = {
        "dense": lambda n: search_dense(queries.dense, documents.dense, document_ids, n),
        "sparse": lambda n: search_sparse(queries.lexical, documents.inverted, document_ids, n),
    }
    if way in first:
        return first[way](depth)
    summed, stages = SUMMED[way]
    pairs = find_candidates([first[stage](max(depth, N_CANDIDATES)) for stage in stages], len(document_ids))
    scores = sum_scores(score_candidates(queries, documents, pairs, summed), summed)
    return sort_pairs(pairs, scores, len(queries), document_ids, depth)


def search_sparse(queries: csr_array, inverted: csr_array, document_ids: Sequence[str], depth: int) -> Hits:
    """Find the documents with the highest lexical scores; those that share no token with a query are not found.

    Args:
        queries: Weights by token, float32 `(n_queries, n_vocabulary)`.
        inverted: `EncodedTexts.inverted` of the documents, `(n_vocabulary, n_documents)`.
        document_ids: Their ids, to break ties.
        depth: Maximum number of documents to keep.
    """
    depth = min(depth, inverted.shape[1])
    tie_ranks = rank_ids(document_ids)
    keys = make_keys(torch.zeros(queries.shape[0], depth), torch.tensor(0))
    for row in tqdm(range(queries.shape[0]), desc="sparse search", leave=False):
        scores = np.zeros(inverted.shape[1], dtype=np.float32)
        of_query = slice(queries.indptr[row], queries.indptr[row + 1])
        for token, weight in zip(queries.indices[of_query], queries.data[of_query], strict=True):
            of_token = slice(inverted.indptr[token], inverted.indptr[token + 1])
            scores[inverted.indices[of_token]] += weight * inverted.data[of_token]  # no document is there twice
        least = float(torch.from_numpy(scores).topk(depth).values[-1])
        found = np.flatnonzero((scores >= least) & (scores > 0))
        best = make_keys(torch.from_numpy(scores[found]), tie_ranks[found]).topk(min(depth, len(found))).values
        keys[row, : len(best)] = best
    return end_at(read_keys(keys, tie_ranks), 0)


def find_candidates(rankings: Sequence[Hits], n_documents: int) -> np.ndarray:
    """Return the distinct pairs of all rankings, ascending: `query row * n_documents + document row`."""
    queries = np.arange(len(rankings[0].rows))[:, None]
    found = [(queries * n_documents + hits.rows)[hits.rows >= 0] for hits in rankings]
    return np.unique(np.concatenate(found))


def score_candidates(
    queries: EncodedTexts, documents: EncodedTexts, pairs: np.ndarray, ways: Sequence[Way]
) -> dict[Way, np.ndarray]:
    """Return the scores of some ways, float32 `(n_pairs,)` each, of pairs as `find_candidates` returns them."""
    scores: dict[Way, np.ndarray] = {way: np.empty(len(pairs), dtype=np.float32) for way in ways}
    query_rows, document_rows = np.divmod(pairs, len(documents))
    ends = np.searchsorted(query_rows, np.arange(len(queries) + 1))
    for query in tqdm(range(len(queries)), desc="ranking candidates", leave=False):
        part = slice(ends[query], ends[query + 1])
        rows = document_rows[part]
        if not len(rows):
            continue
        if "dense" in scores:
            scores["dense"][part] = np.asarray(documents.dense[rows]) @ queries.dense[query]
        if "sparse" in scores:
            # A vector of the vocabulary, not a sparse product: faster for a few hundred documents.
            weights = queries.lexical[[query]].toarray()[0]
            scores["sparse"][part] = documents.lexical[rows] @ weights
        if "multi" in scores:
            scores["multi"][part] = score_tokens(queries.get_vectors(query), documents, rows)
    return scores


def score_tokens(query: np.ndarray, documents: EncodedTexts, rows: np.ndarray) -> np.ndarray:
    """Return the multi-vector scores of some documents: the mean over query tokens of the best cosine.

    Args:
        query: The query's token vectors, float32 `(n_tokens, dim)`.
        documents: The documents.
        rows: Rows of those to score, `(n,)`.

    Returns:
        float32 `(n,)`; 0 for a document without tokens.
    """
    starts, ends = documents.offsets[rows], documents.offsets[rows + 1]
    tokens = np.concatenate([documents.vectors[start:end] for start, end in zip(starts, ends, strict=True)])
    cosines = tokens.astype(np.float32) @ query.T  # (n_tokens of all, n_query_tokens)
    lengths = ends - starts
    scores = np.zeros(len(rows), dtype=np.float32)
    has_tokens = lengths > 0
    if has_tokens.any() and len(query):
        places = (np.cumsum(lengths) - lengths)[has_tokens]
        scores[has_tokens] = np.maximum.reduceat(cosines, places, axis=0).mean(axis=1)
    return scores
