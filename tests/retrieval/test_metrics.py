"""Metrics against trec_eval, sentence-transformers and mteb; the bootstrap."""

import numpy as np
import pytest

from perspective.errors import DataError
from perspective.retrieval.metrics import (
    RelevanceJudgments,
    bootstrap_interval,
    find_p_value,
    resample_means,
    score_rankings,
)
from perspective.retrieval.search import search_dense

CUTOFFS = (1, 3, 5, 10)
N_QUERIES, N_DOCUMENTS = 40, 60


def make_run(seed, max_grade=3, max_relevant=12):
    """Random scores with many ties, graded judgments; ids whose order is not that of their rows."""
    rng = np.random.default_rng(seed)
    document_ids = [f"d{number:03d}" for number in rng.permutation(N_DOCUMENTS)]
    query_ids = [f"q{number}" for number in range(N_QUERIES)]
    scores = rng.integers(0, 8, size=(N_QUERIES, N_DOCUMENTS)).astype(np.float32) - 3
    qrels = {}
    for query_id in query_ids:
        judged = rng.choice(document_ids, size=int(rng.integers(1, max_relevant + 1)), replace=False)
        qrels[query_id] = {str(key): int(rng.integers(0, max_grade + 1)) for key in judged}
        qrels[query_id][str(judged[0])] = max_grade
    return query_ids, document_ids, scores, qrels


def rank(scores, document_ids, depth=10):
    # A score matrix is the product with the identity: the real search ranks it.
    return search_dense(scores, np.eye(len(document_ids), dtype=np.float32), document_ids, depth).rows


def score(query_ids, document_ids, scores, qrels):
    return score_rankings(
        rank(scores, document_ids), RelevanceJudgments.from_qrels(qrels, query_ids, document_ids), CUTOFFS
    )


def as_run(query_ids, document_ids, scores):
    return {
        query_id: dict(zip(document_ids, map(float, row), strict=True))
        for query_id, row in zip(query_ids, scores, strict=True)
    }


