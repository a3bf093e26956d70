"""Embed the queries and documents of a collection."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.artifacts import Output, keep_block, read_vectors
from perspective.data.collection import Collection
from perspective.errors import DataError, ModelError
from perspective.models.embedders import load_embedder
from perspective.models.embedding import EncoderSide, embed_texts
from perspective.models.prompts import choose_prompts, find_prompts
from perspective.models.registry import describe_model, find_local
from perspective.retrieval.layout import vectors_path
from perspective.retrieval.settings import EvaluationSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

TEXTS_AT_A_TIME = 1024  # embedded between two saves: about a minute with a small model on a CPU


def embed_collection(collection: Collection, settings: EvaluationSettings) -> tuple[np.ndarray, np.ndarray]:
    """Embed queries and documents with their prompts, or read the vectors that an earlier run saved.

    Returns:
        float32 arrays `(n_queries, dim)` and `(n_documents, dim)`, normalised if the model's
        similarity is the cosine.
    """
    model = load_embedder(settings.embedder, **settings.loading())
    if model.similarity_fn_name not in ("cosine", "dot"):
        raise ModelError(f"{settings.embedder}: compares by {model.similarity_fn_name}; cosine or dot is needed here")
    prompts = find_prompts(model, settings.embedder, *choose_prompts(settings))
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
    except DataError as difference:  # saved vectors are only a cache: recompute those of other settings
        logger.info("%s", difference)
    try:
        blocks = output.open_partial()
    except DataError as difference:
        logger.info("%s", difference)
        blocks = output.open_partial(restart=True)
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


@dataclass(frozen=True)
class EmbeddedTexts:
    """An embedder with the vectors of all texts precomputed, for `mine_hard_negatives`.

    Attributes:
        model: The embedder.
        queries: Unit vector of each query.
        documents: Unit vector of each document.
    """

    model: SentenceTransformer
    queries: Mapping[str, np.ndarray]
    documents: Mapping[str, np.ndarray]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return an attribute of the embedder, such as its device or similarity."""
        return getattr(self.model, name)

    def encode_query(self, inputs: Sequence[str], **options: Any) -> np.ndarray:  # noqa: ANN401, ARG002
        """Return the vectors `(n, dim)` of precomputed queries."""
        return np.stack([self.queries[text] for text in inputs])

    def encode_document(self, inputs: Sequence[str], **options: Any) -> np.ndarray:  # noqa: ANN401, ARG002
        """Return the vectors `(n, dim)` of precomputed documents."""
        return np.stack([self.documents[text] for text in inputs])


def embed_sides(model: SentenceTransformer, queries: Iterable[str], documents: Iterable[str]) -> EmbeddedTexts:
    """Embed each distinct query and document once, with the model's prompts."""
    queries, documents = list(dict.fromkeys(queries)), list(dict.fromkeys(documents))
    query_side, document_side = (
        EncoderSide(model, partial(encode, normalize_embeddings=True))
        for encode in (model.encode_query, model.encode_document)
    )
    return EmbeddedTexts(
        model,
        dict(zip(queries, embed_texts(query_side, queries), strict=True)),
        dict(zip(documents, embed_texts(document_side, documents), strict=True)),
    )
