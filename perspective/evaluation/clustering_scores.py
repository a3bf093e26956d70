"""Agreement of clusterings with the labels: ACC, NMI, ARI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from perspective.evaluation.labels import Labels, find_labelled

METRICS = ("ACC", "NMI", "ARI")


def clustering_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Return the fraction of texts whose cluster is matched to their class, in the best one-to-one matching.

    The matching is the Hungarian assignment; the numbers of classes and clusters may differ.

    >>> clustering_accuracy(np.array([0, 0, 1, 1]), np.array([5, 5, 7, 5]))
    0.75
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(labels, clusters)  # (n_classes, n_clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))


def pair_gains(cells: Mapping[str, Any], base: Mapping[str, Any], metric: str) -> np.ndarray:
    """Return scores minus those of a base with one training seed, paired by k-means seed.

    Args:
        cells: By training seed: `{metric: [per k-means seed]}`; `base` likewise.
        base: What they are compared with.
        metric: A name of `METRICS`.

    Returns:
        Array `(n_training_seeds, n_kmeans_seeds)`, in points.

    >>> pair_gains({"1": {"ACC": [62.0, 64.0]}}, {"1": {"ACC": [60.0, 61.0]}}, "ACC").tolist()
    [[2.0, 3.0]]
    """
    (of_base,) = base.values()
    return np.array([cell[metric] for cell in cells.values()]) - np.array(of_base[metric])


def score_clustering(vectors: np.ndarray, labels: Labels, scale: str = "small") -> dict[str, Any]:
    """Measure k-means against the labels: ACC, NMI and ARI in percent, over the published seeds.

    Args:
        vectors: Array `(n_texts, dim)`.
        labels: One a text; texts without a label are left out. The number of clusters is that of classes.
        scale: As in `cluster_vectors`.

    Returns:
        For each metric the values, their mean and (population) standard deviation; `n_labelled` if texts were left out.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from perspective.clustering.kmeans import SEEDS, cluster_by_seed

    rows = find_labelled(labels)
    n_texts, vectors = len(labels), vectors if len(rows) == len(labels) else vectors[rows]
    classes, label_ids = np.unique(np.asarray(labels)[rows].astype(str), return_inverse=True)
    measures: dict[str, Any] = {metric: [] for metric in METRICS}
    runs = cluster_by_seed(vectors, len(classes), scale)
    for clusters in tqdm(runs, desc="k-means", unit="seed", total=len(SEEDS)):
        measures["ACC"].append(100 * clustering_accuracy(label_ids, clusters))
        measures["NMI"].append(100 * float(normalized_mutual_info_score(label_ids, clusters)))
        measures["ARI"].append(100 * float(adjusted_rand_score(label_ids, clusters)))
    for metric in METRICS:
        measures[f"{metric}_mean"] = float(np.mean(measures[metric]))
        measures[f"{metric}_std"] = float(np.std(measures[metric]))
    partial = {} if len(rows) == n_texts else {"n_labelled": len(rows)}
    return {**measures, "n_clusters": len(classes), "seeds": list(SEEDS), **partial}
