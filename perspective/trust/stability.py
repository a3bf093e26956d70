"""Stability of clusterings, and whether the answer states are trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perspective.clustering.kmeans_init import CachedKMeansPlusPlus
from perspective.vectors import blend

N_STABILITY_SEEDS = 10
STABILITY_DIM = 96


def measure_stability(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Measure how alike clusterings from different starts are: high where clusters really exist.

    k-means with one start each, at a third, once and twice the root of n clusters (the number of
    classes is not known here); NMI between each two of `N_STABILITY_SEEDS` starts. Source of the
    criterion: von Luxburg, 2010, "Clustering Stability: An Overview".

    Args:
        vectors: Array `(n, dim)`, n at least 9.
        seed: First of the seeds.

    Returns:
        One mean NMI, 0 to 1, a number of clusters: `(3,)`.
    """
    rows = vectors - vectors.mean(axis=0)
    if rows.shape[1] > STABILITY_DIM:  # a few times faster, and the same answer
        rows = rows @ np.linalg.eigh(rows.T @ rows)[1][:, -STABILITY_DIM:]
    root = len(rows) ** 0.5
    seeding = CachedKMeansPlusPlus(rows)
    return np.array(
        [_agree(rows, seeding, n_clusters, seed) for n_clusters in (max(2, int(root / 3)), int(root), int(2 * root))]
    )


def _agree(rows: np.ndarray, seeding: CachedKMeansPlusPlus, n_clusters: int, seed: int) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score
    from threadpoolctl import threadpool_limits

    n_clusters = min(n_clusters, len(rows) - 1)
    with threadpool_limits(1):  # see clustering.cluster_vectors
        clusterings = [
            KMeans(n_clusters, init=seeding, n_init=1, max_iter=50, random_state=seed + i).fit_predict(rows)
            for i in range(N_STABILITY_SEEDS)
        ]
    pairs = [(one, other) for i, one in enumerate(clusterings) for other in clusterings[:i]]
    return float(np.mean([normalized_mutual_info_score(one, other) for one, other in pairs]))


# Of an LLM that is believed, against the embedder's 1. Less of it moves the clusters by less than
# the starts do, so that the criterion could not tell a good LLM from a bad one.
TRUSTED_WEIGHT = 1.0
# A rise of stability below this is within the noise of the starts (measured: about 0.01).
MIN_RISE = 0.01


@dataclass(frozen=True)
class Trust:
    """Whether the LLM is believed about these texts, and why.

    Attributes:
        weight: Of the answer states, against 1 of the embedder.
        stability: Mean NMI between clusterings from different starts, by weight; empty where not tried.
    """

    weight: float
    stability: dict[str, float]

    def describe(self) -> str:
        """Return the decision in one line."""
        tried = ", ".join(f"{weight}: {value:.3f}" for weight, value in self.stability.items())
        if not tried:
            return f"answer states at weight {self.weight:g}, as told"
        verdict = f"believed at weight {self.weight:g}" if self.weight else "not believed"
        return f"answer states {verdict} (stability of clusterings by weight: {tried})"


def decide_trust(vectors: np.ndarray, states: np.ndarray) -> Trust:
    """Decide without labels whether the answer states are believed: do clusters get stabler with them?

    Args:
        vectors: The embedder's, centred unit rows `(n_texts, dim)`.
        states: The LLM's, half-whitened unit rows `(n_texts, state_dim)`.
    """
    alone, together = (
        float(measure_stability(blend(vectors, states, weight)).mean()) for weight in (0.0, TRUSTED_WEIGHT)
    )
    weight = TRUSTED_WEIGHT if together >= alone + MIN_RISE else 0.0
    return Trust(weight, {"0": round(alone, 4), f"{TRUSTED_WEIGHT:g}": round(together, 4)})
