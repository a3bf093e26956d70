import itertools
import logging

import numpy as np
import pytest
from helpers import make_vectors
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from perspective.description import assignment
from perspective.description.assignment import assign_vectors
from perspective.description.clusters import FIRST_BRANCH, build_clustering
from perspective.description.edits import Edits
from perspective.description.files import Anchors
from perspective.description.finding import find_clusters, keep_ids
from perspective.description.settings import ClusterSettings
from perspective.errors import DataError
from perspective.vectors import normalize_rows

N_TEXTS, N_GROUPS = 200, 6


def make_texts(n=N_TEXTS):
    return [f"text {row}" for row in range(n)]


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(N_GROUPS), [60, 50, 40, 25, 15, 10])
    return 3 * np.eye(N_GROUPS, 12)[groups] + 0.5 * rng.standard_normal((N_TEXTS, 12))


@pytest.fixture(scope="module")
def found(vectors):
    return find_clusters(normalize_rows(vectors), ClusterSettings(n_clusters=N_GROUPS), seed=1)


def build(vectors, found, method="kmeans", **edits):
    return build_clustering(vectors, make_texts(len(vectors)), found, method, Edits(**edits))


def test_clusters_are_numbered_by_size(found):
    assert np.bincount(found).tolist() == [60, 50, 40, 25, 15, 10]


def test_the_same_inputs_give_the_same_ids(vectors, found):
    assert (find_clusters(normalize_rows(vectors), ClusterSettings(n_clusters=N_GROUPS), seed=1) == found).all()


def test_hdbscan_leaves_texts_that_belong_nowhere():
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(5), 40)
    grouped = 3 * np.eye(5, 12)[groups] + 0.3 * rng.standard_normal((200, 12))
    noisy = np.vstack([grouped, 3 * rng.standard_normal((20, 12))])
    settings = ClusterSettings(method="hdbscan", min_cluster_size=25)  # too many for a part of a group
    found = find_clusters(normalize_rows(noisy), settings, seed=1)
    assert (found[-20:] == -1).mean() > 0.7 and (found[:200] == -1).mean() < 0.2
    clustering, _, _ = build(noisy, found, "hdbscan")
    assert ((clustering.assignment.cluster == -1) == clustering.assignment.outlier).all()
    assert (clustering.assignment.confidence[found == -1] == 0).all()
    assert sum(one.size for one in clustering.record.clusters) == (found >= 0).sum()


def test_hdbscan_without_a_cluster_is_refused():
    with pytest.raises(DataError, match="finds no cluster of 30 texts"):
        find_clusters(np.eye(30), ClusterSettings(method="hdbscan", min_cluster_size=30), seed=0)
    with pytest.raises(DataError, match="there are only 4 texts"):
        find_clusters(np.eye(4), ClusterSettings(method="hdbscan"), seed=0)


def test_record_centers_and_tree(vectors, found):
    clustering, anchors, remarks = build(vectors, found)
    unit = normalize_rows(vectors).astype(np.float32)
    record = clustering.record
    assert [one.id for one in record.clusters] == list(range(N_GROUPS)) and remarks == []
    for place, one in enumerate(record.clusters):
        rows = np.flatnonzero(found == one.id)
        np.testing.assert_allclose(clustering.centers[place], unit[rows].mean(axis=0), atol=1e-6)
        direction = normalize_rows(clustering.centers[place : place + 1])[0]
        assert one.cohesion == pytest.approx(float((unit[rows] @ direction).mean()), abs=1e-5)
        assert one.representatives[0] == rows[(unit[rows] @ direction).argmax()]
        assert set(one.representatives) <= set(rows.tolist()) and len(one.representatives) == min(10, one.size)
        assert not set(one.contrasts) & set(rows.tolist()) and len(one.contrasts) == 6
    assert len(record.tree) == N_GROUPS - 1 and record.tree[-1].size == N_TEXTS
    leaves = [child for branch in record.tree for child in branch.children if child < FIRST_BRANCH]
    assert sorted(leaves) == list(range(N_GROUPS))
    assert [branch.height for branch in record.tree] == sorted(branch.height for branch in record.tree)
    np.testing.assert_array_equal(anchors.ids, np.arange(N_GROUPS))


