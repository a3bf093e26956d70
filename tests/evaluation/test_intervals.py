import numpy as np
import pytest
from scipy.stats import ttest_ind
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from perspective.errors import DataError
from perspective.evaluation.clustering_scores import clustering_accuracy
from perspective.evaluation.intervals import _Scorer, find_interval, format_gain, measure_text_variance

N_CLASSES = 12


def draw_clusterings(rng, labels, right, n):
    """Clusterings of the same texts: each text is in its class's cluster with a probability of its own."""
    wrong = rng.integers(N_CLASSES, size=(n, len(labels)))
    return np.where(rng.random((n, len(labels))) < right, labels, wrong)


def score_all(labels, clusterings):
    return {
        "ACC": [100 * clustering_accuracy(labels, clusters) for clusters in clusterings],
        "NMI": [100 * normalized_mutual_info_score(labels, clusters) for clusters in clusterings],
        "ARI": [100 * adjusted_rand_score(labels, clusters) for clusters in clusterings],
    }


def judge_arms(rng, gain=0.0, n_texts=300, n_training=3, n_kmeans=5):
    """Verdicts on an arm before and three trainings of one after; `gain` is added to the share of right texts."""
    labels = rng.integers(N_CLASSES, size=n_texts)
    hardness = rng.uniform(0.3, 0.9, n_texts)  # the same texts are hard for both arms
    before = draw_clusterings(rng, labels, hardness, n_kmeans)
    shifts = gain + 0.02 * rng.normal(size=n_training)  # what a training seed makes better or worse
    after = [draw_clusterings(rng, labels, hardness + shift, n_kmeans) for shift in shifts]
    variance = measure_text_variance(labels, before, np.concatenate(after), n_resamples=100)
    was, now = score_all(labels, before), [score_all(labels, runs) for runs in after]
    found = {}
    for metric in was:
        of_runs = np.array([run[metric] for run in now])
        found[metric] = find_interval(of_runs, np.array(was[metric]), variance[metric])
    differences = np.array(now[0]["ACC"]) - was["ACC"]
    return found, abs(differences.mean()) > differences.std()  # the latter: the rule of one standard deviation


def test_two_arms_that_are_alike_seldom_get_a_verdict():
    """The rule of one standard deviation over the k-means seeds of one training decides in a fifth of these cases."""
    rng = np.random.default_rng(0)
    found = [judge_arms(rng) for _ in range(100)]
    for metric in ("ACC", "NMI", "ARI"):
        assert np.mean([intervals[metric].verdict != "undecided" for intervals, _ in found]) <= 0.06
    assert np.mean([old_rule for _, old_rule in found]) > 0.12


def test_a_clear_gain_is_found():
    rng = np.random.default_rng(1)
    assert [judge_arms(rng, gain=0.15)[0]["ACC"].verdict for _ in range(5)] == ["gain"] * 5
    assert judge_arms(rng, gain=-0.15)[0]["NMI"].verdict == "loss"


def test_fewer_than_three_training_seeds_give_no_verdict():
    before = np.array([60.0, 62.0, 61.0])
    one, two = (find_interval(np.tile(before + 20, (n, 1)), before) for n in (1, 2))
    assert (one.verdict, two.verdict) == ("one training seed", "two training seeds")
    assert str(one) == "+20.00"
    assert find_interval(np.tile(before + 20, (3, 1)), before).verdict == "gain"


def test_a_gain_over_a_trained_arm_is_that_of_the_seeds_of_both():
    arm, base = ({str(seed): {"ACC": [level + seed, level + seed]} for seed in range(6)} for level in (70.0, 60.0))
    assert format_gain(arm, base, "ACC") == "+10.00 ± 0.00*"
    some = {seed: base[seed] for seed in ("4", "5")}
    assert format_gain(arm, some, "ACC") == "+10.00 ± 0.00"  # two seeds give no interval, however many the arm has
    with pytest.raises(DataError, match="none is in both arms"):
        format_gain({"7": arm["0"]}, some, "ACC")


def test_scores_from_counts_are_those_of_the_texts():
    rng = np.random.default_rng(2)
    labels = rng.integers(5, size=90)
    clusters = draw_clusterings(rng, labels, 0.6, 1)[0]
    scorer = _Scorer(labels, clusters)
    for metric, expected in score_all(labels, [clusters]).items():
        assert scorer.score(np.ones((1, 90)))[metric] == pytest.approx(expected)
    drawn = rng.integers(90, size=90)
    counts = np.bincount(drawn, minlength=90)[None]
    expected = score_all(labels[drawn], [clusters[drawn]])
    for metric in ("NMI", "ARI"):
        assert scorer.score(counts)[metric] == pytest.approx(expected[metric])
    assert -1e-6 <= expected["ACC"][0] - scorer.score(counts)["ACC"][0] < 10  # the matching is that of all texts


def test_more_texts_make_the_interval_shorter():
    rng = np.random.default_rng(3)

    def variance(n_texts):
        labels = rng.integers(N_CLASSES, size=n_texts)
        arms = (draw_clusterings(rng, labels, right, 2) for right in (0.5, 0.7))
        return measure_text_variance(labels, *arms, n_resamples=500)["ACC"]

    assert variance(400) / variance(1600) == pytest.approx(4, rel=0.4)


AFTER = np.array([[65.0, 66, 70], [66, 67, 61], [67, 65, 68], [64, 69, 66]])


@pytest.mark.parametrize(
    "before",
    [np.array([60.0, 61, 64]), np.array([[60.0, 61, 65], [62, 66, 63], [58, 65, 61]])],
    ids=["made without training", "another trained arm"],
)
def test_the_interval_is_that_of_welch(before):
    found = find_interval(AFTER, before)
    of_before = before if before.ndim == 1 else before.mean(axis=1)
    expected = ttest_ind(AFTER.mean(axis=1), of_before, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.difference == pytest.approx(AFTER.mean() - before.mean())


def test_two_equal_arms_have_no_variance_over_texts():
    """The same texts are drawn for both: what makes a text hard for one makes it hard for the other."""
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=200)
    arm = np.where(rng.random((3, 200)) < 0.7, labels, rng.integers(6, size=(3, 200)))
    assert measure_text_variance(labels, arm, arm) == {"ACC": 0, "NMI": 0, "ARI": 0}
    assert min(measure_text_variance(labels, arm, arm[:, ::-1]).values()) > 1
