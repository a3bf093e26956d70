"""Intervals of the difference between two arms, over training seeds, k-means seeds and texts.

A difference of mean scores has three independent sources of error: the runs of the adapted embedder
differ by training seed (and by the k-means of each), the k-means of the embedder before differ by
seed, and other texts of the same source would give other scores. Their variances add up, as those
of readers and cases do in studies where several readers see the same cases (Obuchowski and Rockette,
1995, "Hypothesis testing of diagnostic accuracy for multiple readers and multiple tests"); Bouthillier
et al. (2021, "Accounting for Variance in Machine Learning Benchmarks") show that leaving one out
finds gains where there are none. The variance over texts is that of a paired bootstrap with fixed
clusterings (Efron and Tibshirani, 1993, chapter 6). The interval is Student's t with the degrees of
freedom of Welch and Satterthwaite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from perspective.evaluation.clustering_scores import METRICS, pair_gains

MIN_TRAINING_SEEDS = 3
LEVEL = 0.95
N_RESAMPLES = 1000
RESAMPLES_AT_A_TIME = 100


@dataclass(frozen=True)
class Interval:
    """A difference in points with its confidence interval.

    Attributes:
        difference: Mean after minus mean before.
        low: Lower end of the interval.
        high: Upper end.
        n_training_seeds: Number of runs that it is over.
    """

    difference: float
    low: float
    high: float
    n_training_seeds: int

    @property
    def verdict(self) -> str:
        """Return "gain" or "loss" where the interval leaves out 0 and is over at least three training seeds."""
        if self.n_training_seeds < MIN_TRAINING_SEEDS:
            return ("one training seed", "two training seeds")[self.n_training_seeds - 1]
        if self.low <= 0 <= self.high:
            return "undecided"
        return "gain" if self.low > 0 else "loss"

    def __str__(self) -> str:
        """Return the difference, and the interval where it can be trusted."""
        if self.n_training_seeds < MIN_TRAINING_SEEDS:
            return f"{self.difference:+.2f}"
        return f"{self.difference:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def find_interval(after: np.ndarray, before: np.ndarray, text_variance: float = 0.0) -> Interval:
    """Return the interval of the mean of `after` minus the mean of `before`.

    Args:
        after: Scores `(n_training_seeds, n_kmeans_seeds)` in points.
        before: Scores `(n_kmeans_seeds,)`, made without training; or as `after`, of another arm.
        text_variance: Variance of the difference over texts, from `measure_text_variance`; 0 for an
            interval that holds for these texts only.

    >>> interval = find_interval(np.array([[65.0, 66], [66, 67], [67, 65]]), np.array([60.0, 61]))
    >>> str(interval), interval.verdict
    ('+5.50 (+2.51 to +8.49)', 'gain')
    """
    from scipy.stats import t

    runs = np.asarray(after, dtype=float).mean(axis=1)  # (n_training_seeds,)
    before = np.asarray(before, dtype=float)
    if before.ndim == 2:  # its training seeds vary, and with them its k-means
        if min(len(runs), len(before)) < MIN_TRAINING_SEEDS:
            difference = float(runs.mean() - before.mean())
            return Interval(difference, -np.inf, np.inf, min(len(runs), len(before)))
        before = before.mean(axis=1)
    difference = float(runs.mean() - np.mean(before))
    if len(runs) < MIN_TRAINING_SEEDS:
        return Interval(difference, -np.inf, np.inf, len(runs))
    parts = [(runs.var(ddof=1) / len(runs), len(runs) - 1)]
    if len(before) > 1:
        parts.append((np.var(before, ddof=1) / len(before), len(before) - 1))
    variance = sum(part for part, _ in parts) + text_variance
    if not variance:
        return Interval(difference, difference, difference, len(runs))
    freedom = variance**2 / max(sum(part**2 / degrees for part, degrees in parts), np.finfo(float).tiny)
    half = float(t.ppf((1 + LEVEL) / 2, min(freedom, 1e6)) * variance**0.5)
    return Interval(difference, difference - half, difference + half, len(runs))


def format_gain(cells: Mapping[str, Any], base: Mapping[str, Any], metric: str) -> str:
    """Return a gain of the study, its standard deviation, and a star if the interval leaves out 0.

    The interval holds for these texts only: cells have scores, not clusterings.

    Args:
        cells: By training seed, as in `pair_gains`.
        base: What they are compared with.
        metric: A name of `METRICS`.

    >>> format_gain({"1": {"ACC": [62.0, 64.0]}}, {"1": {"ACC": [60.0, 61.0]}}, "ACC")
    '+2.50 ± 0.50'
    """
    gains = pair_gains(cells, base, metric)
    is_trained = len(base) > 1
    if is_trained:
        shared = [seed for seed in cells if seed in base]
        cells, base = {seed: cells[seed] for seed in shared}, {seed: base[seed] for seed in shared}
    of_base = np.array([cell[metric] for cell in base.values()])
    after = np.array([cell[metric] for cell in cells.values()])
    interval = find_interval(after, of_base if is_trained else of_base[0])
    return f"{gains.mean():+.2f} ± {gains.std():.2f}{'*' if interval.verdict in ('gain', 'loss') else ''}"


def measure_text_variance(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """Return the variance over texts of the differences, in squared points, by metric.

    Texts are drawn with replacement, the same for both arms; clusterings, and for ACC the matching of
    clusters and classes, stay as they are on all texts.

    Args:
        labels: Class of each text, `(n_texts,)`.
        before: Clusterings `(n_kmeans_seeds, n_texts)`.
        after: Clusterings `(n_runs, n_texts)`, of all training and k-means seeds.
        n_resamples: Number of draws.
        seed: Random seed of the draws.
    """
    rng = np.random.default_rng(seed)
    n_texts = len(labels)
    scorers = [[_Scorer(labels, clusters) for clusters in arm] for arm in (before, after)]
    found: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for _ in range(0, n_resamples, RESAMPLES_AT_A_TIME):
        drawn = rng.integers(n_texts, size=(RESAMPLES_AT_A_TIME, n_texts))
        counts = np.stack([np.bincount(rows, minlength=n_texts) for rows in drawn]).astype(np.float32)
        scores = [[scorer.score(counts) for scorer in arm] for arm in scorers]
        for metric in METRICS:
            was, now = (np.mean([one[metric] for one in arm], axis=0) for arm in scores)
            found[metric].append(now - was)
    return {metric: float(np.var(np.concatenate(differences), ddof=1)) for metric, differences in found.items()}


class _Scorer:
    """Scores one clustering on many draws of texts, from tables of counts."""

    def __init__(self, labels: np.ndarray, clusters: np.ndarray) -> None:
        from scipy.optimize import linear_sum_assignment
        from sklearn.metrics.cluster import contingency_matrix

        _, labels = np.unique(labels, return_inverse=True)
        _, clusters = np.unique(clusters, return_inverse=True)
        table = contingency_matrix(labels, clusters)
        classes, matched = linear_sum_assignment(table, maximize=True)
        best = np.full(table.shape[0], -1)
        best[classes] = matched
        # Of the table, only the pairs of a class and a cluster that share a text.
        pairs, pair_of = np.unique(labels * table.shape[1] + clusters, return_inverse=True)
        self._hits = best[pairs // table.shape[1]] == pairs % table.shape[1]
        self._groups = [_one_hot(ids) for ids in (pair_of, labels, clusters)]

    def score(self, counts: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return ACC, NMI and ARI in percent, `(n_draws,)` each, of counts of texts `(n_draws, n_texts)`."""
        n = counts.sum(axis=1)
        sizes = [(groups @ counts.T).T for groups in self._groups]  # of pairs, classes, clusters: (n_draws, n_groups)
        of_pairs, of_classes, of_clusters = (_entropy(size / n[:, None]) for size in sizes)
        total = np.maximum(of_classes + of_clusters, np.finfo(float).tiny)
        together, same_class, same_cluster = ((size * (size - 1.0)).sum(axis=1) for size in sizes)
        expected = same_class * same_cluster / (n * (n - 1))
        largest = (same_class + same_cluster) / 2
        return {
            "ACC": 100 * sizes[0][:, self._hits].sum(axis=1) / n,
            "NMI": 100 * 2 * (of_classes + of_clusters - of_pairs) / total,
            "ARI": 100 * (together - expected) / np.maximum(largest - expected, np.finfo(float).tiny),
        }


def _one_hot(ids: np.ndarray) -> Any:  # noqa: ANN401  scipy has no types
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(ids)), (ids, np.arange(len(ids)))), shape=(ids.max() + 1, len(ids)))


def _entropy(shares: np.ndarray) -> np.ndarray:
    from scipy.special import entr

    return entr(shares).sum(axis=1)
