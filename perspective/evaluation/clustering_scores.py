"""Agreement of clusterings with the labels: ACC, NMI, ARI."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from perspective.artifacts import read_object
from perspective.errors import DataError
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
    """Return scores minus those of a base, paired by k-means seed, and by training seed where the base has several.

    Args:
        cells: By training seed: `{metric: [per k-means seed]}`; `base` likewise.
        base: What they are compared with.
        metric: A name of `METRICS`.

    Returns:
        Array `(n_training_seeds, n_kmeans_seeds)`, in points.

    Raises:
        DataError: They share no training seed.

    >>> pair_gains({"1": {"ACC": [62.0, 64.0]}}, {"1": {"ACC": [60.0, 61.0]}}, "ACC").tolist()
    [[2.0, 3.0]]
    """
    if len(base) == 1:
        (of_base,) = base.values()
        return np.array([cell[metric] for cell in cells.values()]) - np.array(of_base[metric])
    shared = [seed for seed in cells if seed in base]
    if not shared:
        raise DataError(f"training seeds {', '.join(cells)} and {', '.join(base)}: none is in both arms")
    return np.array([np.array(cells[seed][metric]) - np.array(base[seed][metric]) for seed in shared])


def cluster_labelled(vectors: np.ndarray, labels: Labels, scale: str = "small") -> np.ndarray:
    """Cluster the texts that have a label by k-means, over the published seeds.

    Args:
        vectors: Array `(n, dim)`.
        labels: One a text; texts without a label are left out. The number of clusters is that of classes.
        scale: As in `cluster_vectors`.

    Returns:
        Integer array `(1 + n_seeds, n_labelled)`: the classes, then a clustering for each of `SEEDS`.
    """
    from perspective.clustering.kmeans import SEEDS, cluster_by_seed

    rows = find_labelled(labels)
    vectors = vectors if len(rows) == len(labels) else vectors[rows]
    classes, label_ids = np.unique(np.asarray(labels)[rows].astype(str), return_inverse=True)
    runs = cluster_by_seed(vectors, len(classes), scale)
    return np.stack([label_ids, *tqdm(runs, desc="k-means", unit="seed", total=len(SEEDS))])


def score_clusterings(clusterings: np.ndarray, n_texts: int) -> dict[str, Any]:
    """Measure clusterings against the classes: ACC, NMI and ARI in percent.

    Args:
        clusterings: From `cluster_labelled`.
        n_texts: Number of texts, with and without a label.

    Returns:
        For each metric the values, their mean and (population) standard deviation; `n_labelled` if texts were left out.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from perspective.clustering.kmeans import SEEDS

    label_ids, *runs = clusterings
    measures: dict[str, Any] = {metric: [] for metric in METRICS}
    for clusters in runs:
        measures["ACC"].append(100 * clustering_accuracy(label_ids, clusters))
        measures["NMI"].append(100 * float(normalized_mutual_info_score(label_ids, clusters)))
        measures["ARI"].append(100 * float(adjusted_rand_score(label_ids, clusters)))
    for metric in METRICS:
        measures[f"{metric}_mean"] = float(np.mean(measures[metric]))
        measures[f"{metric}_std"] = float(np.std(measures[metric]))
    partial = {} if len(label_ids) == n_texts else {"n_labelled": len(label_ids)}
    return {**measures, "n_clusters": len(np.unique(label_ids)), "seeds": list(SEEDS), **partial}


def score_clustering(vectors: np.ndarray, labels: Labels, scale: str = "small") -> dict[str, Any]:
    """Cluster vectors and measure the clusterings, see `cluster_labelled` and `score_clusterings`."""
    return score_clusterings(cluster_labelled(vectors, labels, scale), len(labels))


def read_measures(path: Path) -> dict[str, Any] | None:
    """Read measures; None where there were no labels.

    Raises:
        DataError: The file is damaged.
    """
    found = read_object(path)
    if "ACC" not in found:
        return None
    for metric in METRICS:
        check_scores(path, found, metric)
        for name in (f"{metric}_mean", f"{metric}_std"):
            if not is_number(found.get(name)):
                raise DataError(f'{path}: "{name}" is {found.get(name)!r:.40}, not a figure')
    return found


def check_scores(path: Path, measures: object, metric: str) -> None:
    """Raise a DataError unless a metric has a figure for each k-means seed."""
    scores = measures.get(metric) if isinstance(measures, Mapping) else None
    if not isinstance(scores, list) or not scores or not all(map(is_number, scores)):
        raise DataError(f"{path}: {metric} is {scores!r:.40}, not a list of figures, one a seed")


def is_number(value: object) -> bool:
    """Tell whether a value of a JSON file is a figure: NaN and infinity, which Python reads, are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
