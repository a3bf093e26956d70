import numpy as np
import pytest
from helpers import make_vectors
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, silhouette_score

from perspective.clustering import n_clusters
from perspective.clustering.granularity import Granularities, find_peak, list_merges, make_grid
from perspective.clustering.n_clusters import (
    BETA,
    count_dense_groups,
    find_eigengap,
    find_silhouette_peak,
    score_agreement,
    score_granularity,
    score_silhouette,
    score_stability,
    score_without_labels,
)
from perspective.vectors import normalize_rows


def make_groups(n_groups=12, n_each=30, dim=20, spread=0.15, seed=0):
    """Vectors in clear groups, and the groups."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), n_each)
    centers = rng.standard_normal((n_groups, dim))
    return (centers[groups] + spread * rng.standard_normal((len(groups), dim))).astype(np.float32), groups


@pytest.fixture(scope="module")
def view():
    return Granularities.of(make_groups()[0])


@given(st.integers(0, 10**6))
def test_the_grid_rises_to_a_quarter_of_the_texts(n_texts):
    grid = make_grid(n_texts)
    assert grid == sorted(set(grid))
    assert all(2 <= size <= n_texts // 4 for size in grid)
    if n_texts >= 8:
        assert grid[0] == 2 and grid[-1] * 1.6 > n_texts // 4


@given(st.lists(st.floats(0, 1), min_size=0, max_size=20))
def test_the_ends_of_the_grid_are_no_peak(values):
    scores = dict(zip(make_grid(10**5), values, strict=False))
    peak = find_peak(scores)
    assert peak is None or min(scores) < peak < max(scores)


def test_noise_does_not_move_the_peak():
    sizes = make_grid(4000)
    rng = np.random.default_rng(0)
    smooth = {size: np.exp(-(np.log(size / 80) ** 2)) for size in sizes}
    noisy = {size: value + 0.03 * rng.standard_normal() for size, value in smooth.items()}
    assert find_peak(noisy) == pytest.approx(80, rel=0.25)


def test_any_number_of_clusters_is_made_from_one_tree(view):
    groups = make_groups()[1]
    assert adjusted_rand_score(groups, view.cluster(12)) == 1
    assert [len(np.unique(view.cut(size))) for size in (1, 2, 7, 90)] == [1, 2, 7, 90]


def test_the_last_merges_are_those_of_the_tree(view):
    merges = list_merges(view.tree, 11)
    groups = make_groups()[1]
    assert all(len(np.unique(groups[side])) * 30 == len(side) for pair in merges for side in pair)
    assert sorted(np.concatenate(merges[-1]).tolist()) == list(range(360))


def test_silhouettes_are_those_of_all_texts(view):
    found = view.cluster_all([5, 12])
    scores = score_silhouette(view, found)
    for size, clusters in found.items():
        assert scores[size] == pytest.approx(silhouette_score(view.rows, clusters), abs=1e-4)


def test_two_views_agree_most_at_the_number_of_groups(view):
    groups = make_groups()[1]
    rng = np.random.default_rng(7)
    other = rng.standard_normal((12, 30))[groups] + 0.3 * rng.standard_normal((360, 30))
    grid = make_grid(360)
    scores = score_agreement(view.cluster_all(grid), Granularities.of(other).cluster_all(grid))
    assert find_peak(scores) in (11, 13)  # the neighbours of 12 in the grid
    assert max(scores.values()) > 0.9


def test_an_llm_that_knows_the_groups_finds_their_number(view):
    groups = make_groups()[1]
    rng = np.random.default_rng(3)
    states = normalize_rows(np.eye(12)[groups] + 0.05 * rng.standard_normal((360, 12)))
    scores = score_granularity(view, states, 90)
    assert max(scores, key=scores.get) == 12


def test_the_other_criteria_find_clear_groups(view):
    grid = make_grid(360)
    assert find_eigengap(view) == 12
    assert 12 <= count_dense_groups(view) <= 60  # dense parts of the groups
    scores = score_stability(view, grid)
    assert scores[11] > 0.85 and scores[11] > scores[grid[-1]]


def test_the_silhouette_peaks_at_the_blobs_and_is_compared_at_all_numbers():
    vectors, _ = make_groups(5, 40, seed=3)
    measures = score_without_labels(vectors)
    assert measures["n_clusters_estimated"] == 5
    assert measures["silhouette"] == max(measures["silhouette_by_n_clusters"].values()) > 0.7
    assert max(map(int, measures["silhouette_by_n_clusters"])) > 40
    assert "ACC" not in measures


def test_a_grid_end_is_no_answer():
    # Pairs of equal texts: the silhouette rises to the end of the grid.
    vectors = np.repeat(make_vectors(60, n_groups=60, dim=30), 2, axis=0)
    measures = score_without_labels(vectors)
    scores = measures["silhouette_by_n_clusters"]
    assert max(scores, key=scores.get) == list(scores)[-1]
    assert measures["n_clusters_estimated"] != int(list(scores)[-1])


@pytest.mark.parametrize("vectors", [np.eye(2), np.eye(3), np.ones((6, 2)), np.ones((40, 3))], ids=str)
def test_few_or_equal_texts_have_no_number(vectors):
    measures = score_without_labels(vectors)
    assert measures["n_clusters_estimated"] is None
    assert measures["silhouette"] is None


def test_copies_of_texts_have_the_same_eigengap_or_none_each_time():
    distinct = np.random.default_rng(0).standard_normal((60, 20))
    view = Granularities.of(np.repeat(distinct, 12, axis=0).astype(np.float32))
    assert len({find_eigengap(view) for _ in range(3)}) == 1


def test_many_texts_are_measured_on_a_sample(monkeypatch):
    monkeypatch.setattr(n_clusters, "N_MEASURED", 200)
    vectors, _ = make_groups(5, 100)
    assert score_without_labels(vectors)["n_clusters_estimated"] == 5


def test_a_peak_far_below_an_end_of_the_grid_is_none():
    assert find_peak({2: 1.0, 4: 0.1, 8: 0.45, 16: 0.2, 32: 0.1}, smoothed=False) is None
    assert find_peak({2: 1.0, 4: 0.1, 8: 0.55, 16: 0.2, 32: 0.1}, smoothed=False) == 8


def test_a_silhouette_that_only_falls_peaks_at_two():
    assert find_silhouette_peak({2: 0.6, 3: 0.4, 4: 0.3}) == 2  # a single cluster has a silhouette of 0
    assert find_silhouette_peak({2: -0.1, 3: -0.2}) is None


def test_two_clusters_are_not_compared():
    clusters = {size: np.arange(40) % size for size in (2, 3, 5)}
    assert score_agreement(clusters, clusters) == {3: 1.0, 5: 1.0}


def test_granularity_is_the_f_beta_of_merges():
    """Twelve groups that the LLM tells apart: 79 of the last 90 merges are within groups, the last 11 across."""
    vectors, groups = make_groups()
    rng = np.random.default_rng(3)
    states = normalize_rows(np.eye(12)[groups] + 0.02 * rng.standard_normal((360, 12)))
    scores = score_granularity(Granularities.of(vectors), states, 90)
    for size in (2, 6, 12, 40, 80):
        n_done = 91 - size
        precision, recall = min(1, 79 / n_done), min(1, n_done / 79)
        expected = (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
        assert scores[size] == pytest.approx(expected, abs=0.01)


def test_the_strongest_directions_of_wide_vectors_are_kept():
    vectors, groups = make_groups(n_groups=6, n_each=40, dim=150, spread=0.3)
    view = Granularities.of(vectors)
    assert view.rows.shape == (240, 96)
    kept = view.rows.var(axis=0).sum() / vectors.var(axis=0).sum()
    assert kept > 0.9 and (np.diff(view.rows.var(axis=0)) <= 1e-5).all()