def list_branches(clustering):
    """Return the clusters of each branch, by its id."""
    leaves = {one.id: {one.id} for one in clustering.record.clusters}
    for branch in clustering.record.tree:
        leaves[branch.id] = leaves[branch.children[0]] | leaves[branch.children[1]]
    return {branch.id: leaves[branch.id] for branch in clustering.record.tree}


def test_the_clusters_of_a_branch_decide_its_id(vectors, found):
    before = list_branches(build(vectors, found)[0])
    for merged in itertools.combinations(range(N_GROUPS), 2):
        after = list_branches(build(vectors, found, merge=[list(merged)])[0])
        for branch in set(before) | set(after):
            is_same = before.get(branch) == after.get(branch)
            assert is_same or branch not in before or branch not in after
        whole = [leaves for leaves in before.values() if leaves in after.values()]
        assert {branch for branch, leaves in before.items() if leaves in whole} <= set(after)


def test_equal_texts_are_no_two_representatives(vectors, found):
    texts = ["the same"] * N_TEXTS
    clustering, _, _ = build_clustering(vectors, texts, found, "kmeans", Edits())
    assert [len(one.representatives) for one in clustering.record.clusters] == [1] * N_GROUPS


def test_a_text_far_from_all_is_an_outlier(vectors, found):
    vectors = vectors.copy()
    vectors[5] = -vectors[5]
    clustering, anchors, _ = build(vectors, found)
    assert clustering.assignment.outlier[5] and clustering.assignment.cluster[5] == found[5]
    assert clustering.assignment.outlier.mean() < 0.2
    assert assign_vectors(vectors[5:6], anchors).outlier[0]


def test_confidence_is_low_between_two_clusters(vectors, found):
    _, anchors, _ = build(vectors, found)
    between = (anchors.centers[0] + anchors.centers[1])[None]
    assert assign_vectors(between, anchors).confidence[0] < 0.05
    assert assign_vectors(anchors.centers[:1], anchors).confidence[0] > 0.6


def test_one_cluster(vectors):
    found = find_clusters(normalize_rows(vectors), ClusterSettings(n_clusters=1), seed=1)
    clustering, anchors, _ = build(vectors, found)
    assert len(clustering.record.clusters) == 1 and clustering.record.tree == []
    assert (clustering.assignment.confidence == 1).all()
    assert clustering.record.clusters[0].contrasts == []
    assert (assign_vectors(vectors, anchors).cluster == 0).all()


@pytest.mark.parametrize("n_clusters", [1, 2])
def test_two_texts(n_clusters):
    vectors = np.eye(2)
    found = find_clusters(vectors, ClusterSettings(n_clusters=n_clusters), seed=1)
    clustering, _, _ = build(vectors, found)
    assert sum(one.size for one in clustering.record.clusters) == 2
    assert not clustering.assignment.outlier.any()


def test_equal_texts_form_one_cluster_and_the_log_says_so(caplog):
    caplog.set_level(logging.WARNING)
    vectors = np.tile([3.0, 4.0], (20, 1))
    found = find_clusters(normalize_rows(vectors), ClusterSettings(n_clusters=5), seed=1)
    assert "only 1 of 5 clusters" in caplog.text
    clustering, _, _ = build(vectors, found)
    assert not clustering.assignment.outlier.any() and np.isfinite(clustering.assignment.confidence).all()


def test_zero_vectors_do_no_harm():
    clustering, _, _ = build(np.zeros((8, 3)), np.zeros(8, dtype=int))
    assert np.isfinite(clustering.assignment.confidence).all()


def test_a_merged_cluster_still_takes_new_texts_of_all_its_parts(vectors, found):
    clustering, anchors, _ = build(vectors, found, merge=[[0, 1, 2]])
    assert [one.id for one in clustering.record.clusters] == [0, 3, 4, 5]
    assert sorted(anchors.ids.tolist()) == [0, 0, 0, 3, 4, 5]
    assert (assign_vectors(vectors[found == 1], anchors).cluster == 0).all()
    # Between two parts of one cluster there is no doubt.
    between = (anchors.centers[0] + anchors.centers[1])[None]
    assert assign_vectors(between, anchors).confidence[0] > 0.2


