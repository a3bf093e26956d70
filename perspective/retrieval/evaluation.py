"""Evaluate a retriever on a collection: embed, search, score."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.artifacts import Output, keep_block, read_facts, read_vectors
from perspective.data.collection import Collection
from perspective.errors import DataError, ModelError
from perspective.models.embedding import EncoderSide, embed_texts
from perspective.models.registry import (
    EMBEDDERS,
    describe_model,
    find_local,
    get_prompt,
    load_embedder,
    pick_device,
    slugify_model,
)
from perspective.retrieval.layout import vectors_path
from perspective.retrieval.metrics import Judged, find_interval, resample_means, score_rankings
from perspective.retrieval.results import VERSION
from perspective.retrieval.search import Hits, fuse_rankings, load_reranker, rerank, search_bm25, search_dense

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

DEPTH = 100  # documents that a first search finds: what fusion and reranking start from
TEXTS_AT_A_TIME = 1024  # embedded between two saves: a minute or so of a small model on a CPU
RERANKED_AT_A_TIME = 32
KEPT_PER_QUERY = ("NDCG", "F1")


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and how."""

    embedder: str = field(
        default="minilm",
        metadata={"help": "gte, e5, minilm, a sentence-transformers id, or a folder", "aliases": ["--embed_method"]},
    )
    retriever: str = field(
        default="dense",
        metadata={
            "help": "dense, bm25, or hybrid of both by reciprocal rank",
            "choices": ["dense", "bm25", "hybrid"],
        },
    )
    reranker: str | None = field(default=None, metadata={"help": "a CrossEncoder that orders the first hits anew"})
    n_reranked: int = field(default=50, metadata={"help": "hits of a query that the reranker reads"})
    cutoffs: list[int] = field(default_factory=lambda: [1, 3, 5, 10], metadata={"help": "the k of the metrics"})
    query_prompt: str | None = field(
        default=None, metadata={"help": "put before a query; default the model's own, or E5's for an E5"}
    )
    document_prompt: str | None = field(default=None, metadata={"help": "put before a document; likewise"})
    batch_size: int | None = field(
        default=None, metadata={"help": "texts encoded at a time; left out, 64 on a CPU, by its memory on a GPU"}
    )
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of the embedder on the hub"})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "run code from the embedder's repository; only where you trust it"}
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot.

        Raises:
            DataError: A number is too small, or the reranker reads fewer hits than are scored.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise DataError(f"--batch_size {self.batch_size}: must be at least 1")
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise DataError(f"--cutoffs {self.cutoffs}: each must be at least 1")
        if self.reranker and self.n_reranked < max(self.cutoffs):
            raise DataError(f"--n_reranked {self.n_reranked}: must reach the largest cutoff, {max(self.cutoffs)}")

    @property
    def uses_embedder(self) -> bool:
        """Whether anything is embedded: plain BM25 needs no model."""
        return self.retriever != "bm25"

    @property
    def kind(self) -> str:
        """The retriever as results name it: with "+rerank" where a reranker follows."""
        return self.retriever + ("+rerank" if self.reranker else "")

    @property
    def model(self) -> str:
        """The embedder as results name it; "bm25" where there is none."""
        return self.embedder if self.uses_embedder else "bm25"

    def inputs(self) -> dict[str, Path]:
        """Return the models that lie here: their content decides the result."""
        return find_local(embedder=self.embedder if self.uses_embedder else None, reranker=self.reranker)

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change a result."""
        names = ["retriever", "cutoffs"]
        names += ["embedder", "query_prompt", "document_prompt", "revision"] if self.uses_embedder else []
        names += ["reranker", "n_reranked"] if self.reranker else []
        return {name: getattr(self, name) for name in names}


def evaluate_retriever(collection: Collection, settings: EvaluationSettings) -> dict[str, Any]:
    """Search with every query, score, and estimate how far the scores would vary over queries.

    Embeddings are kept in the stage's vectors/, block by block: a killed evaluation goes on there,
    and another retriever over the same embedder embeds nothing again.

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
    hits = search_collection(collection, settings, max(DEPTH, deepest, n_reranked))
    judged = Judged.from_qrels(collection.qrels, query_ids, document_ids)
    values = score_rankings(hits.rows, judged, settings.cutoffs)
    low, high = find_interval(resample_means(np.stack(list(values.values()), axis=1)))
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
        "version": VERSION,
    }


