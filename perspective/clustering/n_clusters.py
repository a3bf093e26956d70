"""Criteria for the number of clusters, none of which needs labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perspective.clustering.distances import square_distances
from perspective.clustering.granularity import Granularities, find_peak, list_merges, make_grid
from perspective.vectors import sample_rows

SUBSAMPLE = 0.75  # share of the texts in each of the two samples of the stability
FEWEST_COMPARED = 3  # by chance, two views agree about two clusters as well as about the right number
N_EIGENVALUES = 300
MAX_RESTARTS = 1000  # of the search for eigenvalues
N_GRAPH_NEIGHBORS = 10
HDBSCAN_DIM, MIN_DENSE = 15, 5
PAIRS_PER_MERGE = 8
BETA = 0.92  # ClusterLLM's
N_MEASURED = 6000  # of more texts, a random sample: Ward needs the distances of all pairs


def score_agreement(
    one: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], adjusted_information: bool = False
) -> dict[int, float]:
    """Measure how far two clusterings agree, by number of clusters.

    Args:
        one: Clusters of the texts in one view, by number.
        other: Clusters of the same texts in another view.
        adjusted_information: Whether to measure by adjusted mutual information instead of the adjusted Rand index.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    score = adjusted_mutual_info_score if adjusted_information else adjusted_rand_score
    sizes = [size for size in one if size >= FEWEST_COMPARED]
    return {size: float(score(one[size], other[size])) for size in sizes}


def score_silhouette(view: Granularities, clusterings: Mapping[int, np.ndarray]) -> dict[int, float]:
    """Return the mean silhouette (Rousseeuw, 1987) of all texts, by number of clusters."""
    from sklearn.metrics import silhouette_score

    distances = np.sqrt(square_distances(view.rows, view.rows))
    np.fill_diagonal(distances, 0)
    return {
        size: float(silhouette_score(distances, clusters, metric="precomputed"))
        for size, clusters in clusterings.items()
        if 2 <= len(np.unique(clusters)) < len(clusters)
    }


def find_silhouette_peak(scores: Mapping[int, float]) -> int | None:
    """Return the number of clusters at the highest peak of the silhouette, which is 0 for a single cluster."""
    return find_peak({1: 0.0, **scores}, smoothed=False)


def score_stability(view: Granularities, grid: list[int], seed: int = 0) -> dict[int, float]:
    """Return how far clusterings of two overlapping samples agree on the texts of both (Ben-Hur et al., 2002)."""
    from sklearn.metrics import adjusted_rand_score

    rng, n_texts = np.random.default_rng(seed), len(view.rows)
    samples = [np.sort(rng.permutation(n_texts)[: int(SUBSAMPLE * n_texts)]) for _ in range(2)]
    both = np.intersect1d(samples[0], samples[1])
    views = [Granularities(view.rows[sample]) for sample in samples]
    places = [np.searchsorted(sample, both) for sample in samples]
    return {
        size: float(
            adjusted_rand_score(*(part.cluster(size)[place] for part, place in zip(views, places, strict=True)))
        )
        for size in grid
        if size < len(samples[0])
    }


