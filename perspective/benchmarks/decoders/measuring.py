"""Small measures of an embedder: k-means on a sample of classes, NDCG@10 on a sample of the docstrings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.data.collection import Collection, load_collection
from perspective.data.corpus import DATASETS, CorpusSettings, load_texts
from perspective.data.docstrings import NAME
from perspective.evaluation.clustering_scores import score_clustering
from perspective.evaluation.labels import require_labels
from perspective.models.decoders import POOLINGS
from perspective.models.embedding import EncoderSide, embed_texts
from perspective.options import PoolingName
from perspective.retrieval.evaluation import score_vectors
from perspective.retrieval.metrics import bootstrap_interval, resample_means

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

N_CLASSES = 20  # of a data set
N_TEXTS = 25  # of a class, at most
N_QUERIES = 200
N_DOCUMENTS = 400
MAX_TOKENS = 64
SAMPLE_SEED = 0

Vectors = dict[PoolingName, np.ndarray]


@dataclass(frozen=True)
class LabelledSample:
    """Texts of some classes of a data set."""

    texts: list[str]
    labels: list[str]


@cache
def sample_classes(dataset: str) -> LabelledSample:
    """Return `N_TEXTS` texts of each of `N_CLASSES` classes, the same in every run.

    Raises:
        DataError: The data set has no labels.
    """
    corpus = CorpusSettings(dataset)
    texts, labels = load_texts(corpus), require_labels(corpus)
    rng = np.random.default_rng(SAMPLE_SEED)
    classes = rng.permutation(sorted({label for label in labels if label is not None}))[:N_CLASSES]
    of_class = [rng.permutation([row for row, label in enumerate(labels) if label == name]) for name in classes]
    rows = [int(row) for members in of_class for row in members[:N_TEXTS]]
    return LabelledSample([texts[row] for row in rows], [str(labels[row]) for row in rows])


@cache
def sample_collection(n_queries: int = N_QUERIES, n_documents: int = N_DOCUMENTS) -> Collection:
    """Return some queries of the docstrings among some documents, theirs included; the same in every run."""
    whole = load_collection(DATASETS / NAME)
    rng = np.random.default_rng(SAMPLE_SEED)
    queries = [str(one) for one in rng.permutation(sorted(whole.queries))[:n_queries]]
    own = {document for query in queries for document in whole.qrels[query]}
    others = [str(one) for one in rng.permutation(sorted(set(whole.corpus) - own))]
    documents = sorted([*own, *others[: max(0, n_documents - len(own))]])
    return replace(
        whole,
        corpus={one: whole.corpus[one] for one in documents},
        queries={one: whole.queries[one] for one in queries},
        qrels={one: whole.qrels[one] for one in queries},
    )


def embed_by_poolings(model: SentenceTransformer, texts: Sequence[str], prompt: str = "") -> Vectors:
    """Return unit vectors `(n_texts, dim)` by each pooling, from one forward pass.

    The means leave out the prompt, as `set_pooling` has it; the last token is after it.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    pool = Pooling(model[0].get_embedding_dimension(), tuple(POOLINGS.values()), include_prompt=False)
    together = SentenceTransformer(modules=[model[0], pool], device=str(model.device))
    side = EncoderSide(together, lambda inputs, **options: together.encode(inputs, prompt=prompt or None, **options))
    parts = np.split(embed_texts(side, texts), len(POOLINGS), axis=1)
    return {
        pooling: part / np.linalg.norm(part, axis=1, keepdims=True)
        for pooling, part in zip(POOLINGS, parts, strict=True)
    }


def measure_clusters(model: SentenceTransformer, dataset: str) -> dict[str, Any]:
    """Return ACC and NMI in percent by pooling, the mean of five seeds of k-means."""
    sample = sample_classes(dataset)
    scores = {
        pooling: score_clustering(vectors, sample.labels)
        for pooling, vectors in embed_by_poolings(model, sample.texts).items()
    }
    return {
        pooling: {metric: round(found[f"{metric}_mean"], 4) for metric in ("ACC", "NMI")}
        for pooling, found in scores.items()
    }


def measure_retrieval(model: SentenceTransformer, query_prompt: str = "") -> dict[str, Any]:
    """Return NDCG@10 in percent by pooling: the mean, its 95% interval, and each query's."""
    collection = sample_collection()
    queries = embed_by_poolings(model, list(collection.queries.values()), query_prompt)
    documents = embed_by_poolings(model, list(collection.corpus.values()))
    found: dict[str, Any] = {}
    for pooling, vectors in queries.items():
        values = score_vectors(collection, vectors, documents[pooling])
        low, high = bootstrap_interval(resample_means(values[:, None]))
        found[pooling] = {
            "NDCG@10": round(float(values.mean()), 4),
            "interval": [round(float(low[0]), 4), round(float(high[0]), 4)],
            "per_query": [round(float(value), 4) for value in values],
        }
    return found
