"""Samples of a test collection, small enough to measure many models on a CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perspective.data.collection import Collection

SAMPLE_SEED = 0


def draw_collection(whole: Collection, n_queries: int, n_documents: int) -> Collection:
    """Return some queries of a collection among some documents, theirs included; the same in every run."""
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