def find_eigengap(view: Granularities) -> int | None:
    """Return the place of the largest gap between eigenvalues of the neighbour graph (von Luxburg, 2007).

    The graph joins each text with its nearest neighbours; eigenvalues are those of its normalised Laplacian. The
    gap after the first is left out: it says only that the graph hangs together.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import ArpackError, eigsh
    from sklearn.neighbors import kneighbors_graph

    n_texts = len(view.rows)
    n_values = min(N_EIGENVALUES, n_texts // 4)
    if n_values < 3:
        return None
    graph = kneighbors_graph(view.rows, min(N_GRAPH_NEIGHBORS, n_texts - 1), mode="connectivity")
    graph = graph.maximum(graph.T)
    scale = diags(np.asarray(graph.sum(axis=1)).ravel() ** -0.5)
    # Stated: otherwise the start and restarts are random, and the result with them.
    fixed = {"v0": np.ones(n_texts), "rng": np.random.default_rng(0)}
    try:
        found = eigsh(
            scale @ graph @ scale, n_values, which="LA", maxiter=MAX_RESTARTS, return_eigenvectors=False, **fixed
        )
    except ArpackError:  # many copies of texts: as many equal eigenvalues
        return None
    values = np.sort(found)[::-1]
    return int(np.argmax(values[1:-1] - values[2:])) + 2


def count_dense_groups(view: Granularities) -> int | None:
    """Return the number of clusters of HDBSCAN (Campello et al., 2013); None if it finds none."""
    from sklearn.cluster import HDBSCAN

    rows = view.rows[:, :HDBSCAN_DIM]
    if len(rows) < 10:
        return None
    found = HDBSCAN(min_cluster_size=MIN_DENSE, cluster_selection_method="leaf", copy=True).fit_predict(rows)
    return int(found.max()) + 1 or None


def score_granularity(view: Granularities, states: np.ndarray, largest: int, seed: int = 0) -> dict[int, float]:
    """Compare Ward's merges with an LLM's "same" or "different": ClusterLLM (Zhang et al., 2023), section 3.2.

    From both sides of each merge, texts are drawn that the LLM compares. A number of clusters says "same" about
    a pair if the merge is done at this number. Its score is the F-beta of what it says against the LLM's answers.
    The published LLM is asked; small ones cannot answer this, so the answer here is the probability that the
    cosine of two answer states is of the upper of two normal distributions, fitted to these pairs and random ones.

    Args:
        view: The embedder's view, whose merges are judged.
        states: Whitened answer states, unit rows `(n_texts, dim)`.
        largest: Number of clusters at which merges begin to be judged.
        seed: Random seed of drawing pairs.
    """
    from sklearn.mixture import GaussianMixture

    rng, n_texts = np.random.default_rng(seed), len(view.rows)
    pairs, after = [], []  # rows, and the number of clusters after their merge
    for place, sides in enumerate(list_merges(view.tree, largest)):
        pairs.append(np.stack([rng.choice(side, PAIRS_PER_MERGE) for side in sides], axis=1))
        after += [largest - place] * PAIRS_PER_MERGE
    merged = np.array(after)
    drawn = rng.integers(n_texts, size=(PAIRS_PER_MERGE * n_texts, 2))[: len(merged)]
    random_pairs = drawn[drawn[:, 0] != drawn[:, 1]]
    rows = np.concatenate([*pairs, random_pairs])
    cosines = np.einsum("ij,ij->i", states[rows[:, 0]], states[rows[:, 1]])[:, None].astype(np.float64)
    mixture = GaussianMixture(2, random_state=seed).fit(cosines)
    same = mixture.predict_proba(cosines[: len(merged)])[:, int(mixture.means_.ravel().argmax())]
    scores = {}
    for size in range(2, largest):
        done = merged >= size
        hits = same[done].sum()
        precision, recall = hits / max(done.sum(), 1), hits / max(same.sum(), 1e-9)
        scores[size] = float((1 + BETA**2) * precision * recall / max(BETA**2 * precision + recall, 1e-9))
    return scores


def score_without_labels(vectors: np.ndarray) -> dict[str, Any]:
    """Measure the silhouette of k-means over a grid of numbers, and where it peaks.

    Args:
        vectors: Array `(n_texts, dim)`.

    Returns:
        `silhouette`, the highest (-1 to 1); `silhouette_by_n_clusters` for the whole grid; `n_clusters_estimated`,
        the number at the highest peak, or None where the silhouette only rises or falls.
    """
    view = Granularities.of(vectors[sample_rows(len(vectors), N_MEASURED)])
    scores = score_silhouette(view, view.cluster_all(make_grid(len(view.rows))))
    return {
        "n_clusters_estimated": find_silhouette_peak(scores),
        "silhouette": max(scores.values(), default=None),
        "silhouette_by_n_clusters": {str(size): score for size, score in scores.items()},
        "note": "no labels: ACC, NMI and ARI need them",
    }
