"""Stability of clusterings, and the decision whether answer states are trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perspective.clustering.kmeans_init import CachedKMeansPlusPlus
from perspective.vectors import blend

N_STABILITY_SEEDS = 10
STABILITY_DIM = 96


def measure_stability(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Measure the agreement of clusterings from different starts: high if the data has clusters.

    The number of classes is unknown here, so k-means runs with sqrt(n) / 3, sqrt(n) and 2 sqrt(n)
    clusters, one start each; the NMI is averaged over all pairs of `N_STABILITY_SEEDS` starts.
    Source of the criterion: von Luxburg, 2010, "Clustering Stability: An Overview".

    Args:
        vectors: Array `(n, dim)`, n at least 9.
        seed: First random seed.

    Returns:
        Mean NMI, 0 to 1, for each number of clusters: `(3,)`.
    """
    rows = vectors - vectors.mean(axis=0)
    if rows.shape[1] > STABILITY_DIM:  # a few times faster, with the same result
        rows = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -STABILITY_DIM:]
    root = len(rows) ** 0.5
    init = CachedKMeansPlusPlus(rows)
    sizes = (max(2, int(root / 3)), int(root), int(2 * root))
    return np.array([_average_nmi(rows, init, n_clusters, seed) for n_clusters in sizes])


def _average_nmi(rows: np.ndarray, init: CachedKMeansPlusPlus, n_clusters: int, seed: int) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score
    from threadpoolctl import threadpool_limits

    n_clusters = min(n_clusters, len(rows) - 1)
    with threadpool_limits(1):  # see clustering.kmeans.cluster_vectors
        clusterings = [
            KMeans(n_clusters, init=init, n_init=1, max_iter=50, random_state=seed + i).fit_predict(rows)
            for i in range(N_STABILITY_SEEDS)
        ]
    pairs = [(one, other) for i, one in enumerate(clusterings) for other in clusterings[:i]]
    return float(np.mean([normalized_mutual_info_score(one, other) for one, other in pairs]))


# Weight of a trusted LLM against the embedder's 1. With less weight the clusters change less than
# between starts, and the criterion could not distinguish a good LLM from a bad one.
TRUSTED_WEIGHT = 1.0
# Smaller increases in stability are within the noise of the starts (measured: about 0.01).
MIN_RISE = 0.01


@dataclass(frozen=True)
class Trust:
    """Whether the answer states of these texts are trusted, and the figures behind the decision.

    Attributes:
        weight: Weight of the answer states against 1 of the embedder; 0 if not trusted.
        stability: Mean NMI between clusterings from different starts, by weight; empty if not measured.
    """

    weight: float
    stability: dict[str, float]

    def describe(self) -> str:
        """Return the decision in one line."""
        figures = ", ".join(f"{weight}: {value:.3f}" for weight, value in self.stability.items())
        if not figures:
            return f"answer states at the given weight {self.weight:g}"
        verdict = f"trusted with weight {self.weight:g}" if self.weight else "not trusted"
        return f"answer states {verdict} (stability of clusterings by weight: {figures})"


def decide_trust(vectors: np.ndarray, states: np.ndarray) -> Trust:
    """Decide without labels whether the answer states are trusted: whether they make clusters more stable.

    Args:
        vectors: Centred unit rows of the embedder, `(n_texts, dim)`.
        states: Half-whitened unit rows of the LLM, `(n_texts, state_dim)`.
    """
    without, blended = (
        float(measure_stability(blend(vectors, states, weight)).mean()) for weight in (0.0, TRUSTED_WEIGHT)
    )
    weight = TRUSTED_WEIGHT if blended >= without + MIN_RISE else 0.0
    return Trust(weight, {"0": round(without, 4), f"{TRUSTED_WEIGHT:g}": round(blended, 4)})
