"""What can be said about clusters without labels, in figures and in words."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perspective.artifacts import Judgment, ResultRecord
from perspective.description.records import NOWHERE
from perspective.page.map import TextMap
from perspective.vectors import center_rows, find_nearer_choices

N_STARTS = 5
MAX_ROWS = 10_000  # more are sampled: k-means from several starts would take longer than the map
MAX_DIM = 96
MIN_TEXTS = 9
MIN_CHOICES = 30


@dataclass(frozen=True)
class Figure:
    """One figure before and after the embedder was adapted.

    Attributes:
        name: What it is.
        before: As text; None where there is none.
        after: As text.
        meaning: What it means, and what it does not.
    """

    name: str
    before: str | None
    after: str
    meaning: str


@dataclass(frozen=True)
class Verdict:
    """What is known without labels.

    Attributes:
        summary: Whether the LLM was trusted, and by which figures.
        figures: The figures.
    """

    summary: str
    figures: Sequence[Figure]

    def format_text(self) -> str:
        """Return it for a terminal."""
        rows = [("without labels", "before", "after")]
        rows += [(figure.name, figure.before or "", figure.after) for figure in self.figures]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        table = "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return f"{table}\n{self.summary}"


def make_verdict(
    record: ResultRecord,
    trust: Mapping[str, Any],
    clusterings: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
    text_map: TextMap,
    share_moved: float,
    choices: tuple[float, float, int] | None,
) -> Verdict:
    """Put the figures into words.

    Args:
        record: Of the fine-tuned embedder.
        trust: The decision about the answer states, as the teacher's facts hold it; may be empty.
        clusterings: Of vectors before and after, each from several starts.
        text_map: For the neighbours that texts kept.
        share_moved: Of texts that were nearest to another cluster before.
        choices: Of `score_choices`.
    """
    figures = []
    agreements = [average_agreement(runs) for runs in clusterings]
    if agreements[1] is not None:
        before = None if agreements[0] is None else f"{agreements[0]:.2f}"
        figures.append(
            Figure(
                "clusters found again from other starts",
                before,
                f"{agreements[1]:.2f}",
                "Agreement of clusterings by k-means from different starts (adjusted Rand index: 0 by chance, 1 the "
                "same). High: the clusters are clear. It does not say that they are the right ones, and training "
                "raises it by itself: it draws neighbours together.",
            )
        )
    if choices:
        learned = bool(record.llm_weight) or (record.judge is not None and not record.judge.reads_states)
        figures.append(
            Figure(
                "choices shared with the LLM",
                f"{choices[0]:.0%}",
                f"{choices[1]:.0%}",
                f"Of {choices[2]:,} questions which of two texts is closer to a third, chosen where the embedder was "
                "unsure: those answered alike by the LLM and by the vectors. Half is chance. "
                + (
                    "The embedder learned from this LLM, so a rise is expected."
                    if learned
                    else "The embedder did not learn from these answers."
                ),
            )
        )
    figures.append(
        Figure(
            "nearest texts that stayed",
            None,
            f"{text_map.kept.mean():.0%}",
            "Of the ten nearest texts before, those that still are among them: how much adapting changed.",
        )
    )
    figures.append(
        Figure(
            "texts that changed cluster",
            None,
            f"{share_moved:.0%}",
            "Texts that were nearest to the centre of another cluster before.",
        )
    )
    return Verdict(_summarise(record, trust), figures)


def _summarise(record: ResultRecord, trust: Mapping[str, Any]) -> str:
    judge = record.judge
    judged = judge is not None and not judge.reads_states  # triplets; the trust is in answer states
    llm = "The LLM whose answer states are used" if judged else f"The LLM ({judge.name})" if judge else "The LLM"
    consistency, background = trust.get("consistency"), trust.get("background")
    if consistency is not None and background is not None:
        return (
            f"{llm} was given {trust['weight']:.2f} times the embedder's weight. Asked in another wording it finds "
            f"{consistency:.0%} of each text's neighbours again, asked about something else {background:.0%}: the "
            "difference is what it owes to the question. In any case it chose among the embedder's own neighbours."
            + (f" Before, the embedder had learned from the judgments of {judge.name}." if judge and judged else "")
        )
    if record.unchanged:
        return "The embedder was left unchanged: there was nothing reliable to learn."
    if judge and judge.reads_states and trust.get("weight") is not None:
        return (
            f"{llm} was given {trust['weight']:.2f} times the embedder's weight: it was set so, or there are too few "
            "texts to measure how far its answers depend on the question. It chose among the embedder's own neighbours."
        )
    if judge:
        return f"The embedder learned from the judgments of {judge.name}."
    return "How the embedder was adapted is not recorded."


def cluster_again(vectors: np.ndarray, rows: np.ndarray, n_clusters: int) -> list[np.ndarray]:
    """Cluster by k-means from several starts; none where there is too little to cluster.

    Args:
        vectors: Array `(n_texts, dim)`.
        rows: Rows that are clustered, `(n_rows,)`.
        n_clusters: Number of clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    from perspective.clustering.kmeans_init import CachedKMeansPlusPlus

    if len(rows) < MIN_TEXTS or not 1 < n_clusters < len(rows):
        return []
    unit = center_rows(vectors[rows])
    if unit.shape[1] > MAX_DIM:
        unit = unit @ np.linalg.eigh(unit.T @ unit)[1][:, -MAX_DIM:]
    with threadpool_limits(1), warnings.catch_warnings():  # see clustering.kmeans.cluster_vectors
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than clusters
        init = CachedKMeansPlusPlus(unit)
        return [
            KMeans(n_clusters, init=init, n_init=1, max_iter=50, random_state=seed).fit_predict(unit)
            for seed in range(N_STARTS)
        ]