def test_pinned_texts_do_not_move_the_centre(vectors, found):
    before, _, _ = build(vectors, found)
    row = int(np.flatnonzero(found == 3)[0])
    after, _, _ = build(vectors, found, pin={row: 0})
    np.testing.assert_allclose(before.centers[0], after.centers[0], atol=1e-6)
    assert after.record.clusters[0].size == before.record.clusters[0].size + 1
    assert (after.assignment.cluster[row], after.assignment.confidence[row]) == (0, 1)


def test_a_cluster_of_pinned_texts_alone_has_their_centre(vectors, found):
    others = {int(row): 0 for row in np.flatnonzero(found == 5)[1:]}
    row = int(np.flatnonzero(found == 5)[0])
    clustering, anchors, remarks = build(vectors, found, pin={row: 5, **others})
    assert remarks == [] and clustering.record.clusters[5].size == 1
    np.testing.assert_allclose(clustering.centers[5], normalize_rows(vectors[row : row + 1])[0], atol=1e-6)
    assert 5 in anchors.ids


def test_a_person_may_not_leave_all_texts_without_a_cluster():
    with pytest.raises(DataError, match="no text has a cluster"):
        build(np.eye(3), np.zeros(3, dtype=int), pin={0: -1, 1: -1, 2: -1})


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 5))
def test_blocks_of_rows_change_nothing(n_texts, n_anchors, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_texts, 5)).astype(np.float32)
    anchors = Anchors(rng.standard_normal((n_anchors, 5)).astype(np.float32), np.arange(n_anchors) // 2, 0.1)
    whole = assign_vectors(vectors, anchors)
    size = assignment.ROWS_AT_A_TIME
    try:
        assignment.ROWS_AT_A_TIME = 7
        parts = assign_vectors(vectors, anchors)
    finally:
        assignment.ROWS_AT_A_TIME = size
    np.testing.assert_array_equal(whole.cluster, parts.cluster)
    np.testing.assert_allclose(whole.confidence, parts.confidence, atol=1e-3)
    assert ((whole.confidence >= 0) & (whole.confidence <= 1)).all()
    unit = normalize_rows(vectors)
    distances = np.linalg.norm(unit[:, None] - anchors.centers, axis=2)
    assert (whole.cluster == anchors.ids[distances.argmin(axis=1)]).mean() > 0.98  # ties by rounding


def test_clusters_of_the_same_texts_keep_their_ids():
    texts = make_texts(100)
    old = np.repeat([4, 9, 2, 11], 25)
    found = np.repeat([0, 1, 2, 3], [25, 25, 30, 20])  # the last two differ by five texts
    kept = keep_ids(found, texts, old, texts, free=12)
    assert kept.tolist() == [4] * 25 + [9] * 25 + [2] * 30 + [11] * 20


def test_other_clusters_get_ids_that_none_ever_had():
    texts = make_texts(100)
    old = np.repeat([4, 9], 50)
    found = np.tile([0, 1], 50)
    assert set(keep_ids(found, texts, old, texts, free=12)) == {12, 13}


def test_ids_are_kept_when_texts_are_added_and_moved():
    texts, old = make_texts(60), np.repeat([3, 1], 30)
    more = [*[f"new {row}" for row in range(10)], *texts[::-1]]
    found = np.array([0] * 10 + [1] * 30 + [0] * 30)
    assert keep_ids(found, more, old, texts, free=5).tolist() == [3] * 10 + [1] * 30 + [3] * 30


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=60), st.integers(0, 100))
def test_ids_are_kept_exactly_when_nothing_changed(old, seed):
    texts = make_texts(len(old))
    ids = np.array(old)
    shuffled = np.random.default_rng(seed).permutation(6)
    found = np.where(ids >= 0, shuffled[ids], -1)
    np.testing.assert_array_equal(keep_ids(found, texts, ids, texts, free=6), ids)


def test_density_and_k_means_find_the_same_clear_groups():
    vectors = normalize_rows(make_vectors(240, n_groups=4, dim=30))
    density = find_clusters(vectors, ClusterSettings(method="hdbscan", min_cluster_size=35), seed=0)
    means = find_clusters(vectors, ClusterSettings(n_clusters=4), seed=0)
    placed = density >= 0
    assert adjusted_rand_score(means[placed], density[placed]) > 0.9
