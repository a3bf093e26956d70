import numpy as np
import pytest

from perspective.description.counting import choose, count_clusters, weigh_words
from perspective.description.records import Count, Estimate
from perspective.description.settings import CRITERIA, CountSettings
from perspective.errors import DataError

N_GROUPS, N_EACH = 12, 30


@pytest.fixture(scope="module")
def corpus():
    """Vectors and answer states of texts in groups, each with noise of its own, and the texts."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(N_GROUPS), N_EACH)
    vectors, states = (
        rng.standard_normal((N_GROUPS, dim))[groups] + spread * rng.standard_normal((len(groups), dim))
        for dim, spread in ((24, 0.4), (40, 0.6))
    )
    texts = [f"{rng.integers(40)} topic{group} word{group} {rng.integers(60)} and" for group in groups]
    return vectors.astype(np.float32), states.astype(np.float32), texts


def test_all_criteria_are_measured_and_the_views_decide(corpus):
    vectors, states, texts = corpus
    count = count_clusters(vectors, texts, states, CountSettings())
    assert list(count.estimates) == list(CRITERIA)
    assert count.criterion == "views" and count.n_clusters in (11, 13)  # beside 12 in the grid
    assert count.estimates["silhouette"].n_clusters in (11, 13)
    assert count.estimates["eigengap"].n_clusters == 12
    assert abs(count.estimates["words"].n_clusters - 12) <= 2
    assert 8 <= count.estimates["llm"].n_clusters <= 18
    assert all(one.seconds >= 0 for one in count.estimates.values())
    assert Count.model_validate_json(count.model_dump_json()) == count


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_states_that_say_nothing_give_no_number(seed):
    rng = np.random.default_rng(seed)
    vectors = np.eye(8)[np.arange(200) % 8] + 0.1 * rng.standard_normal((200, 8))
    count = count_clusters(vectors, ["same"] * 200, rng.standard_normal((200, 12)), CountSettings(all_criteria=False))
    assert count.estimates["views"].n_clusters is None and count.criterion != "views"


def test_without_answer_states_the_words_decide(corpus):
    vectors, _, texts = corpus
    count = count_clusters(vectors, texts, None, CountSettings(all_criteria=False))
    assert set(count.estimates) == {"words"} and count.criterion == "words"
    assert count.n_clusters == count.estimates["words"].n_clusters


def test_the_silhouette_stands_in_whatever_is_shown():
    """Numbers in place of words: nothing for the words to agree on."""
    groups = np.arange(60) % 3
    vectors = np.eye(3, 8)[groups] + np.random.default_rng(0).standard_normal((60, 8)) / 20
    texts = [str(row) for row in range(60)]
    for all_criteria in (True, False):
        count = count_clusters(vectors.astype(np.float32), texts, None, CountSettings(all_criteria=all_criteria))
        assert (count.n_clusters, count.criterion) == (3, "silhouette")


def test_a_given_number_or_criterion_overrules(corpus):
    vectors, states, texts = corpus
    count = count_clusters(vectors, texts, states, CountSettings(n_clusters=7, all_criteria=False))
    assert (count.n_clusters, count.criterion) == (7, "given")
    count = count_clusters(vectors, texts, states, CountSettings(criterion="eigengap", all_criteria=False))
    assert (count.n_clusters, count.criterion) == (12, "eigengap")


def test_the_same_inputs_give_the_same_number(corpus):
    vectors, states, texts = corpus
    one, other = (count_clusters(vectors, texts, states, CountSettings()) for _ in range(2))
    assert {name: found.n_clusters for name, found in one.estimates.items()} == {
        name: found.n_clusters for name, found in other.estimates.items()
    }


def test_equal_texts_are_one_cluster():
    count = count_clusters(np.ones((30, 4)), ["same"] * 30, np.ones((30, 5)), CountSettings())
    assert (count.n_clusters, count.criterion) == (1, "all texts are equal")
    rounded = 1 + 1e-6 * np.random.default_rng(0).standard_normal((30, 4))
    assert count_clusters(rounded, ["same"] * 30, None, CountSettings()).n_clusters == 1


@pytest.mark.parametrize("n_texts", [2, 3, 7, 9])
@pytest.mark.parametrize("has_states", [True, False])
def test_few_texts_get_a_number_by_a_rule_of_thumb(n_texts, has_states, caplog):
    states = np.eye(n_texts)[::-1] if has_states else None
    count = count_clusters(np.eye(n_texts), [f"t{row}" for row in range(n_texts)], states, CountSettings())
    assert 1 <= count.n_clusters <= 2 and "rule of thumb" in count.criterion
    assert "no criterion" in caplog.text


@pytest.mark.parametrize("n_groups", [2, 3])
def test_two_or_three_clear_groups_are_found_by_the_silhouette(n_groups):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_groups), 50)
    vectors = 5 * np.eye(3, 8)[groups] + 0.2 * rng.standard_normal((len(groups), 8))
    count = count_clusters(vectors, ["a"] * len(groups), None, CountSettings())
    assert (count.n_clusters, count.criterion) == (n_groups, "silhouette")


def test_the_first_criterion_with_a_number_is_taken():
    estimates = {
        "views": Estimate(n_clusters=None, seconds=1),
        "words": Estimate(n_clusters=9, seconds=1),
        "hdbscan": Estimate(n_clusters=4, seconds=1),
    }
    assert choose(estimates, CountSettings(), 100).criterion == "words"
    assert choose(estimates, CountSettings(criterion="hdbscan"), 100).n_clusters == 4
    assert choose(estimates, CountSettings(criterion="views"), 100).criterion == "words"


def test_texts_that_share_no_words_have_no_word_vectors():
    assert weigh_words([f"w{row}" for row in range(50)], 0) is None
    assert weigh_words(["same words here"] * 50, 0) is None
    rng = np.random.default_rng(0)
    texts = [" ".join(f"단어{number}" for number in rng.integers(0, 150, 8)) for _ in range(200)]
    words = weigh_words(texts, 0)
    assert words.shape == (200, 96) and np.isfinite(words).all()


@pytest.mark.parametrize("number", [0, -3])
def test_a_number_below_one_is_refused(number):
    with pytest.raises(DataError, match="must be at least 1"):
        CountSettings(n_clusters=number)
