import numpy as np

from perspective.naming.check import MAX_CHECKED, NameCheck

CLUSTERS = np.repeat([0, 1, 2], 50)
CORNERS = np.eye(3, 5, dtype=np.float32)


def make_check(noise=0.1, clusters=CLUSTERS):
    rng = np.random.default_rng(0)
    vectors = CORNERS[CLUSTERS] + noise * rng.standard_normal((150, 5)).astype(np.float32)
    return NameCheck(vectors, clusters, 3)


def test_a_name_at_its_cluster_is_nearest_to_all_of_its_texts():
    n_checked, nearest = make_check().count([0], CORNERS)
    assert n_checked == MAX_CHECKED and nearest[0] == MAX_CHECKED and nearest[1] < MAX_CHECKED / 2


def test_the_score_is_positive_for_the_own_cluster_only():
    scores = make_check().score([1], CORNERS)
    assert scores[1] > 0.5 and scores[0] < -0.5 and scores[2] < -0.5


def test_a_name_about_nothing_is_right_by_chance():
    n_checked, nearest = make_check(noise=1.0).count([2], np.eye(5, dtype=np.float32)[4:])
    assert 0.2 < nearest[0] / n_checked < 0.8


def test_a_branch_is_compared_with_clusters_outside():
    check = make_check()
    between = (CORNERS[0] + CORNERS[1])[None]
    assert check.count([0, 1], between)[1][0] == MAX_CHECKED and check.score([0, 1], between)[0] > 0


def test_without_another_cluster_nothing_is_checked():
    check = make_check()
    assert check.count([0, 1, 2], CORNERS)[0] == 0 and not check.has_others([0, 1, 2])
    assert check.score([0, 1, 2], CORNERS).shape == (3,)


def test_a_cluster_without_texts_is_not_checked():
    check = make_check(clusters=np.where(CLUSTERS == 2, -1, CLUSTERS))
    assert check.count([2], CORNERS)[0] == 0 and check.count([0], CORNERS)[0] == MAX_CHECKED
    assert np.isfinite(check.score([2], CORNERS)).all()
