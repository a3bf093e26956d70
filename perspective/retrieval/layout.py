"""Paths of the files of the retrieval stage. Settings are in the sidecars, not in the names."""

from __future__ import annotations

from pathlib import Path

from perspective.artifacts import ROOT
from perspective.artifacts.names import slugify_model
from perspective.layout import MEASURES

RETRIEVAL_STAGE = ROOT / "perspective" / "6_retrieval"
RESULTS = MEASURES / "retrieval"


def results_path(collection: str, model: str, retriever: str = "dense", folder: Path | None = None) -> Path:
    """Return the path of an evaluation's result.

    Args:
        collection: Name of the collection.
        model: The embedder as the user gives it; not used for plain BM25.
        retriever: "dense", "bm25", "hybrid" or a way of M3, followed by "+rerank-" and a reranker's name.
        folder: Default measures/retrieval.

    >>> results_path("docs", "org/My-Model").name, results_path("docs", "minilm", "bm25").name
    ('docs_my-model.json', 'docs_bm25.json')
    >>> results_path("docs", "minilm", "hybrid+rerank-mine").name
    'docs_minilm-bm25-hybrid-rerank-mine.json'
    >>> results_path("docs", "bge-m3", "dense-sparse").name
    'docs_bge-m3-dense-sparse.json'
    """
    first, *more = retriever.split("+", 1)
    suffix = {"dense": "", "hybrid": "-bm25-hybrid"}.get(first, f"-{first}")
    name = "bm25" if first == "bm25" else slugify_model(model) + suffix
    return (folder or RESULTS) / f"{collection}_{'-'.join([name, *more])}.json"


def mteb_path(results: Path) -> Path:
    """Return the path of the same result in mteb's format."""
    return results.with_name("mteb") / results.name


def vectors_path(collection: str, model: str, part: str) -> Path:
    """Return the path of the embeddings of a collection's "corpus" or "queries"."""
    return RETRIEVAL_STAGE / "vectors" / f"{collection}_{slugify_model(model)}_{part}.npy"


def index_path(collection: str, model: str, folder: Path | None = None) -> Path:
    """Return the folder of the index of a collection's documents by a model with M3's heads."""
    return (folder or RETRIEVAL_STAGE / "indexes") / f"{collection}_{slugify_model(model)}"


def mined_path(name: str, embedder: str, folder: Path | None = None) -> Path:
    """Return the path of a data set's pairs with mined negatives."""
    return (folder or RETRIEVAL_STAGE / "mined_results") / f"{name}_{slugify_model(embedder)}.jsonl"


def scored_path(name: str, embedder: str, folder: Path | None = None) -> Path:
    """Return the path of a data set's pairs with a reranker's scores."""
    return (folder or RETRIEVAL_STAGE / "scored_results") / f"{name}_{slugify_model(embedder)}.jsonl"


def reranker_path(name: str, body: str, variant: str = "") -> Path:
    """Return the folder of the reranker trained on a data set from a body."""
    suffix = f"-{variant}" if variant else ""
    return RETRIEVAL_STAGE / "rerankers" / f"{name}_{slugify_model(body)}{suffix}"


def checkpoint_path(name: str, embedder: str, variant: str = "") -> Path:
    """Return the folder of the embedder trained on a data set; a variant is a recipe's short name."""
    suffix = f"-{variant}" if variant else ""
    return RETRIEVAL_STAGE / "checkpoints" / f"{name}_{slugify_model(embedder)}{suffix}"


if __name__ == "__main__":  # for scripts: print the path of the result of a collection and an embedder
    import sys

    collection_name, model_name = sys.argv[1:]
    sys.stdout.write(f"{results_path(collection_name, model_name)}\n")
