"""Search a collection with an embedder that has M3's heads: index its documents, encode its queries, rank."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perspective.artifacts import Output
from perspective.data.collection import Collection
from perspective.errors import DataError
from perspective.hybrid.encoding import CLS_EVERY, EncodedTexts, encode_texts
from perspective.hybrid.index import build_index, read_index
from perspective.hybrid.search import search_hybrid
from perspective.models.hybrid_files import load_hybrid
from perspective.models.prompts import choose_prompts, find_prompts
from perspective.models.registry import describe_model, find_local
from perspective.retrieval.layout import index_path
from perspective.retrieval.search import Hits
from perspective.retrieval.settings import EvaluationSettings
from perspective.runtime.devices import reading_precision

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def search_ways(collection: Collection, settings: EvaluationSettings, depth: int, overwrite: bool = False) -> Hits:
    """Rank the documents for every query by one of the ways, or by their sum.

    The documents are read from the collection's index, which is made first if there is none.

    Raises:
        DataError: There is an index, but of other documents, of another model or with other prompts.
        ModelError: The embedder has no heads, or cannot be loaded.
    """
    model = _load(settings)
    prompts = find_prompts(model, settings.embedder, *choose_prompts(settings))
    documents = index_collection(collection, settings, model, prompts[1], overwrite=overwrite)
    queries = encode_texts(model, list(collection.queries.values()), prompts[0], settings.batch_size)
    ids = list(collection.corpus)
    if queries.dense.shape[1] != documents.dense.shape[1] or queries.vectors.shape[1] != documents.vectors.shape[1]:
        raise DataError(
            f"{index_path(collection.name, settings.embedder)}: of another model, whose vectors differ in size"
        )
    return search_hybrid(queries, documents, ids, settings.retriever, depth)  # type: ignore[arg-type]


def index_collection(
    collection: Collection,
    settings: EvaluationSettings,
    model: SentenceTransformer | None = None,
    prompt: str | None = None,
    path: Path | None = None,
    overwrite: bool = False,
) -> EncodedTexts:
    """Return the index of a collection's documents; make it if there is none.

    Args:
        collection: The documents.
        settings: Embedder, prompts and batch size.
        model: The embedder, if it is loaded already.
        prompt: The documents' prompt, if it is known already.
        path: The folder; default in the stage's indexes/.
        overwrite: Whether an existing index is replaced.

    Raises:
        DataError: There is an index, but of other documents, of another model or with another prompt.
    """
    if model is None:
        model = _load(settings)
    if prompt is None:
        prompt = find_prompts(model, settings.embedder, *choose_prompts(settings))[1]
    texts = list(collection.corpus.values())
    made_from = {
        "embedder": settings.embedder,
        "revision": settings.revision,
        "prompt": prompt,
        "tokens": model.max_seq_length,
        "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
    }
    path = path or index_path(collection.name, settings.embedder)
    if settings.repeat_cls:
        made_from["repeat_cls"] = CLS_EVERY
    inputs = find_local(embedder=settings.embedder)
    output = Output(path, "hybrid index", made_from, inputs, precision=reading_precision())
    if not output.is_finished(overwrite):
        output.facts |= describe_model(settings.embedder)
        options: dict[str, Any] = {
            "prompt": prompt,
            "batch_size": settings.batch_size,
            "repeat_cls": settings.repeat_cls,
        }
        build_index(output, texts, partial(encode_texts, model, **options))
    return read_index(path)


def _load(settings: EvaluationSettings) -> SentenceTransformer:
    return load_hybrid(settings.embedder, reading=True, **settings.loading())
