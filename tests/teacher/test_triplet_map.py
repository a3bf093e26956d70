from dataclasses import replace

import numpy as np
import pytest

from perspective.artifacts import Judgment, Triplet
from perspective.teacher import triplet_map as module
from perspective.teacher.triplet_map import fit_triplet_map
from perspective.vectors import center_rows, find_nearer_choices


@pytest.fixture(scope="module")
def space():
    """Vectors in which two dimensions of 24 hold the classes that a judge answers by."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 400)
    rows = rng.normal(size=(400, 24))
    rows[:, :2] += 1.5 * rng.normal(size=(4, 2))[kinds]
    return center_rows(rows), kinds


def judge(kinds, n, seed, right=1.0):
    rng = np.random.default_rng(seed)
    judgments = []
    while len(judgments) < n:
        query, one, two = (int(row) for row in rng.choice(len(kinds), 3, replace=False))
        if (kinds[query] == kinds[one]) == (kinds[query] == kinds[two]):
            continue
        label = "1" if (kinds[query] == kinds[one]) == (rng.random() < right) else "2"
        judgments.append(Judgment(Triplet(query, one, two), (label,)))
    return judgments


def agreement(vectors, judgments):
    nearer = find_nearer_choices(vectors, [one.triplet for one in judgments])
    return np.mean(nearer == [one.prediction[0] == "1" for one in judgments])


def test_the_map_answers_new_triplets_like_the_judge(space):
    vectors, kinds = space
    found = fit_triplet_map(vectors, judge(kinds, 400, 1))
    new = judge(kinds, 400, 2)
    assert found.loss < found.loss_before
    assert agreement(found.apply(vectors), new) > agreement(vectors, new) + 0.08


def test_answers_at_random_leave_the_embedder_as_it_is(space):
    vectors, kinds = space
    found = fit_triplet_map(vectors, judge(kinds, 300, 1, right=0.5))
    assert found.matrix is None and (found.apply(vectors) == vectors).all()
    assert not found.describe()["used"]


def test_a_judge_that_follows_the_position_is_not_used(space):
    vectors, kinds = space
    always_first = [replace(one, prediction=("1",)) for one in judge(kinds, 300, 1)]
    assert fit_triplet_map(vectors, always_first).matrix is None


def test_abstentions_and_few_judgments(space):
    vectors, kinds = space
    judgments = [replace(one, prediction=()) for one in judge(kinds, 100, 1)] + judge(kinds, 10, 3)
    found = fit_triplet_map(vectors, judgments)
    assert found.n_judgments == 10 and found.matrix is None


def test_the_gradient_is_that_of_the_loss(space):
    vectors, kinds = space
    judgments = [replace(one, probability=0.9 if i % 2 else 0.3) for i, one in enumerate(judge(kinds, 60, 1))]
    problem = module._Problem.make(vectors, judgments)  # noqa: SLF001
    rng = np.random.default_rng(0)
    matrix, step = 0.1 * rng.normal(size=(24, 24)), rng.normal(size=(24, 24))
    _, gradient = problem._evaluate(matrix, 0.1)  # noqa: SLF001
    values = [problem._evaluate(matrix + sign * 1e-4 * step, 0.1)[0] for sign in (1, -1)]  # noqa: SLF001
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(float((gradient * step).sum()), rel=1e-3)


def test_the_loss_of_one_triplet_by_hand():
    vectors = np.eye(3, dtype=np.float32)
    vectors[1] = [0.6, 0.8, 0]
    problem = module._Problem.make(vectors, [Judgment(Triplet(0, 1, 2), ("1",))])  # noqa: SLF001
    assert problem._evaluate(np.zeros((3, 3)), 0.0)[0] == pytest.approx(np.log1p(np.exp(-10 * 0.6)), rel=1e-5)  # noqa: SLF001
