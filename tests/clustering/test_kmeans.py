import itertools

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans

from perspective.clustering.kmeans import SEEDS, cluster_vectors
from perspective.errors import DataError
from perspective.evaluation.clustering_scores import METRICS, clustering_accuracy, score_clustering


def make_blobs(n_blobs, size, dim=8, seed=0):
    rng = np.random.default_rng(seed)
    centers = 20 * rng.standard_normal((n_blobs, dim))
    labels = np.repeat(np.arange(n_blobs), size)
    order = rng.permutation(len(labels))
    return (centers[labels] + rng.standard_normal((len(labels), dim)))[order], labels[order]


def best_accuracy(labels, clusters):
    """Return the accuracy of the best one-to-one matching, by brute force."""
    wide, narrow = (labels, clusters) if len(set(labels)) >= len(set(clusters)) else (clusters, labels)
    names = sorted(set(narrow))
    return max(
        sum(dict(zip(names, chosen, strict=True))[b] == a for a, b in zip(wide, narrow, strict=True)) / len(labels)
        for chosen in itertools.permutations(sorted(set(wide)), len(names))
    )


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(4, 4), (2, 5), (5, 2), (1, 3), (3, 1)])
def test_accuracy_uses_the_best_matching(n_classes, n_clusters):
    rng = np.random.default_rng(n_classes * 10 + n_clusters)
    for _ in range(20):
        labels, clusters = rng.integers(n_classes, size=12), 10 * rng.integers(n_clusters, size=12)
        expected = best_accuracy(labels.tolist(), clusters.tolist())
        assert clustering_accuracy(labels, clusters) == pytest.approx(expected)


@pytest.mark.parametrize("scale", ["small", "large"])
def test_perfect_clusters_score_100(scale):
    vectors, labels = make_blobs(4, 30)
    measures = score_clustering(vectors, [f"class {label}" for label in labels], scale)
    for metric in METRICS:
        assert measures[metric] == pytest.approx([100] * len(SEEDS))
        assert measures[f"{metric}_mean"] == pytest.approx(100)
        assert measures[f"{metric}_std"] == pytest.approx(0)
    assert (measures["n_clusters"], measures["seeds"]) == (4, [100, 13, 21, 36, 42])


def test_measures_equal_k_means_with_ten_starts():
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rng = np.random.default_rng(1)
    vectors, labels = rng.standard_normal((150, 5)), rng.integers(6, size=150).astype(str)
    measures = score_clustering(vectors, list(labels))
    for i, seed in enumerate(SEEDS):
        clusters = KMeans(6, n_init=10, random_state=seed).fit_predict(vectors)
        np.testing.assert_array_equal(cluster_vectors(vectors, 6, seed), clusters)
        assert measures["NMI"][i] == pytest.approx(100 * normalized_mutual_info_score(labels, clusters))
        assert measures["ARI"][i] == pytest.approx(100 * adjusted_rand_score(labels, clusters))
    assert measures["ACC_mean"] == pytest.approx(np.mean(measures["ACC"]))
    assert measures["ACC_std"] == pytest.approx(np.std(measures["ACC"]))
    assert measures["ACC_std"] > 0  # noise: the seeds differ


def test_random_labels_score_near_zero():
    vectors, _ = make_blobs(4, 50)
    labels = np.random.default_rng(5).integers(4, size=200).astype(str)
    assert abs(score_clustering(vectors, list(labels))["ARI_mean"]) < 5


def test_fewer_texts_than_clusters_are_refused():
    with pytest.raises(DataError, match="3 texts cannot form 4 clusters"):
        cluster_vectors(np.eye(3), 4, 100)


def test_large_data_sets_get_ten_starts_too():
    vectors = np.random.default_rng(1).standard_normal((400, 5)).astype(np.float32)
    for seed in SEEDS:
        expected = MiniBatchKMeans(12, n_init=10, random_state=seed).fit_predict(vectors)
        np.testing.assert_array_equal(cluster_vectors(vectors, 12, seed, "large"), expected)
