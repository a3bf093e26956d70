import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from perspective.errors import DataError
from perspective.teacher.graph import connect_neighbors, diffuse
from perspective.teacher.teacher import (
    GATE_WEIGHT,
    TeacherEvidence,
    TeachSettings,
    blend_for_inference,
    blend_views,
    fit_to_embedder,
    make_teacher,
)
from perspective.trust.specificity import MAX_WEIGHT, sample_control_rows
from perspective.vectors import center_rows, half_whiten, normalize_rows


def draw(rng, kinds, dim, noise):
    return (rng.normal(size=(kinds.max() + 1, dim))[kinds] + noise * rng.normal(size=(len(kinds), dim))).astype(
        np.float32
    )


def cluster_nmi(vectors, kinds):
    clusters = KMeans(kinds.max() + 1, n_init=3, random_state=0).fit_predict(vectors)
    return 100 * normalized_mutual_info_score(kinds, clusters)


@pytest.fixture
def spaces():
    """An embedder with 8 blurred clusters, and an LLM that sees them clearly."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(8), 60)
    return normalize_rows(draw(rng, kinds, 24, 1.3)), draw(rng, kinds, 48, 1.5), kinds


def test_the_teacher_has_the_shape_and_lengths_of_the_embedders_vectors(spaces):
    vectors, states, _ = spaces
    teacher = make_teacher(vectors, TeacherEvidence(states), TeachSettings(weight=0.5))
    assert teacher.vectors.shape == vectors.shape and teacher.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(teacher.vectors, axis=1), 1, atol=1e-5)
    assert teacher.trust.weight == 0.5 and "at weight 0.5" in teacher.describe(TeacherEvidence(states))


def test_states_make_the_teacher_better_with_and_without_weight(spaces):
    vectors, states, kinds = spaces
    alone = make_teacher(vectors, TeacherEvidence(), TeachSettings())
    gated = make_teacher(vectors, TeacherEvidence(states), TeachSettings(weight=0))
    beside = make_teacher(vectors, TeacherEvidence(states), TeachSettings(weight=1))
    nmi = [cluster_nmi(rows, kinds) for rows in (alone.vectors, vectors, gated.vectors, beside.vectors)]
    assert nmi == sorted(nmi) and nmi[2] > nmi[1] + 2 and nmi[3] > nmi[2] + 2


def test_an_embedder_that_learned_triplets_makes_the_teacher_better(spaces):
    vectors, states, kinds = spaces
    centers = np.stack([vectors[kinds == kind].mean(axis=0) for kind in range(8)])
    learned = normalize_rows(vectors + 0.5 * centers[kinds])
    evidence = TeacherEvidence(states, judged=learned)
    judged, without = (
        make_teacher(vectors, given, TeachSettings(weight=0)) for given in (evidence, TeacherEvidence(states))
    )
    assert cluster_nmi(judged.vectors, kinds) > cluster_nmi(without.vectors, kinds) + 1
    assert judged.describe(evidence).endswith("; beside an embedder that learned judged triplets")
    # It is fitted to the embedder before that, which will be trained.
    assert np.allclose(judged.vectors.mean(axis=0), without.vectors.mean(axis=0), atol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_states_of_an_unrelated_property_do_little_harm(seed):
    """600 texts of 10 classes; the LLM sees 6 clear clusters of something else, whatever it is asked."""
    rng = np.random.default_rng(seed)
    kinds, unrelated = rng.integers(0, 10, 600), rng.integers(0, 6, 600)
    vectors = normalize_rows(draw(rng, kinds, 32, 0.8))
    shared = draw(rng, unrelated, 64, 0.3)
    states, *control = (shared + 0.05 * rng.normal(size=shared.shape).astype(np.float32) for _ in range(4))
    rows = np.sort(np.random.default_rng(0).permutation(600)[:512])
    control = [states[rows], *(one[rows] for one in control)]
    alone = make_teacher(vectors, TeacherEvidence(), TeachSettings())
    teacher = make_teacher(vectors, TeacherEvidence(states, control), TeachSettings())
    assert teacher.trust.weight < 0.1
    # Beside the embedder's vectors with weight 1, such states take an NMI of 93 to 98 down to 15 to 18.
    assert cluster_nmi(teacher.vectors, kinds) > max(cluster_nmi(rows, kinds) for rows in (vectors, alone.vectors)) - 5


def test_without_control_questions_states_only_choose_neighbours(spaces):
    vectors, states, _ = spaces
    teacher = make_teacher(vectors, TeacherEvidence(states), TeachSettings())
    assert teacher.trust.weight == 0
    same = make_teacher(vectors, TeacherEvidence(states), TeachSettings(weight=0))
    assert (teacher.vectors == same.vectors).all()


def test_the_coordinate_system_is_not_rotated(spaces):
    vectors, _, _ = spaces
    teacher = make_teacher(vectors, TeacherEvidence(), TeachSettings()).vectors
    assert ((teacher - teacher.mean(0)) * (vectors - vectors.mean(0))).sum(axis=1).mean() > 0
    plain = make_teacher(vectors, TeacherEvidence(), TeachSettings(diffused=False)).vectors
    assert np.mean((plain * vectors).sum(axis=1)) > 0.99


def test_fitting_keeps_cosines_and_undoes_rotations(spaces):
    vectors = spaces[0]
    rows = center_rows(vectors)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0]
    fitted = fit_to_embedder(rows @ rotation, 3 * vectors)  # not of unit length: lengths are the embedder's
    centered = fitted - 3 * vectors.mean(axis=0)
    assert np.allclose(normalize_rows(centered), normalize_rows(rows - rows.mean(axis=0)), atol=1e-3)
    radius = np.sqrt(((3 * vectors - 3 * vectors.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert np.allclose(np.linalg.norm(centered, axis=1), radius, rtol=1e-3)


def test_few_texts_and_negative_weights_are_refused(spaces):
    with pytest.raises(DataError, match="8 different texts: too few"):
        make_teacher(spaces[0][:8], TeacherEvidence(), TeachSettings())
    assert np.isfinite(make_teacher(spaces[0][:9], TeacherEvidence(spaces[1][:9]), TeachSettings()).vectors).all()
    with pytest.raises(DataError, match="--weight -1"):
        TeachSettings(weight=-1)


def test_the_blend_has_the_cosines_of_both_spaces(spaces):
    vectors, states, _ = spaces
    both = blend_for_inference(vectors, states, 0.5)
    alone = center_rows(vectors)
    assert np.allclose(np.linalg.norm(both, axis=1), 1, atol=1e-5)
    others = 1.5 * (both @ both.T) - alone @ alone.T
    assert np.allclose(np.diag(others), 0.5, atol=1e-4) and np.linalg.matrix_rank(others, tol=1e-2) <= states.shape[1]


@pytest.mark.parametrize(("learned", "weight"), [(False, 0.0), (False, 0.7), (True, 0.7)])
def test_the_teacher_is_what_its_parts_make(spaces, learned, weight):
    vectors, states, _ = spaces
    judged = normalize_rows(vectors + 0.3 * np.random.default_rng(1).normal(size=(1, 24))).astype(np.float32)
    rows, white = center_rows(judged if learned else vectors), half_whiten(states)
    blended = blend_views(rows, white, weight)
    graph = connect_neighbors(blended, rows, white, max(weight, GATE_WEIGHT))
    expected = fit_to_embedder(diffuse(blended, graph), vectors)  # the embedder that will be trained, not `judged`
    evidence = TeacherEvidence(states, judged=judged if learned else None)
    found = make_teacher(vectors, evidence, TeachSettings(weight=weight)).vectors
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_copies_of_texts_change_nothing(spaces):
    """Each text once, and each four times, next to one another or not."""
    vectors, states, _ = spaces
    rng = np.random.default_rng(2)
    rows = rng.permutation(np.repeat(np.arange(len(vectors)), 4))
    control = [states + noise * rng.normal(size=states.shape).astype(np.float32) for noise in (0.3, 0.3, 0.5, 0.5)]
    once = make_teacher(vectors, TeacherEvidence(states, control), TeachSettings())
    sample = rows[sample_control_rows(len(rows))]
    often = make_teacher(
        vectors[rows], TeacherEvidence(states[rows], [one[sample] for one in control]), TeachSettings()
    )
    assert 0.05 < once.trust.weight < MAX_WEIGHT and often.trust.weight == pytest.approx(once.trust.weight, abs=0.1)
    given = TeachSettings(weight=0.5)
    once = make_teacher(vectors, TeacherEvidence(states), given)
    often = make_teacher(vectors[rows], TeacherEvidence(states[rows]), given)
    first = np.unique(rows, return_index=True)[1]
    cosines = (normalize_rows(often.vectors[first]) * normalize_rows(once.vectors)).sum(axis=1)
    assert cosines.min() > 0.999 and (often.vectors == often.vectors[first][rows]).all()
