"""Where the files of the retrieval stage lie. Settings live in the sidecars, not in the names."""

from __future__ import annotations

from pathlib import Path

from perspective.artifacts import ROOT
from perspective.layout import MEASURES, slugify_model

RETRIEVAL_STAGE = ROOT / "perspective" / "6_retrieval"
RESULTS = MEASURES / "retrieval"


def results_path(collection: str, model: str, retriever: str = "dense", folder: Path | None = None) -> Path:
    """Return where an evaluation goes.

    Args:
        collection: Name of the collection.
        model: The embedder as the user gives it; plain BM25 has none and its name is not used.
        retriever: "dense", "bm25" or "hybrid", with "+rerank" after it where a reranker follows.
        folder: In place of measures/retrieval.

    >>> results_path("docs", "org/My-Model").name, results_path("docs", "minilm", "bm25").name
    ('docs_my-model.json', 'docs_bm25.json')
    >>> results_path("docs", "minilm", "hybrid+rerank").name
    'docs_minilm-bm25-hybrid-rerank.json'
    """
    first, *more = retriever.split("+")
    name = "bm25" if first == "bm25" else slugify_model(model) + ("-bm25-hybrid" if first == "hybrid" else "")
    return (folder or RESULTS) / f"{collection}_{'-'.join([name, *more])}.json"


def mteb_path(results: Path) -> Path:
    """Return where the same evaluation goes in mteb's own format."""
    return results.with_name("mteb") / results.name


def vectors_path(collection: str, model: str, part: str) -> Path:
    """Return where the embeddings of a collection's "corpus" or "queries" are kept."""
    return RETRIEVAL_STAGE / "vectors" / f"{collection}_{slugify_model(model)}_{part}.npy"


def mined_path(name: str, embedder: str, folder: Path | None = None) -> Path:
    """Return where the pairs of a data set with their mined negatives go."""
    return (folder or RETRIEVAL_STAGE / "mined_results") / f"{name}_{slugify_model(embedder)}.jsonl"


def checkpoint_path(name: str, embedder: str, variant: str = "", folder: Path | None = None) -> Path:
    """Return where the embedder trained on a data set goes; a variant is a recipe's short name."""
    suffix = f"-{variant}" if variant else ""
    return (folder or RETRIEVAL_STAGE / "checkpoints") / f"{name}_{slugify_model(embedder)}{suffix}"


if __name__ == "__main__":  # for scripts: collection and embedder to the path of the evaluation
    import sys

    collection_name, model_name = sys.argv[1:]
    sys.stdout.write(f"{results_path(collection_name, model_name)}\n")
