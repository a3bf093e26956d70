"""M3's three ways: encoding them at once, searching a million documents sparsely and densely, ranking candidates."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from sentence_transformers.util.similarity import maxsim

from perspective.benchmarks.speed.comparison import Row, SpeedSettings, measure_peak, read_texts, time_once, time_pairs
from perspective.hybrid.encoding import EncodedTexts, encode_texts
from perspective.hybrid.search import N_CANDIDATES, score_tokens, search_sparse
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.models.hybrid import add_heads
from perspective.retrieval.search import search_dense

N_TEXTS = 256
N_SEARCHED = 1_000_000  # documents
N_TERMS, N_VOCABULARY, N_QUERY_TERMS = 40, 30_000, 8  # of a document, in all, of a query
N_ASKED = 64  # queries
N_DOCUMENT_TOKENS, N_QUERY_TOKENS, DIM = 128, 16, 384
N_LISTS, N_PROBED, N_SAMPLED = 1024, 16, 65_536  # of faiss: clusters, those searched, vectors that they are made of


def bench_hybrid(settings: SpeedSettings) -> list[Row]:
    """Encode, search and rank."""
    rng = np.random.default_rng(0)
    return [_bench_encoding(settings), _bench_sparse(settings, rng), _bench_tokens(settings, rng), _bench_dense(rng)]


def _bench_encoding(settings: SpeedSettings) -> Row:
    texts = read_texts("banking77")[:N_TEXTS]
    model, plain = load_embedder("minilm"), load_embedder("minilm")
    add_heads(model)
    model.eval()

    def separately() -> None:
        embed_texts(plain, texts)
        for _ in ("sparse", "multi"):
            encode_texts(model, texts)

    one, other, ratio = time_pairs(lambda: encode_texts(model, texts), separately, settings.n_pairs)
    apart = np.abs(encode_texts(model, texts).dense - embed_texts(plain, texts)).max()
    return Row(
        f"{N_TEXTS} texts, all three ways of a MiniLM body",
        "three models of the same body",
        "stated",
        one,
        other,
        ratio,
        f"dense vectors to {apart:.0e}",
        f"{N_TEXTS / one:.0f} against {N_TEXTS / other:.0f} texts/s",
    )


def draw_terms(rng: np.random.Generator, n_texts: int, n_terms: int) -> csr_array:
    """Return random weights `(n_texts, N_VOCABULARY)`; as in texts, few tokens are in many of them."""
    terms = (N_VOCABULARY * rng.random((n_texts, n_terms)) ** 3).astype(np.int32)
    weights = rng.random(terms.shape, dtype=np.float32).ravel()
    matrix = csr_array((weights, terms.ravel(), np.arange(n_texts + 1) * n_terms), shape=(n_texts, N_VOCABULARY))
    matrix.sum_duplicates()
    return matrix


def _bench_sparse(settings: SpeedSettings, rng: np.random.Generator) -> Row:
    import bm25s

    documents, queries = draw_terms(rng, N_SEARCHED, N_TERMS), draw_terms(rng, N_ASKED, N_QUERY_TERMS)
    queries.data[:] = 1  # bm25s weighs no term of a query
    ids = [f"{row:07d}" for row in range(N_SEARCHED)]
    encoded = EncodedTexts(np.zeros((N_SEARCHED, 1)), documents, np.zeros((0, 1)), np.zeros(N_SEARCHED + 1))
    built = time_once(lambda: encoded.inverted)
    inverted, columns = encoded.inverted, documents.tocsc()
    other_index = bm25s.BM25()
    other_index.nonoccurrence_array = None
    other_index.scores = {
        **{"data": columns.data, "indices": columns.indices, "indptr": columns.indptr},
        "num_docs": N_SEARCHED,
    }

    def ask_bm25s() -> list[float]:
        best = []
        for row in range(N_ASKED):
            scores = other_index.get_scores_from_ids(queries[[row]].indices.tolist())
            best.append(bm25s.selection.topk(scores, k=100, sorted=True)[0][0])
        return best

    def ask_ours() -> np.ndarray:
        return search_sparse(queries, inverted, ids, 100).scores[:, 0]

    one, other, ratio = time_pairs(ask_ours, ask_bm25s, settings.n_pairs)
    apart = np.abs(ask_ours() - np.array(ask_bm25s())).max()
    return Row(
        f"sparse search, {N_ASKED} queries, {N_SEARCHED:,} documents of {N_TERMS} terms",
        "bm25s on the same weights, both indexes made before",
        "stated",
        one,
        other,
        ratio,
        f"best scores to {apart:.0e}",
        f"{1000 * one / N_ASKED:.0f} against {1000 * other / N_ASKED:.0f} ms a query; inverting took {built:.0f} s",
    )


def _bench_tokens(settings: SpeedSettings, rng: np.random.Generator) -> Row:
    shape = (N_CANDIDATES, N_DOCUMENT_TOKENS, DIM)
    vectors = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)), dim=-1)
    query = vectors[0, :N_QUERY_TOKENS].numpy()
    documents = EncodedTexts(
        dense=np.zeros((N_CANDIDATES, 1), dtype=np.float32),
        lexical=csr_array((N_CANDIDATES, 1)),
        vectors=vectors.half().flatten(0, 1).numpy(),
        offsets=np.arange(N_CANDIDATES + 1) * N_DOCUMENT_TOKENS,
    )
    rows = np.arange(N_CANDIDATES)

    def theirs() -> torch.Tensor:
        return maxsim(torch.from_numpy(query)[None], vectors.half().float(), length_normalize=True)[0]

    one, other, ratio = time_pairs(lambda: score_tokens(query, documents, rows), theirs, settings.n_pairs)
    apart = np.abs(score_tokens(query, documents, rows) - theirs().numpy()).max()
    return Row(
        f"token vectors of {N_CANDIDATES} candidates, {N_DOCUMENT_TOKENS} tokens of {DIM}, against {N_QUERY_TOKENS}",
        "maxsim of sentence-transformers, padded",
        "stated",
        one,
        other,
        ratio,
        f"scores to {apart:.0e}",
        f"{1000 * one:.0f} against {1000 * other:.0f} ms a query, from half precision",
    )


def _bench_dense(rng: np.random.Generator) -> Row:
    """Exact search against an inverted file of faiss, whose vectors are clustered before the clock starts."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    centres = rng.standard_normal((256, DIM), dtype=np.float32)
    vectors = centres[rng.integers(256, size=N_SEARCHED)]
    vectors += rng.standard_normal(vectors.shape, dtype=np.float32)
    faiss.normalize_L2(vectors)
    queries = vectors[:N_ASKED] + 0.05 * rng.standard_normal((N_ASKED, DIM), dtype=np.float32)
    ids = [f"{row:07d}" for row in range(N_SEARCHED)]
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, N_LISTS, faiss.METRIC_INNER_PRODUCT)

    def fill() -> None:
        index.train(vectors[:N_SAMPLED])
        index.add(vectors)

    built = time_once(fill)
    index.nprobe = N_PROBED
    one, other, ratio = time_pairs(
        lambda: search_dense(queries, vectors, ids, 100), lambda: index.search(queries, 100), 1
    )
    exact, found = search_dense(queries, vectors, ids, 100).rows, index.search(queries, 100)[1]
    agreement = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(exact, found, strict=True)])
    return Row(
        f"exact dense search, {N_ASKED} queries, {N_SEARCHED:,} vectors of {DIM}",
        f"faiss, {N_PROBED} of {N_LISTS} lists",
        "stated",
        one,
        other,
        ratio,
        f"{100 * agreement:.0f}% of the first 100",
        f"faiss took {built:.0f} s to build; peak memory of both {measure_peak() / 2**30:.1f} GiB",
    )
