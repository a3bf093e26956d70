import numpy as np
import pytest
from scipy import sparse

from perspective.teacher import graph as graph_module
from perspective.teacher.graph import connect_neighbors, count_neighbors, diffuse
from perspective.teacher.teacher import blend_views
from perspective.vectors import center_rows, half_whiten, normalize_rows


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(6), 50)
    return normalize_rows(rng.normal(size=(6, 16))[kinds] + rng.normal(size=(300, 16))).astype(np.float32), kinds


def test_the_graph_is_symmetric_without_loops_and_normalised(rows):
    vectors, _ = rows
    graph = connect_neighbors(vectors, vectors, None, 0.0)
    assert abs(graph - graph.T).max() < 1e-6 and graph.diagonal().max() == 0
    assert (graph > 0).sum(axis=1).min() >= count_neighbors(300)
    largest = np.linalg.eigvalsh(graph.toarray())[-1]
    assert largest == pytest.approx(1, abs=1e-4)


def test_states_choose_among_the_candidates_only(rows):
    vectors, kinds = rows
    states = normalize_rows(np.random.default_rng(1).normal(size=(4, 8))[np.arange(300) % 4])  # an unrelated property
    alone, both = (connect_neighbors(vectors, vectors, one, 0.5) for one in (None, states))
    found = both.tocoo()
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)[:, : graph_module.CANDIDATES_PER_NEIGHBOR * 3 + 1]
    for row, column in zip(found.row, found.col, strict=True):
        assert column in nearest[row] or row in nearest[column]
    same = [np.mean((states[g.tocoo().row] == states[g.tocoo().col]).all(axis=1)) for g in (alone, both)]
    assert same[1] > same[0] + 0.2


def test_diffusion_solves_its_recurrence_and_tightens_clusters(rows):
    vectors, kinds = rows
    graph = connect_neighbors(vectors, vectors, None, 0.0)
    expected = vectors
    for _ in range(graph_module.N_STEPS):
        expected = (1 - graph_module.SHARE) * vectors + graph_module.SHARE * graph.toarray() @ expected
    moved = diffuse(vectors, graph)
    assert np.allclose(moved, normalize_rows(expected), atol=1e-5)
    spread = [np.mean([rows[kinds == kind].var(axis=0).sum() for kind in range(6)]) for rows in (vectors, moved)]
    assert spread[1] < 0.4 * spread[0]


def test_columns_at_a_time_change_nothing(rows, monkeypatch):
    vectors, _ = rows
    graph = connect_neighbors(vectors, vectors, None, 0.0)
    whole = diffuse(vectors, graph)
    monkeypatch.setattr(graph_module, "COLUMNS_AT_A_TIME", 5)
    monkeypatch.setattr(graph_module, "ROWS_AT_A_TIME", 7)
    assert np.allclose(diffuse(vectors, connect_neighbors(vectors, vectors, None, 0.0)), whole, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 9])
def test_few_texts_and_equal_texts(n):
    for vectors in (np.eye(n, 16, dtype=np.float32), np.ones((n, 16), dtype=np.float32) / 4):
        graph = connect_neighbors(vectors, vectors, vectors, 1.0)
        assert sparse.issparse(graph) and np.isfinite(graph.toarray()).all()
        assert np.isfinite(diffuse(vectors, graph)).all()


def test_twenty_copies_of_a_text_do_not_hide_it(rows):
    vectors, _ = rows
    copies = np.vstack([vectors, np.repeat(vectors[:1], 100, axis=0)])
    graph = connect_neighbors(copies, copies, None, 0.0)
    assert graph.diagonal().max() == 0 and np.isfinite(diffuse(copies, graph)).all()


@pytest.fixture
def spaces():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(6), 50)
    vectors = normalize_rows(rng.normal(size=(6, 16))[kinds] + rng.normal(size=(300, 16))).astype(np.float32)
    states = (3 + rng.normal(size=(6, 24))[kinds] * np.linspace(4, 0.2, 24) + rng.normal(size=(300, 24))).astype("f4")
    return vectors, states


def connect_plainly(candidates_by, vectors, states, weight):
    n = len(vectors)
    n_neighbors = count_neighbors(n)
    weight = 0.0 if states is None else weight
    order = np.argsort(-(candidates_by @ candidates_by.T), axis=1)
    dense = np.zeros((n, n))
    for row in range(n):
        found = [
            other for other in order[row, : graph_module.CANDIDATES_PER_NEIGHBOR * n_neighbors + 1] if other != row
        ]
        alike = {other: vectors[row] @ vectors[other] for other in found}
        if states is not None:
            alike = {other: one + weight * states[row] @ states[other] for other, one in alike.items()}
        for other in sorted(found, key=lambda other: -alike[other])[:n_neighbors]:
            dense[row, other] = max(alike[other] / (1 + weight), 1e-6) ** graph_module.SHARPNESS
    dense = np.maximum(dense, dense.T)
    scale = dense.sum(axis=1) ** -0.5
    return scale[:, None] * dense * scale


@pytest.mark.parametrize("weight", [None, 0.0, 1.5])
def test_the_graph_equals_a_plain_implementation(spaces, weight):
    vectors, states = spaces
    rows = center_rows(vectors)
    white = None if weight is None else half_whiten(states)
    by = rows if not weight else blend_views(rows, white, weight)
    found = connect_neighbors(by, rows, white, weight or 0.0).toarray()
    np.testing.assert_allclose(found, connect_plainly(by, rows, white, weight or 0.0), atol=2e-5)
