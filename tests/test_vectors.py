import tracemalloc

import numpy as np
import pytest

from perspective import vectors as vectors_module
from perspective.vectors import blend, blend_directions, center_rows, half_whiten, keep_directions, normalize_rows


@pytest.fixture
def mixture():
    """300 rows from 6 well-separated clusters in 16 dimensions, and the clusters."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(6), 50)
    return (rng.normal(size=(6, 16))[kinds] + 0.3 * rng.normal(size=(300, 16))).astype(np.float32), kinds


def neighbor_purity(vectors, kinds, k=10):
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return (kinds[np.argsort(-similarity, axis=1)[:, :k]] == kinds[:, None]).mean()


def test_half_whitening_takes_the_square_root_of_the_deviations():
    """One large direction and small deviations, so that scaling rows to length 1 changes little."""
    rng = np.random.default_rng(1)
    signs = rng.choice([-1.0, 1.0], size=4000)
    rows = np.column_stack([signs, 0.04 * rng.normal(size=4000), 0.0025 * rng.normal(size=4000)])
    deviations = np.sort(half_whiten(rows).std(axis=0))
    assert deviations[1] / deviations[0] == pytest.approx(4, rel=0.1)  # before: 16


def test_half_whitening_recovers_clusters_hidden_by_a_few_strong_directions(mixture):
    vectors, kinds = mixture
    rng = np.random.default_rng(2)
    hidden = np.hstack([vectors, 8 * rng.normal(size=(300, 4))])
    assert neighbor_purity(half_whiten(hidden), kinds) > neighbor_purity(center_rows(hidden), kinds) + 0.1


def test_half_whitening_leaves_out_directions_without_variance():
    rows = np.random.default_rng(3).normal(size=(20, 64))  # more dimensions than rows
    white = half_whiten(rows)
    assert white.shape[1] <= 20 and np.isfinite(white).all()
    assert np.isfinite(half_whiten(np.repeat(rows[:1], 20, axis=0))).all()  # all texts alike


def test_blend_adds_cosines_by_weight(mixture):
    vectors = normalize_rows(mixture[0])
    states = normalize_rows(np.random.default_rng(4).normal(size=(300, 5)))
    both = blend(vectors, states, 0.5)
    assert np.allclose(both @ both.T, (vectors @ vectors.T + 0.5 * states @ states.T) / 1.5, atol=1e-5)


def test_the_strongest_directions_are_kept(mixture):
    vectors, kinds = mixture
    kept = keep_directions(vectors, 5)
    assert kept.shape == (300, 5) and np.allclose(kept.mean(axis=0), 0, atol=1e-5)
    assert (np.diff(kept.var(axis=0)) <= 1e-6).all()
    assert keep_directions(vectors, 99).shape == vectors.shape


def test_chunks_give_the_same_as_one(mixture, monkeypatch):
    rows = mixture[0]
    states = np.random.default_rng(6).normal(size=(300, 24)).astype(np.float32)
    unit = normalize_rows(states)

    def compute():
        return (
            normalize_rows(rows),
            center_rows(rows),
            half_whiten(states),
            np.abs(keep_directions(states, 5)),  # directions have no sign
            np.abs(blend_directions(center_rows(rows), unit, 0.5, 5)),
        )

    whole = compute()
    assert np.allclose(whole[-1], np.abs(keep_directions(blend(center_rows(rows), unit, 0.5), 5)), atol=1e-5)
    monkeypatch.setattr(vectors_module, "ROWS_AT_A_TIME", 64)
    for one, other in zip(whole, compute(), strict=True):
        assert one.dtype == other.dtype == np.float32
        assert np.allclose(one, other, atol=1e-4)


def test_memory_stays_near_arguments_and_result(monkeypatch):
    """A million texts have gigabytes of states: whitening makes one array of their size, not five."""
    states = np.random.default_rng(7).normal(size=(40_000, 64)).astype(np.float32)
    monkeypatch.setattr(vectors_module, "ROWS_AT_A_TIME", 2000)
    half_whiten(states[:3000])  # what is loaded on the way
    tracemalloc.start()
    half_whiten(states)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * states.nbytes
