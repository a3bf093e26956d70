import numpy as np
import pytest
from helpers import make_vectors

from perspective.errors import DataError
from perspective.page.map import COLUMNS, MapSettings, draw_map, read_map
from perspective.vectors import sample_rows


def draw(before, after=None, n_shown=1000):
    before = np.asarray(before, dtype=np.float32)
    after = before if after is None else np.asarray(after, dtype=np.float32)
    found = draw_map(before, after, MapSettings(n_shown))
    assert np.isfinite(found.to_array(len(before))[found.rows]).all()
    return found


def groups_apart(positions, groups):
    """Mean distance within groups as a share of that between all texts."""
    spread = np.linalg.norm(positions - positions.mean(axis=0), axis=1).mean()
    centers = np.array([positions[groups == group].mean(axis=0) for group in range(groups.max() + 1)])
    return np.linalg.norm(positions - centers[groups], axis=1).mean() / spread


def test_like_texts_are_near_one_another():
    groups = np.arange(120) % 4
    rng = np.random.default_rng(0)
    vectors = 4 * np.eye(4, 12)[groups] + rng.standard_normal((120, 12)) / 2
    found = draw(vectors, vectors + rng.standard_normal(vectors.shape) / 10)
    assert groups_apart(found.before, groups) < 0.5 and groups_apart(found.after, groups) < 0.5
    assert 0.3 < found.kept.mean() < 1


def test_the_map_after_starts_from_the_map_before():
    """Texts of groups that did not change stay where they were; the group that was split leaves its place."""
    groups = np.arange(160) % 4
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((160, 12)) / 2
    before, after = 4 * np.eye(4, 12)[groups] + noise, 4 * np.eye(4, 12)[groups] + noise
    after[groups == 0] = 4 * np.eye(1, 12, 7) + noise[groups == 0]
    found = draw(before, after)
    moved = np.linalg.norm(found.after - found.before, axis=1) / np.linalg.norm(found.before, axis=1).mean()
    assert np.median(moved) < 0.5


def test_the_same_vectors_give_the_same_map_twice():
    found = draw(make_vectors(40))
    assert np.array_equal(found.before, found.after) and (found.kept == 1).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.eye(2, 4), np.eye(2, 4)[::-1]),
        (np.ones((3, 4)), np.ones((3, 4))),
        (np.ones((60, 4)), make_vectors(60, dim=4)),
        (make_vectors(60, dim=4), np.ones((60, 4))),
        (make_vectors(30, dim=1), make_vectors(30, seed=1, dim=1)),
        (np.repeat(make_vectors(3, dim=5), 40, axis=0), make_vectors(120, dim=3)),
    ],
    ids=["two texts", "three equal", "equal before", "equal after", "one dimension", "many duplicates"],
)
def test_odd_vectors_get_places(before, after):
    found = draw(before, after)
    assert len(np.unique(found.before, axis=0)) > 1 and np.ptp(found.after) > 0


def test_of_many_texts_a_sample_is_shown():
    found = draw(make_vectors(90), n_shown=30)
    assert len(found.rows) == 30 and (np.diff(found.rows) > 0).all()
    assert np.array_equal(found.rows, sample_rows(90, 30))
    array = found.to_array(90)
    assert array.shape == (90, COLUMNS) and np.isnan(np.delete(array, found.rows, axis=0)).all()


def test_of_very_many_texts_a_sample_is_placed_and_the_others_go_among_it(monkeypatch):
    groups = np.arange(400) % 4
    rng = np.random.default_rng(0)
    vectors = 4 * np.eye(4, 12)[groups] + rng.standard_normal((400, 12)) / 2
    after = vectors + rng.standard_normal(vectors.shape) / 10
    monkeypatch.setattr("perspective.page.map.MAX_OPTIMISED", 100)
    found = draw(vectors, after)
    assert len(found.rows) == 400 and groups_apart(found.before, groups) < 0.5
    assert groups_apart(found.after, groups) < 0.5 and 0.3 < found.kept.mean() < 1
    sample = sample_rows(400, 100)
    others = np.setdiff1d(np.arange(400), sample)
    # A text lies among the nearest texts of the sample.
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = sample[np.argsort(-unit[others] @ unit[sample].T, axis=1)[:, 0]]
    off = np.linalg.norm(found.before[others] - found.before[nearest], axis=1)
    assert np.median(off) < 0.3 * np.linalg.norm(found.before, axis=1).mean()


def test_a_map_is_read_as_it_was_written(tmp_path):
    found = draw(make_vectors(50), make_vectors(50, seed=2), n_shown=40)
    np.save(tmp_path / "map.npy", found.to_array(50))
    again = read_map(tmp_path / "map.npy", 50)
    for name in ("rows", "before", "after", "kept"):
        assert np.allclose(getattr(again, name), getattr(found, name), rtol=1e-5), name


def test_a_map_of_other_texts_is_refused(tmp_path):
    path = tmp_path / "map.npy"
    np.save(path, np.zeros((4, COLUMNS)))
    with pytest.raises(DataError, match=r"map of 5 texts .* found float64 \(4, 5\); run draw_map.sh --overwrite"):
        read_map(path, 5)
    np.save(path, np.full((5, COLUMNS), np.nan))
    with pytest.raises(DataError, match="shows no text"):
        read_map(path, 5)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a whole .npy array"):
        read_map(path, 5)
    with pytest.raises(DataError, match="--map_texts 1: must be at least 2"):
        MapSettings(1)
