import numpy as np
import pytest
import torch

from perspective.errors import DataError
from perspective.models import embedding as embedding_module
from perspective.models.embedders import load_embedder
from perspective.models.embedding import EmbedSettings, embed_texts


class LengthEncoder:
    """An `Encoder` whose vector is a text's length, in half precision."""

    def __init__(self):
        self.batches = []

    def encode(self, inputs, **options):
        self.batches.append(inputs)
        return np.array([[len(text), 1] for text in inputs], dtype=np.float16)


def test_rows_follow_the_texts():
    encoder = LengthEncoder()
    vectors = embed_texts(encoder, ("a", "b" * 9, "c" * 6), batch_size=2)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, [[1, 1], [9, 1], [6, 1]])
    assert encoder.batches == [["b" * 9, "c" * 6], ["a"]]


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


def test_chunk_by_chunk_as_all_at_once(monkeypatch):
    texts = ["x" * (i * 7 % 23) for i in range(50)]
    whole = embed_texts(LengthEncoder(), texts)
    monkeypatch.setattr(embedding_module, "CHUNK_TEXTS", 8)
    np.testing.assert_array_equal(embed_texts(LengthEncoder(), texts), whole)
    assert whole[:, 0].tolist() == [len(text) for text in texts]
    with pytest.raises(DataError, match="no text to embed"):
        embed_texts(LengthEncoder(), [])


def test_out_of_memory_halves_the_batches_and_loses_nothing():
    class SmallEncoder(LengthEncoder):
        def encode(self, inputs, **options):
            if len(inputs) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().encode(inputs)

    encoder = SmallEncoder()
    texts = ["x" * (i * 7 % 23) for i in range(50)]
    assert embed_texts(encoder, texts, batch_size=16)[:, 0].tolist() == [len(text) for text in texts]
    assert sorted(text for batch in encoder.batches for text in batch) == sorted(texts)
    assert max(map(len, encoder.batches)) > 2


@pytest.mark.real
def test_on_a_cpu_as_sentence_transformers_own_encode(sentences, monkeypatch, one_thread):
    monkeypatch.setenv("COMPUTE_DTYPE", "float32")
    encoder = load_embedder("minilm", device="cpu", reading=True)
    texts = [*sentences(150, n_words=20), "", "x" * 2000]
    np.testing.assert_allclose(embed_texts(encoder, texts), encoder.encode(texts, batch_size=64), atol=1e-6)
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    half = load_embedder("minilm", device="cpu", reading=True)
    assert half.dtype == torch.bfloat16
    vectors = embed_texts(half, texts)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6  # normalised in float32
    assert (vectors * embed_texts(encoder, texts)).sum(axis=1).min() > 0.999
    assert load_embedder("minilm", device="cpu").dtype == torch.float32  # to be trained


def test_settings_are_checked():
    with pytest.raises(DataError, match="--batch_size 0: must be at least 1"):
        EmbedSettings(batch_size=0)
