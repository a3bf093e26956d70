import numpy as np
import pytest

from perspective.embedding import EmbedSettings, embed_texts
from perspective.errors import DataError
from perspective.models import load_embedder


class LengthEncoder:
    """An `Encoder` whose vector is a text's length, in half precision."""

    def encode(self, inputs, **options):
        self.options = options
        return np.array([[len(text), 1] for text in inputs], dtype=np.float16)


def test_rows_follow_the_texts():
    encoder = LengthEncoder()
    vectors = embed_texts(encoder, ("a", "bbb", "cc"), batch_size=2)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [[1, 1], [3, 1], [2, 1]])
    assert encoder.options["batch_size"] == 2


@pytest.mark.filterwarnings("ignore:overflow")
def test_vectors_that_are_not_finite_are_refused():
    texts = ["a", "b" * 70_000, "c", "d" * 70_000]  # beyond half precision
    with pytest.raises(DataError, match="NaN or infinity for 2 texts, the first in row 1"):
        embed_texts(LengthEncoder(), texts)


def test_a_real_embedder_gives_the_same_in_any_batch(embedder_folder, sentences):
    encoder = load_embedder(str(embedder_folder), device="cpu")
    texts = [*sentences(20), "", "x" * 5000]
    vectors = embed_texts(encoder, texts)
    assert vectors.shape == (22, 32)
    np.testing.assert_allclose(embed_texts(encoder, texts, batch_size=3), vectors, atol=1e-5)


def test_settings_are_checked():
    with pytest.raises(DataError, match="--batch_size 0: must be at least 1"):
        EmbedSettings(batch_size=0)