@pytest.mark.parametrize("seed", range(5))
def test_equal_trec_eval_with_grades_and_ties(seed):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    query_ids, document_ids, scores, qrels = make_run(seed)
    values = score(query_ids, document_ids, scores, qrels)
    at = ",".join(map(str, CUTOFFS))
    evaluator = pytrec_eval.RelevanceEvaluator(
        qrels, {f"ndcg_cut.{at}", f"map_cut.{at}", f"P.{at}", f"recall.{at}", "recip_rank"}
    )
    expected = evaluator.evaluate(as_run(query_ids, document_ids, scores))
    for row, query_id in enumerate(query_ids):
        for k in CUTOFFS:
            for ours, theirs in (("NDCG", "ndcg_cut"), ("MAP", "map_cut"), ("Precision", "P"), ("Recall", "recall")):
                assert values[f"{ours}@{k}"][row] == pytest.approx(expected[query_id][f"{theirs}_{k}"], abs=1e-6)
            reciprocal = expected[query_id]["recip_rank"]
            within = reciprocal if reciprocal >= 1 / k - 1e-9 else 0
            assert values[f"MRR@{k}"][row] == pytest.approx(within, abs=1e-6)
            precision, recall = expected[query_id][f"P_{k}"], expected[query_id][f"recall_{k}"]
            f1 = 2 * precision * recall / (precision + recall) if precision else 0
            assert values[f"F1@{k}"][row] == pytest.approx(f1, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_equal_information_retrieval_evaluator_where_it_defines_the_same(seed):
    # It takes grades as 0 or 1, divides AP@k by min(k, relevant) and breaks ties by ascending id:
    # with such grades, at most k relevant documents for MAP, and ids mirrored, it must agree.
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    query_ids, document_ids, scores, qrels = make_run(seed, max_grade=1, max_relevant=10)
    values = score(query_ids, document_ids, scores, qrels)
    mirrored = {key: f"d{999 - int(key[1:]):03d}" for key in document_ids}
    evaluator = InformationRetrievalEvaluator(
        queries={key: key for key in query_ids},
        corpus={mirrored[key]: key for key in document_ids},
        relevant_docs={
            query_id: {mirrored[key] for key, grade in grades.items() if grade} for query_id, grades in qrels.items()
        },
        **{f"{name}_at_k": list(CUTOFFS) for name in ("mrr", "ndcg", "accuracy", "precision_recall")},
        map_at_k=[10],
    )
    hits = [
        [{"corpus_id": mirrored[key], "score": float(value)} for key, value in zip(document_ids, row, strict=True)]
        for row in scores
    ]
    expected = evaluator.compute_metrics(hits)
    for k in CUTOFFS:
        for ours, theirs in (("NDCG", "ndcg"), ("Precision", "precision"), ("Recall", "recall"), ("MRR", "mrr")):
            assert values[f"{ours}@{k}"].mean() == pytest.approx(expected[f"{theirs}@k"][k], abs=1e-6)
        assert (values[f"Recall@{k}"] > 0).mean() == pytest.approx(expected["accuracy@k"][k], abs=1e-6)
    assert values["MAP@10"].mean() == pytest.approx(expected["map@k"][10], abs=1e-6)


def test_equal_mteb():
    metrics = pytest.importorskip("mteb._evaluators.retrieval_metrics")
    query_ids, document_ids, scores, qrels = make_run(7)
    values = score(query_ids, document_ids, scores, qrels)
    expected = metrics.calculate_retrieval_scores(as_run(query_ids, document_ids, scores), qrels, list(CUTOFFS))
    for k in CUTOFFS:  # all but the MRR rounded to five digits by mteb
        assert values[f"NDCG@{k}"].mean() == pytest.approx(expected.ndcg[f"NDCG@{k}"], abs=6e-6)
        assert values[f"MAP@{k}"].mean() == pytest.approx(expected.map[f"MAP@{k}"], abs=6e-6)
        assert values[f"MRR@{k}"].mean() == pytest.approx(expected.mrr[f"MRR@{k}"], abs=1e-6)


def test_by_hand():
    judged = RelevanceJudgments.from_qrels({"q": {"a": 2, "b": 1, "c": 0}}, ["q"], ["a", "b", "c", "d"])
    values = score_rankings(np.array([[3, 0, 2, -1]]), judged, [1, 3])  # d, a, c
    assert values["NDCG@3"][0] == pytest.approx((2 / np.log2(3)) / (2 + 1 / np.log2(3)))
    assert values["Precision@3"][0] == pytest.approx(1 / 3)
    assert values["Recall@3"][0] == 0.5
    assert values["F1@3"][0] == pytest.approx(0.4)
    assert values["MRR@3"][0] == 0.5
    assert values["MAP@3"][0] == 0.25
    assert [values[f"{name}@1"][0] for name in ("NDCG", "F1", "MRR", "MAP")] == [0, 0, 0, 0]


def test_a_ranking_that_ended_finds_nothing_more():
    judged = RelevanceJudgments.from_qrels({"q": {"d": 1}, "r": {"a": 1}}, ["q", "r"], ["a", "b", "c", "d"])
    values = score_rankings(np.array([[0, -1], [-1, -1]]), judged, [2])
    assert values["Recall@2"].tolist() == [0, 0]


def test_refuses_what_has_no_meaning():
    judged = RelevanceJudgments.from_qrels({"q": {"a": 1}}, ["q"], ["a", "b"])
    with pytest.raises(DataError, match=r"cutoffs \[3\]: each must be between 1 and the 2 documents"):
        score_rankings(np.array([[0, 1]]), judged, [3])
    with pytest.raises(DataError, match="search deeper"):
        score_rankings(np.array([[0]]), judged, [2])
    with pytest.raises(DataError, match='query "q" has no relevant document'):
        RelevanceJudgments.from_qrels({"q": {"a": 0}}, ["q"], ["a"])


def test_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(0.5, 0.2, size=(400, 1))
    means = resample_means(values)
    low, high = bootstrap_interval(means)
    error = values.std() / np.sqrt(400)
    assert means.shape == (10_000, 1)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=error / 5)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=error / 5)
    assert (resample_means(values) == means).all()  # the seed is fixed


def test_bootstrap_does_not_depend_on_how_much_is_drawn_at_a_time(monkeypatch):
    values = np.random.default_rng(1).random((7, 3))
    whole = resample_means(values, 50)
    monkeypatch.setattr("perspective.retrieval.metrics.RESAMPLED_AT_A_TIME", 30)
    assert resample_means(values, 50) == pytest.approx(whole)


def test_p_value():
    rng = np.random.default_rng(2)
    for shift, low, high in ((0.0, 0.02, 1.0), (0.2, 0.0, 0.001)):
        values = rng.normal(shift, 0.5, size=(300, 1))
        assert low < find_p_value(resample_means(values)[:, 0], values.mean()) <= high
    assert find_p_value(np.zeros(100), 0.0) == 1.0


def test_every_query_is_drawn_equally_often():
    means = resample_means(np.eye(5))
    np.testing.assert_allclose(means.sum(axis=1), 1)
    np.testing.assert_allclose(means.mean(axis=0), 0.2, atol=0.01)
