"""Encoding, index files and search, against loops over all pairs of texts."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from perspective.artifacts import Output
from perspective.errors import DataError
from perspective.hybrid import index as index_module
from perspective.hybrid import search as search_module
from perspective.hybrid.encoding import encode_texts
from perspective.hybrid.index import DTYPES, build_index, read_index
from perspective.hybrid.search import HYBRID_WAYS, search_hybrid, search_sparse
from perspective.models.embedders import load_embedder
from perspective.models.hybrid import WAYS, Representations, add_heads, score_ways, sum_scores

SUMMED = {
    "dense": ["dense"],
    "sparse": ["sparse"],
    "multi": ["multi"],
    "dense-sparse": ["dense", "sparse"],
    "all": WAYS,
}


@pytest.fixture(scope="module")
def model(embedder_folder):
    model = load_embedder(str(embedder_folder), device="cpu")
    torch.nn.init.normal_(add_heads(model, seed=1).lexical.weight, std=0.2, generator=torch.Generator().manual_seed(1))
    return model.eval()


@pytest.fixture
def texts(sentences):
    return [f"{text} {i % 7}" for i, text in enumerate(sentences(40))]


def score_all(model, queries, documents):
    with torch.no_grad():
        sides = (Representations.from_features(model(model.preprocess(part))) for part in (queries, documents))
        return {way: scores.numpy() for way, scores in score_ways(*sides).items()}


@pytest.mark.parametrize("way", HYBRID_WAYS)
def test_search_ranks_as_the_scores_of_all_pairs(model, texts, way):
    queries, documents = texts[:6], texts[6:]
    ids = [f"d{row}" for row in range(len(documents))]
    encoded = encode_texts(model, queries), encode_texts(model, documents, batch_size=5)
    hits = search_hybrid(*encoded, ids, way, depth=10)
    wanted = sum_scores(score_all(model, queries, documents), SUMMED[way]) * (0.3 if way == "sparse" else 1)
    wanted = wanted / 0.3 / 0.3 if way == "sparse" else wanted
    for row, scores in enumerate(wanted):
        best = np.sort(scores)[::-1][:10]
        found = hits.scores[row][hits.rows[row] >= 0]
        assert len(found) == min(10, (scores > 0).sum())
        np.testing.assert_allclose(found, best[: len(found)], atol=2e-3)  # token vectors are in half precision
        np.testing.assert_allclose(scores[hits.rows[row][hits.rows[row] >= 0]], found, atol=2e-3)
    assert (np.diff(hits.scores[np.isfinite(hits.scores).all(axis=1)]) <= 0).all()


def test_multi_ranks_only_the_first_of_dense(model, texts, monkeypatch):
    monkeypatch.setattr(search_module, "N_CANDIDATES", 4)
    queries, documents = encode_texts(model, texts[:3]), encode_texts(model, texts[3:])
    ids = [str(row) for row in range(len(documents))]
    dense, multi = (search_hybrid(queries, documents, ids, way, depth=4) for way in ("dense", "multi"))
    np.testing.assert_array_equal(np.sort(dense.rows), np.sort(multi.rows))


def test_sparse_search_finds_only_what_shares_a_token():
    from scipy.sparse import csr_array

    documents = csr_array(np.array([[0, 2, 0], [1, 0, 0], [0, 2, 5], [0, 0, 0]], dtype=np.float32))
    queries = csr_array(np.array([[0, 3, 0], [0, 0, 0]], dtype=np.float32))
    hits = search_sparse(queries, documents.T.tocsr(), ["a", "b", "c", "d"], depth=3)
    assert hits.rows.tolist() == [[2, 0, -1], [-1, -1, -1]]  # of equal scores the higher id, as trec_eval
    assert hits.scores[0, :2].tolist() == [6, 6] and np.isneginf(hits.scores[1]).all()


@pytest.fixture
def built(model, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "TEXTS_AT_A_TIME", 16)
    output = Output(tmp_path / "index", "hybrid index", {"texts": 1})
    build_index(output, texts, partial(encode_texts, model))
    return tmp_path / "index"


def test_an_index_of_blocks_is_what_encoding_at_once_gives(model, texts, built):
    whole, index = encode_texts(model, texts), read_index(built)
    np.testing.assert_allclose(index.dense, whole.dense, atol=1e-6)
    np.testing.assert_allclose(index.lexical.toarray(), whole.lexical.toarray(), atol=1e-5)
    np.testing.assert_array_equal(index.offsets, whole.offsets)
    np.testing.assert_allclose(index.vectors, whole.vectors, atol=2e-3)
    assert isinstance(index.vectors, np.memmap) and index.vectors.dtype == np.float16
    assert not built.with_name("index.partial").exists()


def test_a_killed_index_encodes_only_what_is_missing(model, texts, built, tmp_path):
    calls = []

    def encode(block):
        calls.append(len(block))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode_texts(model, block)

    again = [Output(tmp_path / "again", "hybrid index", {"texts": 1}) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt):
        build_index(again[0], texts, encode)
    build_index(again[1], texts, encode)
    assert calls == [16, 16, 16, 8]
    for name in DTYPES:
        np.testing.assert_array_equal(np.load(built / f"{name}.npy"), np.load(tmp_path / "again" / f"{name}.npy"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "vectors.npy").unlink(), r"vectors\.npy: no such file; make the index again"),
        (lambda folder: (folder / "index.json").unlink(), r"no index \(no index\.json\); make one with index\.sh"),
        (lambda folder: (folder / "index.json").write_text('{"n_documents": 0}'), '"n_documents" is 0'),
        (
            lambda folder: (folder / "dense.npy").write_bytes((folder / "dense.npy").read_bytes()[:200]),
            r"dense\.npy: not a whole \.npy array",
        ),
        (
            lambda folder: np.save(folder / "vectors.npy", np.ones((3, 2), np.float16)),
            "vector_offsets.npy: does not fit",
        ),
        (lambda folder: np.save(folder / "dense.npy", np.ones(3)), r"dense\.npy: expected float32, found float64"),
        (
            lambda folder: np.save(folder / "dense.npy", np.array([{}]), allow_pickle=True),
            r"dense\.npy: not a whole \.npy array",
        ),
        (
            lambda folder: (folder / "index.json").write_text(json.dumps({"n_documents": 4, "n_vocabulary": 90})),
            "does not fit",
        ),
    ],
)
def test_a_damaged_index_is_refused_in_one_line(built, spoil, message):
    spoil(built)
    with pytest.raises(DataError, match=message) as error:
        read_index(built)
    assert "\n" not in str(error.value)


def test_a_document_without_a_lexical_weight_is_encoded(model):
    encoded = encode_texts(model, ["", "card"])
    assert encoded.lexical[[0]].nnz == 0 and encoded.offsets.tolist()[1] == 1  # [SEP] has a vector