def average_agreement(clusterings: Sequence[np.ndarray]) -> float | None:
    """Return the mean adjusted Rand index of all pairs; None for fewer than two clusterings.

    >>> average_agreement([np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])])
    1.0
    """
    from sklearn.metrics import adjusted_rand_score

    pairs = [(one, other) for i, one in enumerate(clusterings) for other in clusterings[:i]]
    return float(np.mean([adjusted_rand_score(one, other) for one, other in pairs])) if pairs else None


def find_again(clusters: np.ndarray, n_clusters: int, clusterings: Sequence[np.ndarray]) -> np.ndarray:
    """Return how well other clusterings find each cluster again, `(n_clusters,)`.

    Hennig (2007, "Cluster-wise assessment of cluster stability"): the Jaccard index of a cluster and the most
    similar one of another clustering, averaged over the clusterings.

    Args:
        clusters: `(n_rows,)` place of each row's cluster, `NOWHERE` for none.
        n_clusters: Number of clusters.
        clusterings: Of the same rows.

    Returns:
        0 to 1; NaN without clusterings, or for a cluster that none of the rows is in.

    >>> find_again(np.array([0, 0, 1, 1]), 2, [np.array([5, 5, 5, 7])]).round(2).tolist()
    [0.67, 0.5]
    """
    found = np.full(n_clusters, np.nan)
    if not len(clusterings):
        return found
    sizes = np.bincount(clusters[clusters != NOWHERE], minlength=n_clusters)
    scores = np.zeros(n_clusters)
    for other in clusterings:
        _, other = np.unique(other, return_inverse=True)
        shared = np.zeros((n_clusters, other.max() + 1))
        np.add.at(shared, (clusters[clusters != NOWHERE], other[clusters != NOWHERE]), 1)
        union = sizes[:, None] + np.bincount(other)[None, :] - shared
        scores += (shared / union).max(axis=1)
    found[sizes > 0] = scores[sizes > 0] / len(clusterings)
    return found


def find_origins(before: np.ndarray, after: np.ndarray, clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return the cluster that each text was nearest to before the embedder was adapted, `(n_texts,)`.

    The centres are the means of each cluster's texts. A text that is not nearest to its own cluster's centre now
    either (a merged cluster may have a centre far from its parts) counts as not moved.

    Args:
        before: Vectors before fine-tuning, `(n_texts, dim)`.
        after: Vectors after, `(n_texts, any)`.
        clusters: `(n_texts,)` place of each text's cluster, `NOWHERE` for none.
        n_clusters: Number of clusters.
    """
    nearest = [_find_nearest_mean(vectors, clusters, n_clusters) for vectors in (before, after)]
    is_kept = (clusters == NOWHERE) | (nearest[1] != clusters)
    return np.where(is_kept, clusters, nearest[0])


def _find_nearest_mean(vectors: np.ndarray, clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    unit = center_rows(vectors)
    inside = clusters != NOWHERE
    means = np.zeros((n_clusters, unit.shape[1]), dtype=np.float32)
    np.add.at(means, clusters[inside], unit[inside])
    sizes = np.bincount(clusters[inside], minlength=n_clusters)
    means /= np.maximum(sizes, 1)[:, None]
    # Euclidean, as k-means measures: |x - m|^2 without |x|^2, which is the same for all centres.
    distances = (means**2).sum(axis=1) - 2 * unit @ means.T
    distances[:, sizes == 0] = np.inf
    return np.asarray(distances.argmin(axis=1))


def score_choices(
    before: np.ndarray, after: np.ndarray, judgments: Sequence[Judgment]
) -> tuple[float, float, int] | None:
    """Return the share of an LLM's choices that the vectors share, before and after, and their number.

    Args:
        before: Vectors before fine-tuning, `(n_texts, dim)`.
        after: Vectors after, `(n_texts, any)`.
        judgments: The LLM's answers.

    Returns:
        None where fewer than `MIN_CHOICES` are decided.
    """
    decided = [judgment for judgment in judgments if len(judgment.prediction) == 1]
    if len(decided) < MIN_CHOICES:
        return None
    first = np.array([judgment.prediction[0] == "1" for judgment in decided])
    triplets = [judgment.triplet for judgment in decided]
    shares = [float((find_nearer_choices(vectors, triplets) == first).mean()) for vectors in (before, after)]
    return shares[0], shares[1], len(decided)
