"""Evaluate a retriever on a collection: embed, search, score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from perspective.data.collection import Collection
from perspective.errors import DataError
from perspective.reranking.loading import load_reranker
from perspective.retrieval.embedding import embed_collection
from perspective.retrieval.metrics import RelevanceJudgments, bootstrap_interval, resample_means, score_rankings
from perspective.retrieval.results import VERSION
from perspective.retrieval.search import Hits, fuse_rankings, rerank, search_bm25, search_dense
from perspective.retrieval.settings import EvaluationSettings
from perspective.runtime.devices import pick_device

DEPTH = 100  # documents a query that the first search returns, for fusion and reranking
KEPT_PER_QUERY = ("NDCG", "F1")

Search = Callable[[Collection, EvaluationSettings, int], Hits]  # the last is the depth


def evaluate_retriever(
    collection: Collection, settings: EvaluationSettings, search: Search | None = None
) -> dict[str, Any]:
    """Search with every query, score, and bootstrap the scores over queries.

    Embeddings are saved in the stage's vectors/ in blocks, so that a killed evaluation resumes and
    another retriever with the same embedder reuses them.

    Args:
        collection: The collection.
        settings: Retriever and metrics.
        search: Searches, for retrievers that need an embedder's heads.

    Returns:
        The content of a result file: scores and intervals in percent.

    Raises:
        DataError: A cutoff is larger than the corpus.
        ModelError: A model cannot be loaded.
    """
    deepest, n_documents = max(settings.cutoffs), len(collection.corpus)
    if deepest > n_documents:
        raise DataError(
            f"--cutoffs {deepest}: {collection.name} has {n_documents} documents; choose cutoffs up to that"
        )
    query_ids, document_ids = list(collection.queries), list(collection.corpus)
    n_reranked = settings.n_reranked if settings.reranker else 0
    hits = search_collection(collection, settings, max(DEPTH, deepest, n_reranked), search)
    judged = RelevanceJudgments.from_qrels(collection.qrels, query_ids, document_ids)
    first_stage = {}
    if settings.reranker:
        first_stage = {"first_stage": _describe_first_stage(hits, judged, settings)}
        texts = (list(collection.queries.values()), list(collection.corpus.values()))
        reranker = load_reranker(settings.reranker, trust_remote_code=settings.trust_remote_code)
        hits = rerank(reranker, hits, settings.n_reranked, *texts, document_ids, settings.batch_size)
    values = score_rankings(hits.rows, judged, settings.cutoffs)
    low, high = bootstrap_interval(resample_means(np.stack(list(values.values()), axis=1)))
    return {
        "collection": collection.name,
        "fingerprint": collection.fingerprint,
        "model": settings.model,
        "retriever": settings.kind,
        "n_queries": len(query_ids),
        "n_documents": n_documents,
        "cutoffs": list(settings.cutoffs),
        "scores": {name: _percent(value.mean()) for name, value in values.items()},
        "interval": {
            name: [_percent(ends[0]), _percent(ends[1])]
            for name, ends in zip(values, np.stack([low, high], axis=1), strict=True)
        },
        "per_query": {
            name: dict(zip(query_ids, map(_percent, value), strict=True))
            for name, value in values.items()
            if name.startswith(KEPT_PER_QUERY)
        },
        **first_stage,
        "version": VERSION,
    }


def _describe_first_stage(hits: Hits, judged: RelevanceJudgments, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the scores before reranking, and the recall of what is reranked, which no reranker can exceed."""
    depth = min(settings.n_reranked, judged.n_documents)
    values = score_rankings(hits.rows, judged, [*settings.cutoffs, depth])
    return {
        "reranker": settings.reranker,
        "n_reranked": depth,
        "recall": _percent(values[f"Recall@{depth}"].mean()),
        "scores": {
            name: _percent(value.mean())
            for name, value in values.items()
            if int(name.split("@")[1]) in settings.cutoffs
        },
    }


def score_vectors(collection: Collection, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Return NDCG@10 of each query in percent, `(n_queries,)`, of exact search.

    Args:
        collection: Its queries and documents, in the order of the rows.
        queries: Vectors `(n_queries, dim)`.
        documents: Vectors `(n_documents, dim)`.
    """
    hits = search_dense(queries, documents, list(collection.corpus), 10)
    return score_all(collection, hits, [10])["NDCG@10"]


def score_all(collection: Collection, hits: Hits, cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """Return every metric at some cutoffs, each query in percent, `(n_queries,)`."""
    judged = RelevanceJudgments.from_qrels(collection.qrels, list(collection.queries), list(collection.corpus))
    return {name: 100 * values for name, values in score_rankings(hits.rows, judged, cutoffs).items()}


def search_collection(
    collection: Collection, settings: EvaluationSettings, depth: int, search: Search | None = None
) -> Hits:
    """Rank the documents for every query with the retriever of the settings, before reranking.

    Empty documents are not found.
    """
    queries, documents = list(collection.queries.values()), list(collection.corpus.values())
    document_ids = list(collection.corpus)
    is_empty = np.array([not text for text in documents])
    depth += collection.skip_same_id + int(is_empty.sum())
    rankings = []
    if search is not None:
        rankings.append(search(collection, settings, depth))
    elif settings.uses_embedder:
        query_vectors, document_vectors = embed_collection(collection, settings)
        rankings.append(search_dense(query_vectors, document_vectors, document_ids, depth, pick_device()))
    if settings.retriever in ("bm25", "hybrid"):
        rankings.append(search_bm25(queries, documents, document_ids, depth))
    if collection.skip_same_id:
        places = {document_id: row for row, document_id in enumerate(document_ids)}
        same_id = np.array([places.get(query_id, -1) for query_id in collection.queries])
        rankings = [hits.drop(same_id) for hits in rankings]
    if is_empty.any():
        rankings = [hits.drop_places(is_empty[hits.rows]) for hits in rankings]
    return rankings[0] if len(rankings) == 1 else fuse_rankings(rankings, document_ids, depth)


def _percent(value: float) -> float:
    return round(100 * float(value), 6)
