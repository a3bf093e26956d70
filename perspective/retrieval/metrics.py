"""Retrieval metrics from rankings and graded judgments, and bootstrap intervals over queries.

Definitions are those of trec_eval (which mteb and BEIR report): a document's gain is its grade,
the ideal of NDCG is the best order of all relevant documents, AP@k is divided by the number of
relevant documents, precision@k by k. sentence-transformers' InformationRetrievalEvaluator counts
every grade above zero as 1 in NDCG, divides AP@k by min(k, number of relevant) and breaks ties by
ascending id; it agrees if grades are 0 or 1 and no query has more than k relevant documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perspective.errors import DataError

METRICS = ("NDCG", "F1", "Precision", "Recall", "MRR", "MAP")
N_RESAMPLES = 10_000
BOOTSTRAP_SEED = 0
RESAMPLED_AT_A_TIME = 4_000_000  # numbers: 32 MB


@dataclass(frozen=True)
class RelevanceJudgments:
    """Relevance judgments by row, in the form that the metrics need.

    Attributes:
        keys: Sorted `query row * n_documents + document row` of the relevant documents.
        grades: The grade of each key.
        ideal: Grades of each query in descending order, padded with zeros,
            `(n_queries, largest number of relevant documents)`.
        n_documents: Size of the corpus.
    """

    keys: np.ndarray
    grades: np.ndarray
    ideal: np.ndarray
    n_documents: int

    @classmethod
    def from_qrels(
        cls,
        qrels: Mapping[str, Mapping[str, int]],
        query_ids: Sequence[str],
        document_ids: Sequence[str],
    ) -> RelevanceJudgments:
        """Convert ids to rows; only grades above zero count, as in trec_eval.

        Raises:
            DataError: A query has no relevant document, so its metrics are undefined.
        """
        place = {document_id: row for row, document_id in enumerate(document_ids)}
        relevant = [
            {place[document_id]: grade for document_id, grade in qrels.get(query_id, {}).items() if grade > 0}
            for query_id in query_ids
        ]
        empty = next((query_id for query_id, rows in zip(query_ids, relevant, strict=True) if not rows), None)
        if empty is not None:
            raise DataError(f'query "{empty}" has no relevant document; remove it')
        n_documents = len(document_ids)
        judged = sorted(
            (query * n_documents + row, grade) for query, rows in enumerate(relevant) for row, grade in rows.items()
        )
        ideal = np.zeros((len(relevant), max(map(len, relevant))))
        for query, rows in enumerate(relevant):
            ideal[query, : len(rows)] = sorted(rows.values(), reverse=True)
        keys, grades = np.array(judged, dtype=np.int64).T
        return cls(keys, grades.astype(float), ideal, n_documents)

    def find_grades(self, rows: np.ndarray) -> np.ndarray:
        """Return the grade of each ranked document, 0 if it is not relevant or the row is -1 (no document)."""
        queries = np.arange(len(rows), dtype=np.int64)[:, None]
        wanted = queries * self.n_documents + rows
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((self.keys[places] == wanted) & (rows >= 0), self.grades[places], 0.0)


def score_rankings(rows: np.ndarray, judged: RelevanceJudgments, cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """Score rankings at several cutoffs.

    F1@k is the harmonic mean of a query's precision@k and recall@k, 0 where both are 0.

    Args:
        rows: int array `(n_queries, depth)`: rows of documents, best first; -1 after the end of
            a ranking.
        judged: The relevance judgments.
        cutoffs: The k of the metrics, at most `depth`.

    Returns:
        For each metric, such as "NDCG@10", a float array `(n_queries,)` of values from 0 to 1.

    Raises:
        DataError: A cutoff is below 1 or above the size of the corpus (recall would be 1 for any
            ranking), or above the depth of the rankings.
    """
    deepest = max(cutoffs)
    if min(cutoffs) < 1 or deepest > judged.n_documents:
        raise DataError(f"cutoffs {list(cutoffs)}: each must be between 1 and the {judged.n_documents} documents")
    if deepest > rows.shape[1]:
        raise DataError(f"cutoff {deepest}: the rankings hold {rows.shape[1]} documents; search deeper")
    grades = judged.find_grades(rows[:, :deepest])  # (n_queries, deepest)
    places = np.arange(1, deepest + 1)
    discounts = 1 / np.log2(places + 1)
    n_found = np.cumsum(grades > 0, axis=1)
    n_relevant = np.count_nonzero(judged.ideal, axis=1)
    gain = np.cumsum(grades * discounts, axis=1)
    ideal = np.zeros_like(grades)
    width = min(deepest, judged.ideal.shape[1])
    ideal[:, :width] = judged.ideal[:, :width]
    best_gain = np.cumsum(ideal * discounts, axis=1)
    precision_sum = np.cumsum(np.where(grades > 0, n_found / places, 0), axis=1)
    first = np.where(n_found[:, -1] > 0, (grades > 0).argmax(axis=1) + 1, np.inf)

    values = {}
    for k in cutoffs:
        found = n_found[:, k - 1]
        values[f"NDCG@{k}"] = gain[:, k - 1] / best_gain[:, k - 1]
        values[f"F1@{k}"] = 2 * found / (k + n_relevant)  # 2PR / (P + R) with P = found / k, R = found / relevant
        values[f"Precision@{k}"] = found / k
        values[f"Recall@{k}"] = found / n_relevant
        values[f"MRR@{k}"] = np.where(first <= k, 1 / first, 0)
        values[f"MAP@{k}"] = precision_sum[:, k - 1] / n_relevant
    return values


def resample_means(values: np.ndarray, n_resamples: int = N_RESAMPLES) -> np.ndarray:
    """Return the means of bootstrap samples over queries.

    The resamples depend on the number of queries only, so two models are paired.

    Args:
        values: float array `(n_queries, n_metrics)`; all metrics use the same resamples.
        n_resamples: Number of bootstrap samples.

    Returns:
        float array `(n_resamples, n_metrics)`.
    """
    n_queries = len(values)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    means = np.empty((n_resamples, values.shape[1]))
    step = max(1, RESAMPLED_AT_A_TIME // n_queries)
    for start in range(0, n_resamples, step):
        n_rows = min(step, n_resamples - start)
        drawn = rng.integers(n_queries, size=(n_rows, n_queries)) + np.arange(n_rows)[:, None] * n_queries
        counts = np.bincount(drawn.ravel(), minlength=n_rows * n_queries).reshape(n_rows, n_queries)
        means[start : start + n_rows] = counts @ values / n_queries
    return means


def bootstrap_interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of the 95% percentile interval of resampled means `(n_resamples, ...)`."""
    tail = (1 - 0.95) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def find_p_value(means: np.ndarray, observed: float) -> float:
    """Return the two-sided p-value of a mean difference, from its resampled means shifted to zero.

    The bootstrap shift test of Smucker, Allan and Carterette (2007), section 3.4. Never zero: the
    observed sample counts as one of the resamples.
    """
    far = np.abs(means - means.mean()) >= abs(observed) - 1e-12
    return float((far.sum() + 1) / (len(means) + 1))
