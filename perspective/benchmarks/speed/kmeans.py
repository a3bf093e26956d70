"""k-means of the scores against scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans

from perspective.benchmarks.speed.comparison import DATASETS, Row, SpeedSettings, embed_dataset, time_pairs
from perspective.clustering.kmeans import SEEDS, cluster_by_seed
from perspective.data.corpus import CorpusSettings
from perspective.evaluation.clustering_scores import clustering_accuracy
from perspective.evaluation.labels import require_labels


def bench_kmeans(settings: SpeedSettings) -> list[Row]:
    """Cluster the vectors of banking77, and 10^5 noisy ones, with both."""
    texts_vectors = embed_dataset("banking77")
    names = require_labels(CorpusSettings("banking77"))
    labels = np.unique(np.asarray(names, dtype=str), return_inverse=True)[1]
    rng = np.random.default_rng(0)
    large = np.concatenate([embed_dataset(dataset) for dataset in DATASETS])
    large = large[rng.integers(len(large), size=10**5)] + rng.normal(scale=0.02, size=(10**5, 384)).astype(np.float32)
    rows = []
    for name, vectors, seeds, n_pairs in (
        ("banking77, 5 seeds", texts_vectors, SEEDS, settings.n_pairs),
        ("10^5 vectors, 2 seeds", large, SEEDS[:2], 1),
    ):
        found: dict[str, list[np.ndarray]] = {}

        def ours(vectors: np.ndarray = vectors, seeds: Sequence[int] = seeds, found: dict = found) -> None:
            found["ours"] = list(cluster_by_seed(vectors, 77, seeds=seeds))

        def other(vectors: np.ndarray = vectors, seeds: Sequence[int] = seeds, found: dict = found) -> None:
            found["other"] = [KMeans(77, n_init=10, random_state=seed).fit(vectors).labels_ for seed in seeds]

        seconds = time_pairs(ours, other, n_pairs)
        inertias = [np.mean([measure_inertia(vectors, c) for c in found[side]]) for side in ("ours", "other")]
        equal = f"inertia {100 * (inertias[0] / inertias[1] - 1):+.3f}%"
        if len(vectors) == len(labels):
            accuracies = [[100 * clustering_accuracy(labels, c) for c in found[side]] for side in ("ours", "other")]
            equal += ", ACC " + " against ".join(f"{np.mean(a):.2f} ± {np.std(a):.2f}" for a in accuracies)
        rows.append(Row(f"k-means, 77 clusters, 10 starts, {name}", "scikit-learn's call", "3x", *seconds, equal))
    return rows


def measure_inertia(vectors: np.ndarray, clusters: np.ndarray) -> float:
    """Return the sum of squared distances of vectors to the means of their clusters."""
    return sum(
        float(((rows - rows.mean(axis=0)) ** 2).sum())
        for rows in (vectors[clusters == cluster].astype(np.float64) for cluster in np.unique(clusters))
    )
