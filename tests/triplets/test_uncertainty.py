import math

import numpy as np
import pytest
from helpers import make_vectors
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from perspective.triplets.uncertainty import measure_uncertainty, scale_max_distance, select_uncertain_queries


def reference_uncertainty(vectors, max_distance, close_cluster_prop):
    """ClusterLLM, section 3.1, in plain Python."""
    n_texts, dim = vectors.shape
    scaled = [[(row[d] - vectors[:, d].mean()) / vectors[:, d].std() for d in range(dim)] for row in vectors]
    clusters = fcluster(linkage(scaled, "ward"), max_distance, "distance")  # cut at the threshold
    members = {cluster: [i for i in range(n_texts) if clusters[i] == cluster] for cluster in set(clusters)}
    centers = {
        cluster: [sum(scaled[i][d] for i in rows) / len(rows) for d in range(dim)] for cluster, rows in members.items()
    }
    n_near = max(2, round(len(centers) * close_cluster_prop))
    near, entropies = [], []
    for x in scaled:
        mass = {c: 1 / (1 + sum((a - b) ** 2 for a, b in zip(x, z, strict=True))) for c, z in centers.items()}
        nearest = sorted(mass, key=lambda c: -mass[c])[:n_near]
        total = sum(mass[c] for c in nearest)
        near.append([frozenset(members[c]) for c in nearest])
        entropies.append(-sum(mass[c] / total * math.log(mass[c] / total) for c in nearest))
    return near, entropies


@pytest.mark.parametrize(
    ("n_texts", "max_distance", "close_cluster_prop"), [(120, 6.0, 0.02), (200, 2.0, 0.02), (150, 3.0, 0.3), (90, 9, 1)]
)
def test_uncertainty_equals_a_plain_implementation_of_the_paper(n_texts, max_distance, close_cluster_prop):
    vectors = make_vectors(n_texts, seed=n_texts)
    found = measure_uncertainty(vectors, max_distance, close_cluster_prop)
    near, entropies = reference_uncertainty(vectors, max_distance, close_cluster_prop)
    members = [frozenset(np.flatnonzero(found.clusters == cluster).tolist()) for cluster in range(found.n_clusters)]
    assert [[members[cluster] for cluster in row] for row in found.near_clusters] == near
    np.testing.assert_allclose(found.entropy, entropies, atol=1e-10)
    queries = select_uncertain_queries(found.entropy, 0.0, 0.2)
    expected = sorted(range(n_texts), key=lambda i: -entropies[i])[: int(0.2 * n_texts)]
    assert queries.tolist() == expected


def test_uncertainty_does_not_depend_on_the_block_size(monkeypatch):
    vectors = make_vectors()
    whole = measure_uncertainty(vectors, 3.0)
    monkeypatch.setattr("perspective.clustering.ward.ROWS_AT_A_TIME", 7)
    parts = measure_uncertainty(vectors, 3.0)
    np.testing.assert_array_equal(whole.near_clusters, parts.near_clusters)
    np.testing.assert_allclose(whole.entropy, parts.entropy, atol=1e-12)


def test_default_threshold_grows_with_the_root_of_the_dimension():
    assert scale_max_distance(256) == pytest.approx(77 / 2)
    vectors = make_vectors()
    by_default = measure_uncertainty(vectors)
    stated = measure_uncertainty(vectors, 77 * math.sqrt(vectors.shape[1] / 1024))
    np.testing.assert_array_equal(by_default.clusters, stated.clusters)


def test_queries_are_selected_between_two_fractions():
    entropy = np.arange(100) / 100
    assert select_uncertain_queries(entropy, 0.1, 0.3).tolist() == list(range(89, 69, -1))
    assert select_uncertain_queries(entropy[:3], 0.1, 0.3).tolist() == [2]  # at least one


def test_clusters_equal_those_of_scikit_learn():
    vectors = make_vectors(300)
    scaled = StandardScaler().fit_transform(vectors)
    expected = AgglomerativeClustering(n_clusters=None, distance_threshold=4.0).fit_predict(scaled)
    assert adjusted_rand_score(expected, measure_uncertainty(vectors, 4.0).clusters) == 1


def test_a_large_corpus_is_clustered_by_a_sample(monkeypatch):
    rng = np.random.default_rng(0)
    groups = rng.integers(5, size=900)
    vectors = (20 * rng.standard_normal((5, 6)))[groups] + rng.standard_normal((900, 6))
    assert adjusted_rand_score(groups, measure_uncertainty(vectors, 5.0).clusters) == 1
    monkeypatch.setattr("perspective.clustering.ward.N_AGGLOMERATED", 300)
    sampled = measure_uncertainty(vectors, 5.0)
    assert adjusted_rand_score(groups, sampled.clusters) == 1
    again = measure_uncertainty(vectors, 5.0)
    np.testing.assert_array_equal(sampled.near_clusters, again.near_clusters)


def test_the_callers_vectors_are_not_modified():
    vectors = make_vectors()
    before = vectors.copy()
    measure_uncertainty(vectors)
    np.testing.assert_array_equal(vectors, before)