def search_collection(collection: Collection, settings: EvaluationSettings, depth: int) -> Hits:
    """Rank the documents for every query, as the settings say."""
    queries, documents = list(collection.queries.values()), list(collection.corpus.values())
    document_ids = list(collection.corpus)
    depth += collection.skip_same_id
    rankings = []
    if settings.uses_embedder:
        query_vectors, document_vectors = embed_collection(collection, settings)
        rankings.append(search_dense(query_vectors, document_vectors, document_ids, depth, pick_device()))
    if settings.retriever != "dense":
        rankings.append(search_bm25(queries, documents, document_ids, depth))
    if collection.skip_same_id:
        places = {document_id: row for row, document_id in enumerate(document_ids)}
        own = np.array([places.get(query_id, -1) for query_id in collection.queries])
        rankings = [hits.drop(own) for hits in rankings]
    hits = rankings[0] if len(rankings) == 1 else fuse_rankings(rankings, document_ids, depth)
    if settings.reranker:
        reranker = load_reranker(settings.reranker)
        hits = rerank(
            reranker,
            hits,
            settings.n_reranked,
            queries,
            documents,
            document_ids,
            settings.batch_size or RERANKED_AT_A_TIME,
        )
    return hits


def _percent(value: float) -> float:
    return round(100 * float(value), 6)


# embedding


def find_prompts(model: SentenceTransformer, settings: EvaluationSettings) -> tuple[str, str]:
    """Return what stands before a query and before a document.

    In this order: the options; those that a retriever of ours was trained with; the prompts "query"
    and "document" (or "passage") that the model carries; E5's own for a model with E5 in its name,
    unless it takes instructions; the model's default prompt, but not that of a short name, which is
    for clustering.
    """
    carried = model.prompts
    query = carried.get("query")
    document = carried.get("document") or carried.get("passage") or carried.get("corpus")
    # Every model carries empty prompts; the sidecar tells of a retriever that was trained with them.
    trained = read_facts(Path(settings.embedder).resolve()).get("prompts")
    if trained:
        query, document = trained
    elif not query and not document:
        name = slugify_model(settings.embedder)
        # e5, multilingual-e5-large, KoE5; e5-mistral and those with "instruct" take instructions.
        is_e5 = re.search(r"(?<![a-z])(ko)?e5(?!\d)", name) and not re.search("instruct|mistral", name)
        default = "" if settings.embedder in EMBEDDERS else get_prompt(model)
        query, document = ("query: ", "passage: ") if is_e5 else (default, default)
    given = settings.query_prompt, settings.document_prompt
    return tuple(own or "" if chosen is None else chosen for chosen, own in zip(given, (query, document), strict=True))  # type: ignore[return-value]


def embed_collection(collection: Collection, settings: EvaluationSettings) -> tuple[np.ndarray, np.ndarray]:
    """Embed queries and documents with their prompts, or read what an earlier run saved.

    Returns:
        float32 arrays `(n_queries, dim)` and `(n_documents, dim)`, normalised where the model's
        similarity is the cosine.
    """
    model = load_embedder(settings.embedder, revision=settings.revision, trust_remote_code=settings.trust_remote_code)
    if model.similarity_fn_name not in ("cosine", "dot"):
        raise ModelError(f"{settings.embedder}: compares by {model.similarity_fn_name}; cosine or dot is needed here")
    prompts = find_prompts(model, settings)
    parts = (
        ("queries", collection.queries, model.encode_query, prompts[0]),
        ("corpus", collection.corpus, model.encode_document, prompts[1]),
    )
    queries, documents = (
        _embed_part(
            collection.name,
            part,
            list(texts.values()),
            prompt,
            EncoderSide(model, partial(encode, prompt=prompt)),
            settings,
        )
        for part, texts, encode, prompt in parts
    )
    if model.similarity_fn_name == "cosine":
        queries, documents = (
            part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12) for part in (queries, documents)
        )
    return queries, documents


def _embed_part(
    collection: str,
    part: str,
    texts: Sequence[str],
    prompt: str,
    side: EncoderSide,
    settings: EvaluationSettings,
) -> np.ndarray:
    made_from = {
        "embedder": settings.embedder,
        "revision": settings.revision,
        "prompt": prompt,
        "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
    }
    inputs = find_local(embedder=settings.embedder)
    output = Output(vectors_path(collection, settings.embedder, part), "retrieval embeddings", made_from, inputs)
    try:
        if output.is_finished():
            return read_vectors(output.path, len(texts))
    except DataError as difference:  # what is kept to save time is made anew where it does not fit
        logger.info("%s", difference)
    try:
        blocks = output.open_partial()
    except DataError as difference:
        logger.info("%s", difference)
        blocks = output.open_partial(anew=True)
    saved = []
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        block = texts[start : start + TEXTS_AT_A_TIME]
        embed = partial(embed_texts, side, block, settings.batch_size)
        saved.append(keep_block(blocks / f"{start:09d}.npy", len(block), embed))
    vectors = np.concatenate(saved)
    output.facts |= {**describe_model(settings.embedder), "n_texts": len(texts), "dim": vectors.shape[1]}
    output.write_vectors(vectors)
    output.discard_partial()
    return read_vectors(output.path, len(texts))
