import itertools
import math
from collections import Counter

import numpy as np
import pytest
from helpers import make_vectors

from perspective.artifacts import Triplet
from perspective.errors import DataError
from perspective.evaluation.gold import add_gold_answers, measure_answerable
from perspective.triplets.sampling import SampleSettings, sample_random_triplets, sample_triplets
from perspective.triplets.uncertainty import select_uncertain_queries

# triplets


def check_triplets(triplets, uncertainty, settings):
    """Check the properties of every sample."""
    questions = [(triplet.query_idx, *sorted(triplet.key[1:])) for triplet in triplets]
    assert len(set(questions)) == len(questions)
    queries = set(
        select_uncertain_queries(uncertainty.entropy, settings.filter_first_prop, settings.large_ent_prop).tolist()
    )
    for triplet in triplets:
        query, choice1, choice2 = triplet.key
        assert len({query, choice1, choice2}) == 3
        assert query in queries
        of_choices = {uncertainty.clusters[choice1], uncertainty.clusters[choice2]}
        assert len(of_choices) == 2
        assert of_choices <= set(uncertainty.near_clusters[query].tolist())
        assert triplet.gold is None


@pytest.mark.parametrize("shuffle_inds", [True, False])
@pytest.mark.parametrize(("scale", "n_texts"), [("small", 120), ("large", 400)])
def test_choices_come_from_two_near_clusters_of_the_query(scale, n_texts, shuffle_inds):
    settings = SampleSettings(max_query=300, max_distance=4.0, shuffle_inds=shuffle_inds)
    triplets, uncertainty = sample_triplets(make_vectors(n_texts), settings, scale)
    assert len(triplets) == 300
    check_triplets(triplets, uncertainty, settings)
    if not shuffle_inds and scale == "small":  # the most uncertain first
        first = select_uncertain_queries(uncertainty.entropy, settings.filter_first_prop, settings.large_ent_prop)[
            :10
        ].tolist()
        assert list(dict.fromkeys(triplet.query_idx for triplet in triplets))[:5] == first[:5]


def all_triplets(uncertainty, settings):
    members = [set(np.flatnonzero(uncertainty.clusters == c).tolist()) for c in range(uncertainty.n_clusters)]
    return {
        (int(query), *sorted(pair))
        for query in select_uncertain_queries(uncertainty.entropy, settings.filter_first_prop, settings.large_ent_prop)
        for one, two in itertools.combinations(uncertainty.near_clusters[query], 2)
        for pair in itertools.product(members[one] - {query}, members[two] - {query})
    }


