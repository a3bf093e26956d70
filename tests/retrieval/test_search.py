"""Dense search, BM25, fusion, reranking."""

import importlib.util
import unicodedata

import numpy as np
import pytest
import torch

from perspective.errors import DataError
from perspective.retrieval import search
from perspective.retrieval.search import (
    Hits,
    fuse_rankings,
    rerank,
    search_bm25,
    search_dense,
    split_terms,
)


def sort_by_hand(scores, ids):
    return sorted(range(len(ids)), key=lambda row: (scores[row], ids[row]), reverse=True)


def test_dense_search_is_exact_whatever_the_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    documents = rng.integers(-2, 3, size=(97, 4)).astype(np.float32)  # small integers: many ties, negative scores
    queries = rng.integers(-2, 3, size=(23, 4)).astype(np.float32)
    ids = [f"d{number}" for number in rng.permutation(97)]
    expected = [sort_by_hand(row, ids) for row in queries @ documents.T]
    for n_documents, n_queries in ((10_000, 10_000), (7, 5), (1, 1)):
        monkeypatch.setattr(search, "DOCUMENTS_AT_A_TIME", n_documents)
        monkeypatch.setattr(search, "QUERIES_AT_A_TIME", n_queries)
        hits = search_dense(queries, documents, ids, 20)
        assert hits.rows.tolist() == [row[:20] for row in expected]
        assert (hits.scores == np.take_along_axis(queries @ documents.T, hits.rows, axis=1)).all()
    assert search_dense(queries, documents, ids, 500).rows.shape == (23, 97)  # no deeper than the corpus


def test_keys_order_and_give_back_every_float():
    values = torch.tensor([-np.inf, -3.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, np.inf])
    ranks = torch.arange(8)
    keys = search.make_keys(values, ranks)
    assert (keys.diff() > 0).all()
    assert search.make_keys(torch.tensor([-0.0]), ranks[:1]) == search.make_keys(torch.tensor([0.0]), ranks[:1])
    hits = search.read_keys(keys[None], ranks)
    assert hits.rows.tolist() == [list(range(8))]
    assert hits.scores.tolist() == [values.tolist()]


def test_drop_leaves_the_rest_in_order():
    hits = Hits(np.array([[3, 1, 2], [0, 2, -1]]), np.array([[3.0, 2, 1], [2, 1, -np.inf]], dtype=np.float32))
    dropped = hits.drop(np.array([1, -1]))
    assert dropped.rows.tolist() == [[3, 2, -1], [0, 2, -1]]
    assert dropped.scores.tolist() == [[3, 1, -np.inf], [2, 1, -np.inf]]


def test_bm25_finds_only_what_shares_a_term():
    pytest.importorskip("bm25s")
    documents = ["the cat sat on the mat", "a dog barked", "the dog and the cat", "검색모델을 평가한다"]
    hits = search_bm25(["cat cat", "unheard words", "검색모델"], documents, ["a", "b", "c", "d"], 10)
    assert hits.rows.tolist() == [[2, 0, -1, -1], [-1, -1, -1, -1], [3, -1, -1, -1]]
    assert np.isneginf(hits.scores[1]).all()


def test_bm25_finds_nothing_where_no_document_has_a_term():
    pytest.importorskip("bm25s")
    hits = search_bm25(["cat", "!"], ["!!!", "?"], ["a", "b"], 10)
    assert hits.rows.tolist() == [[-1, -1], [-1, -1]]
    assert np.isneginf(hits.scores).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("검색 모델은", ["검색", "모델", "델은"]),
        ("Café, n_jobs=2", ["café", "n_jobs", "2"]),
        ("हिन्दी में खोज", ["हिन्दी", "में", "खोज"]),
        ("ﬁle Ｘ²", ["file", "x2"]),
        ("q\u0303 \u0303 x", ["q\u0303", "x"]),  # no letter comes with this accent; a mark alone is no term
    ],
)
def test_terms_do_not_depend_on_how_characters_are_composed(text, expected):
    for form in ("NFC", "NFD"):
        assert split_terms(unicodedata.normalize(form, text)) == [unicodedata.normalize("NFKC", e) for e in expected]


def test_bm25_scores_are_lucene_s():
    pytest.importorskip("bm25s")
    documents = ["x y", "x x z w", "v w"]
    hits = search_bm25(["x"], documents, ["a", "b", "c"], 3)
    idf = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    length = np.mean([2, 4, 2])
    expected = [idf * tf / (tf + 1.5 * (0.25 + 0.75 * n / length)) for tf, n in ((1, 2), (2, 4))]
    found = dict(zip(hits.rows[0].tolist(), hits.scores[0].tolist(), strict=True))
    assert [found[0], found[1]] == pytest.approx(expected, rel=1e-5)


def test_bm25_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install -r requirements-retrieval.txt"):
        search_bm25(["a"], ["a"], ["a"], 1)


def test_reciprocal_rank_fusion_by_hand():
    scores = np.zeros((1, 3), dtype=np.float32)
    one = Hits(np.array([[0, 1, 2]]), scores)
    other = Hits(np.array([[1, 3, -1]]), scores)
    fused = fuse_rankings([one, other], ["a", "b", "c", "d"], 5)
    assert fused.rows.tolist() == [[1, 0, 3, 2, -1]]
    assert fused.scores[0, :4].tolist() == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])


def test_fusion_breaks_ties_by_id_from_the_highest():
    scores = np.zeros((2, 1), dtype=np.float32)
    fused = fuse_rankings([Hits(np.array([[0], [1]]), scores), Hits(np.array([[1], [0]]), scores)], ["a", "b"], 2)
    assert fused.rows.tolist() == [[1, 0], [1, 0]]


class LengthReranker:
    def predict(self, inputs, **options):
        return np.array([len(document) for _, document in inputs])


def test_rerank_orders_the_first_hits_and_drops_the_others():
    hits = Hits(np.array([[0, 1, 2], [2, -1, -1]]), np.zeros((2, 3), dtype=np.float32))
    found = rerank(LengthReranker(), hits, 2, ["q", "r"], ["a", "aaa", "aa"], ["x", "y", "z"], 32)
    assert found.rows.tolist() == [[1, 0], [2, -1]]
    assert found.scores[0].tolist() == [3, 1]
