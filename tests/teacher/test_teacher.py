import numpy as np
import pytest

from perspective.errors import DataError
from perspective.teacher.teacher import TeachSettings, blend_for_inference, fit_to_embedder, make_teacher
from perspective.trust.stability import decide_trust
from perspective.vectors import center_rows, half_whiten, normalize_rows


@pytest.fixture
def spaces():
    """An embedder with 8 blurred clusters, and two LLMs: one with clear clusters, one of noise."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(8), 60)

    def draw(dim, noise):
        return (rng.normal(size=(8, dim))[kinds] + noise * rng.normal(size=(480, dim))).astype(np.float32)

    vectors = draw(24, 1.6)
    return normalize_rows(vectors), {
        "clear": draw(48, 0.6),
        "noise": rng.normal(size=(480, 48)).astype(np.float32),
    }


def test_an_llm_with_clusters_is_trusted_and_noise_is_not(spaces):
    vectors, llms = spaces
    trusted = decide_trust(center_rows(vectors), half_whiten(llms["clear"]))
    assert trusted.weight == 1
    assert "answer states trusted with weight 1 (" in trusted.describe()
    refused = decide_trust(center_rows(vectors), half_whiten(llms["noise"]))
    assert refused.weight == 0 and "answer states not trusted (" in refused.describe()
    assert refused.stability["1"] < refused.stability["0"] + 0.01


def test_the_teacher_has_the_shape_and_lengths_of_the_embedders_vectors(spaces):
    vectors, llms = spaces
    teacher, trust = make_teacher(vectors, llms["clear"], TeachSettings(weight=0.5))
    assert teacher.shape == vectors.shape and teacher.dtype == np.float32
    assert np.allclose(np.linalg.norm(teacher, axis=1), 1, atol=1e-5)
    assert trust.weight == 0.5 and "at the given weight 0.5" in trust.describe()


def test_without_trusted_states_only_many_texts_get_a_teacher(spaces):
    vectors, llms = spaces
    teacher, trust = make_teacher(vectors, llms["noise"], TeachSettings())
    assert teacher is None and trust.weight == 0  # 480 texts
    many = np.vstack([vectors, vectors])
    teacher, _ = make_teacher(many, None, TeachSettings())
    # The coordinate system is not rotated: each row stays close to its vector.
    assert ((teacher - teacher.mean(0)) * (many - many.mean(0))).sum(axis=1).mean() > 0
    assert np.mean((teacher * many).sum(axis=1)) > 0.5
    assert make_teacher(many, None, TeachSettings(smoothed=False))[0] is None


def test_fitting_keeps_cosines_and_undoes_rotations(spaces):
    vectors, _ = spaces
    rows = center_rows(vectors)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0]
    fitted = fit_to_embedder(rows @ rotation, 3 * vectors)  # not of unit length: lengths are the embedder's
    centred = fitted - 3 * vectors.mean(axis=0)
    assert np.allclose(normalize_rows(centred), normalize_rows(rows - rows.mean(axis=0)), atol=1e-3)
    radius = np.sqrt(((3 * vectors - 3 * vectors.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert np.allclose(np.linalg.norm(centred, axis=1), radius, rtol=1e-3)


@pytest.mark.parametrize("weight", [0.25, 1.0, 3.0])
def test_cosines_of_the_blend_are_the_weighted_means_of_both_spaces(spaces, weight):
    vectors, llms = spaces
    blended = blend_for_inference(vectors, llms["clear"], weight)
    of_vectors, of_states, of_both = (
        rows @ rows.T for rows in (center_rows(vectors), half_whiten(llms["clear"]), blended)
    )
    assert np.abs(of_vectors - of_states).max() > 1  # so that neither can pass for the mean
    np.testing.assert_allclose(of_both, (of_vectors + weight * of_states) / (1 + weight), atol=1e-5)


def test_few_texts_and_negative_weights_are_refused(spaces):
    with pytest.raises(DataError, match="8 texts: too few"):
        make_teacher(spaces[0][:8], None, TeachSettings())
    with pytest.raises(DataError, match="--weight -1"):
        TeachSettings(weight=-1)
