import numpy as np
import pytest
from sklearn.cluster import KMeans

import perspective.clustering.kmeans_init
from perspective.clustering.kmeans_init import CachedKMeansPlusPlus


@pytest.mark.parametrize("all_pairs_rows", [10_000, 10], ids=["all pairs", "thin products"])
def test_clusterings_equal_those_of_scikit_learn(monkeypatch, all_pairs_rows):
    monkeypatch.setattr(perspective.clustering.kmeans_init, "ALL_PAIRS_ROWS", all_pairs_rows)
    vectors = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    for seed in range(5):
        cached = KMeans(12, init=CachedKMeansPlusPlus(vectors), n_init=3, random_state=seed).fit(vectors)
        expected = KMeans(12, n_init=3, random_state=seed).fit(vectors)
        np.testing.assert_array_equal(cached.labels_, expected.labels_)


def test_equal_rows_share_a_cluster():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    clusters = KMeans(3, init=CachedKMeansPlusPlus(vectors), n_init=2, random_state=0).fit_predict(vectors)
    assert sorted(np.bincount(clusters)) == [5, 5, 5]


def test_more_clusters_than_distinct_rows_warn():
    vectors = np.ones((6, 2), dtype=np.float32)
    with pytest.warns(UserWarning, match="distinct clusters"):
        KMeans(3, init=CachedKMeansPlusPlus(vectors), n_init=1, random_state=0).fit(vectors)


def test_distances_do_not_change_with_a_shift():
    vectors = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    expected = ((vectors[[3, 7], None] - vectors) ** 2).sum(-1)
    np.testing.assert_allclose(CachedKMeansPlusPlus(vectors + 100).distances(np.array([3, 7])), expected, atol=1e-3)


def test_distances_of_near_copies_are_not_lost_in_rounding():
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(1, 16)) * 3 + 1e-3 * rng.normal(size=(40, 16))).astype(np.float32)
    vectors = np.vstack([vectors, -vectors])
    wide = vectors.astype(np.float64)
    expected = ((wide[:1, None] - wide) ** 2).sum(-1)[0]
    found = CachedKMeansPlusPlus(vectors).distances(np.array([0]))[0]
    np.testing.assert_allclose(found[1:40], expected[1:40], rtol=1e-2)
