import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from perspective.clustering.neighbors import find_neighbors
from perspective.data.docstrings import read_package
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.vectors import center_rows, normalize_rows


def share_found(found, exact):
    return np.mean([len(set(one) & set(other)) / len(other) for one, other in zip(found, exact, strict=True)])


@pytest.fixture
def clustered():
    """5,000 unit rows of 384 numbers around 200 centres: the principal directions beyond 200 hold noise."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, 384))
    rows = centres[rng.integers(200, size=5000)] + 0.7 * rng.normal(size=(5000, 384))
    return normalize_rows(rows).astype(np.float32)


def test_few_rows_are_compared_exactly(clustered):
    """As scikit-learn does, to the last number: earlier teachers stay the same."""
    index = NearestNeighbors(n_neighbors=11, algorithm="brute").fit(clustered)
    assert (find_neighbors(clustered, 11) == index.kneighbors(clustered, return_distance=False)).all()


def test_the_index_agrees_with_the_exact_search(clustered):
    exact, found = find_neighbors(clustered, 11), find_neighbors(clustered, 11, exact_rows=100)
    assert found.shape == exact.shape
    assert share_found(found, exact) > 0.95
    assert (found == np.arange(5000)[:, None]).any(axis=1).all()  # each row finds itself
    assert (found != exact).any()  # it is another search
    assert (find_neighbors(clustered, 11, exact_rows=100) == found).all()  # no chance


def test_the_index_takes_copies_and_few_dimensions():
    """Cells may be empty, and hold fewer rows than are asked for."""
    rows = np.zeros((3000, 8), dtype=np.float32)
    rows[:, 0] = 1
    rows[:5] = np.eye(8, dtype=np.float32)[1:6]
    found = find_neighbors(rows, 60, exact_rows=100)
    assert found.min() >= 0 and found.max() < 3000
    assert (found[:5, 0] == np.arange(5)).all()


@pytest.mark.real
def test_the_index_finds_the_neighbors_of_real_texts(one_thread):
    """First sentences of documentation by MiniLM, searched as a million texts would be."""
    texts = sorted({entry.summary for name in ("pandas", "sklearn") for entry in read_package(name) if entry.summary})
    vectors = center_rows(embed_texts(load_embedder("minilm", device="cpu", reading=True), texts))
    assert len(vectors) > 2000
    exact, found = find_neighbors(vectors, 61), find_neighbors(vectors, 61, exact_rows=100)
    assert share_found(found[:, :11], exact[:, :11]) > 0.95
    assert share_found(found, exact) > 0.95