@pytest.mark.parametrize("n_texts", [3, 5, 12, 30])
def test_requesting_too_many_triplets_returns_all_that_exist(n_texts):
    settings = SampleSettings(max_query=100_000, max_distance=3.0)
    triplets, uncertainty = sample_triplets(make_vectors(n_texts), settings)
    check_triplets(triplets, uncertainty, settings)
    existing = all_triplets(uncertainty, settings)
    assert {(triplet.query_idx, *sorted(triplet.key[1:])) for triplet in triplets} == existing
    # On both sides of the limit between listing and drawing.
    for max_query in {max(1, len(existing) - 1), len(existing) // 2 + 1, max(1, len(existing) // 2)}:
        fewer = SampleSettings(max_query=max_query, max_distance=3.0)
        triplets, uncertainty = sample_triplets(make_vectors(n_texts), fewer)
        assert len(triplets) == max_query
        check_triplets(triplets, uncertainty, fewer)


def test_triplets_are_spread_over_all_queries():
    settings = SampleSettings(max_query=240, max_distance=4.0)
    triplets, _ = sample_triplets(make_vectors(), settings)
    counts = Counter(triplet.query_idx for triplet in triplets)
    assert len(counts) == 24
    assert min(counts.values()) >= 5


def test_the_same_seed_gives_the_same_triplets():
    vectors = make_vectors()
    one, again, other = (
        sample_triplets(vectors, SampleSettings(max_query=64, seed=seed, max_distance=4.0))[0] for seed in (1, 1, 2)
    )
    assert one == again
    assert len(set(one) & set(other)) < 32
    drawn = [sample_random_triplets(50, 64, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("max_query", [400, 100_000])  # drawn, listed
def test_choice_order_is_balanced(max_query):
    settings = SampleSettings(max_query=max_query, max_distance=6.0)
    vectors = make_vectors(60)
    triplets, uncertainty = sample_triplets(vectors, settings)
    nearer_first = np.mean(
        [uncertainty.clusters[t.choice1_idx] == uncertainty.near_clusters[t.query_idx][0] for t in triplets]
    )
    assert abs(nearer_first - 0.5) < 4 * 0.5 / math.sqrt(len(triplets))


@pytest.mark.parametrize(("n_texts", "max_query"), [(200, 500), (5, 30), (5, 16), (5, 15), (5, 14), (3, 99), (4, 1)])
def test_random_control_has_distinct_triplets(n_texts, max_query):
    triplets = sample_random_triplets(n_texts, max_query, 100)
    questions = {(triplet.query_idx, *sorted(triplet.key[1:])) for triplet in triplets}
    assert len(triplets) == len(questions) == min(max_query, n_texts * math.comb(n_texts - 1, 2))
    assert all(len(set(triplet.key)) == 3 and max(triplet.key) < n_texts for triplet in triplets)


def test_random_control_is_uniform():
    triplets = sample_random_triplets(10, 180, 0)  # half of all 360
    for place in range(3):
        seen = Counter(triplet.key[place] for triplet in triplets)
        assert all(5 <= seen[row] <= 35 for row in range(10))


@pytest.mark.parametrize(
    ("vectors", "scale", "message"),
    [
        (np.ones((1, 4)), "small", "1 texts: a triplet needs three"),
        (np.eye(2), "small", "2 texts: a triplet needs three"),
        (np.ones((20, 4)), "small", "all texts fall into one cluster"),
        (make_vectors(99), "large", "makes 100 clusters of only 99 texts; use --scale small"),
    ],
)
def test_too_few_texts_or_clusters_are_refused(vectors, scale, message):
    with pytest.raises(DataError, match=message):
        sample_triplets(vectors, SampleSettings(), scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_query": 0}, "--max_query 0: must be at least 1"),
        ({"filter_first_prop": 0.2}, "--filter_first_prop 0.2 and --large_ent_prop 0.2"),
        ({"large_ent_prop": 1.1}, "need 0 <= first < large <= 1"),
        ({"close_cluster_prop": 0.0}, "--close_cluster_prop 0.0"),
        ({"max_distance": 0.0}, "--max_distance 0.0: must be above 0"),
        ({"max_distance": float("nan")}, "--max_distance nan"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(DataError, match=message):
        SampleSettings(**options)


def test_random_control_checks_its_arguments():
    with pytest.raises(DataError, match="--max_query 0"):
        sample_random_triplets(10, 0, 1)
    with pytest.raises(DataError, match="2 texts: a triplet needs three"):
        sample_random_triplets(2, 1, 1)


def test_gold_answers_are_added_after_the_draw():
    labels = ["a", "a", "b", "a"]
    triplets = [Triplet(0, 1, 2), Triplet(0, 2, 1), Triplet(0, 1, 3), Triplet(2, 0, 1)]
    assert [t.gold for t in add_gold_answers(triplets, labels)] == [" 1", " 2", "both", None]
    assert [t.key for t in add_gold_answers(triplets, labels)] == [t.key for t in triplets]
    assert add_gold_answers(triplets, None) == triplets


def test_nearest_choices_are_the_closest_of_two_clusters():
    """More of these triplets have a right answer than with random members."""
    rng = np.random.default_rng(3)
    kinds = np.repeat(np.arange(30), 10)
    vectors = (rng.normal(size=(30, 16))[kinds] + 0.9 * rng.normal(size=(300, 16))).astype(np.float32)
    labels = [str(kind) for kind in kinds]
    options = {"max_query": 200, "max_distance": 12.0, "large_ent_prop": 0.5, "close_cluster_prop": 0.1}
    random, nearest = (
        sample_triplets(vectors, SampleSettings(choices=choices, **options))[0] for choices in ("random", "nearest")
    )
    assert len(nearest) == len({(q, *sorted(pair)) for q, *pair in (triplet.key for triplet in nearest)}) == 200
    assert all(len(set(triplet.key)) == 3 for triplet in nearest)
    share_random, share_nearest = (measure_answerable(add_gold_answers(drawn, labels)) for drawn in (random, nearest))
    assert share_nearest > share_random + 0.2
    with pytest.raises(DataError, match="choices='nearst': expected random or nearest"):
        SampleSettings(choices="nearst")


def test_nearest_choices_return_fewer_if_few_exist():
    vectors = np.random.default_rng(4).normal(size=(9, 4)).astype(np.float32)
    settings = SampleSettings(max_query=500, max_distance=3.0, large_ent_prop=1.0, choices="nearest")
    triplets, _ = sample_triplets(vectors, settings)
    assert 0 < len(triplets) < 500
