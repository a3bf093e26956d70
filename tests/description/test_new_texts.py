import csv

import numpy as np
import pyarrow.parquet as pq
import pytest

from perspective.artifacts import Output, read_json, sidecar_path
from perspective.description import new_texts
from perspective.description.clusters import find_free_id, write_clusters, write_found
from perspective.description.edits import write_template
from perspective.description.files import (
    finish_writing,
    read_all_texts,
    read_anchors,
    read_clustering,
    read_clusters,
)
from perspective.description.new_texts import NewTexts, assign_new_texts, write_vectors_of
from perspective.description.settings import ClusterSettings
from perspective.errors import DataError
from perspective.layout import ClusterFiles

N_GROUPS, DIM = 5, 16


def make_rows(groups, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    return (3 * np.eye(10, DIM)[groups] + spread * rng.standard_normal((len(groups), DIM))).astype(np.float32)


class Run:
    """A clustering in a folder, and new texts."""

    def __init__(self, folder, method="kmeans"):
        self.folder = folder
        self.files = ClusterFiles(folder, "run")
        self.groups = np.repeat(np.arange(N_GROUPS), 40)
        self.texts = [f"text {row}" for row in range(len(self.groups))]
        self.embeddings = folder / "vectors.npy"
        np.save(self.embeddings, make_rows(self.groups))
        number = {"n_clusters": N_GROUPS} if method == "kmeans" else {"min_cluster_size": 25}
        self.cluster(method=method, **number)

    def cluster(self, seed=1, **settings):
        output = Output(self.files.found, "found clusters", settings, {"embeddings": self.embeddings})
        vectors = np.load(self.embeddings)
        write_found(output, self.files, vectors, self.texts, ClusterSettings(**settings), seed, "small")
        write_template(self.files.edits, find_free_id(self.files))
        self.write()

    def write(self):
        write_clusters(self.files, self.embeddings, self.texts)

    def assign(self, groups, name="new", texts=True, seed=9, **options):
        path = self.folder / f"{name}.npy"
        np.save(path, make_rows(np.asarray(groups), seed=seed))
        words = [f"{name} {row}" for row in range(len(groups))] if texts else None
        new = NewTexts(np.load(path, mmap_mode="r"), words, path)
        assign_new_texts(self.files, new, path, **options)
        return pq.read_table(self.files.assigned(path)).to_pydict()

    def ids(self):
        return [one.id for one in read_clusters(self.files).clusters]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_new_texts_join_the_clusters_of_their_group(run):
    found = run.assign([0, 1, 1, 4])
    known = read_clustering(run.files).assignment.cluster
    assert found["cluster"] == [known[0], known[40], known[40], known[160]]
    assert found["text"] == ["new 0", "new 1", "new 2", "new 3"] and found["row"] == [0, 1, 2, 3]
    assert not any(found["outlier"]) and all(0 < value <= 1 for value in found["confidence"])
    with run.files.assigned(run.folder / "new.npy").with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["cluster"]) for row in rows] == found["cluster"]


def test_vectors_alone_are_assigned_and_one_text_is_enough(run):
    found = run.assign([2], texts=False)
    assert "text" not in found and len(found["cluster"]) == 1


def test_a_text_of_no_group_belongs_nowhere(run, tmp_path_factory):
    found = run.assign([0, 8, 9])
    assert found["outlier"] == [False, True, True]
    assert set(found["cluster"]) <= set(run.ids())  # the nearest
    dense = Run(tmp_path_factory.mktemp("dense"), method="hdbscan")
    found = dense.assign([0, 8])
    assert found["cluster"][1] == -1 and found["confidence"][1] == 0


def test_blocks_change_nothing(run, monkeypatch):
    groups = np.random.default_rng(0).integers(0, 10, size=53)
    whole = run.assign(groups, "whole", update=True)
    monkeypatch.setattr(new_texts, "ROWS_AT_A_TIME", 7)
    parts = run.assign(groups, "parts")
    for name in ("cluster", "outlier", "row"):
        assert whole[name] == parts[name]


def test_update_adds_clusters_and_keeps_the_old_ones(run):
    before = read_clustering(run.files)
    groups = [7] * 12 + [8] * 9 + [0, 1]
    found = run.assign(groups, update=True, seed=11)
    after = read_clustering(run.files)
    assert run.ids() == [0, 1, 2, 3, 4, 5, 6]
    assert after.record.clusters[:5] == before.record.clusters
    np.testing.assert_array_equal(after.centers[:5], before.centers)
    sizes = [
        found["cluster"][:21].count(one)
        - sum(found["outlier"][row] for row in range(21) if found["cluster"][row] == one)
        for one in (5, 6)
    ]
    assert [one.size for one in after.record.clusters[5:]] == sizes
    assert len(set(found["cluster"][:12])) == len(set(found["cluster"][12:21])) == 1
    assert set(found["cluster"][:21]) == {5, 6}
    texts = read_all_texts(run.files)
    assert [texts[row] for row in after.record.clusters[5].representatives if row < 200] == []
    assert {texts[row] for row in after.record.clusters[5].representatives} <= {f"new {row}" for row in range(23)}
    assert len(after.record.tree) == 6
    np.testing.assert_array_equal(before.assignment.cluster, after.assignment.cluster)


def test_the_same_texts_add_clusters_once_and_others_add_more(run):
    run.assign([7] * 12, "first", update=True)
    run.assign([7] * 12, "first", update=True, overwrite=True)
    assert run.ids() == [0, 1, 2, 3, 4, 5]
    run.assign([8] * 12, "second", update=True, seed=3)
    assert run.ids() == [0, 1, 2, 3, 4, 5, 6]
    assert set(run.assign([7, 8], "third")["cluster"]) == {5, 6}


def test_added_clusters_stay_when_edits_change(run):
    run.assign([7] * 12, update=True)
    run.files.edits.write_text("merge:\n  - [0, 3]\n")
    kept = int(read_clustering(run.files).assignment.cluster[0])
    assert run.assign([7, 0], "later")["cluster"] == [5, 0 if kept == 3 else kept]
    assert run.ids() == [0, 1, 2, 4, 5]
    run.write()
    assert run.ids() == [0, 1, 2, 4, 5]


def test_an_id_of_a_split_that_was_taken_back_is_not_given_again(run):
    run.files.edits.write_text("split:\n  3: [3, 5]\n")
    run.write()
    assert run.ids() == [0, 1, 2, 3, 4, 5]
    run.files.edits.write_text("")
    run.write()
    assert run.ids() == [0, 1, 2, 3, 4] and find_free_id(run.files) == 6
    run.cluster(n_clusters=6)
    assert run.ids()[-1] == 6


def test_added_clusters_of_other_texts_are_dropped_with_a_warning(run, caplog):
    run.assign([7] * 12, update=True)
    run.groups, run.texts = run.groups[:-5], run.texts[:-5]
    np.save(run.embeddings, make_rows(run.groups))
    run.cluster(method="kmeans", n_clusters=N_GROUPS)
    assert "1 clusters that were added later are dropped" in caplog.text
    assert run.ids() == [0, 1, 2, 3, 4]


def test_added_clusters_of_other_vectors_are_dropped_with_a_warning(run, caplog):
    run.assign([7] * 12, update=True)
    np.save(run.embeddings, make_rows(run.groups, seed=5))
    run.cluster(method="kmeans", n_clusters=N_GROUPS, seed=1)
    assert "1 clusters that were added later are dropped" in caplog.text
    assert run.ids() == [0, 1, 2, 3, 4]
    run.assign([7] * 12, "later", update=True)
    assert run.ids() == [0, 1, 2, 3, 4, 6]  # 5 was another


def test_edits_do_not_take_the_ids_of_added_clusters(run, caplog):
    run.assign([7] * 12, update=True)
    run.files.edits.write_text("split:\n  2: [2, 5]\nmerge:\n  - [5, 0, 1]\n")
    run.write()
    assert run.ids() == [0, 1, 2, 3, 4, 5]
    assert "split 2: [2, 5]: id 5 is taken; take 6 and above" in caplog.text
    assert "merge [5, 0, 1]: 5: this cluster was added later; cluster all texts together" in caplog.text


def test_clusters_of_earlier_vectors_are_refused(run):
    np.save(run.embeddings, make_rows(run.groups, seed=5))
    for edits in ("", "merge:\n  - [0, 1]\n"):  # these are not applied to other vectors either
        run.files.edits.write_text(edits or run.files.edits.read_text())
        with pytest.raises(DataError, match=r"of other vectors than are in .* now; run cluster\.sh again"):
            run.assign([0, 1])
    assert run.ids() == [0, 1, 2, 3, 4]


def test_scattered_outliers_add_nothing(run):
    rng = np.random.default_rng(2)
    path = run.folder / "noise.npy"
    np.save(path, rng.standard_normal((30, DIM)).astype(np.float32))
    new = NewTexts(np.load(path, mmap_mode="r"), [f"noise {row}" for row in range(30)], path)
    assign_new_texts(run.files, new, path, update=True)
    assert len(run.ids()) <= 6  # chance may group a few


def test_many_outliers_are_grouped_by_a_sample(run, monkeypatch):
    monkeypatch.setattr(new_texts, "N_OUTLIERS", 40)
    run.assign([7] * 150 + [8] * 120, update=True)
    record = read_clusters(run.files)
    small, large = sorted(one.size for one in record.clusters[5:])
    assert 90 < small <= 120 < large <= 150  # a few are too far from their centre


def test_changed_edits_are_applied_by_assign_too(run):
    known = read_clustering(run.files).assignment.cluster
    run.files.edits.write_text(f'merge:\n  - [{known[0]}, {known[40]}]\npin:\n  "new 2": {known[80]}\n')
    found = run.assign([0, 1, 1])
    assert found["cluster"] == [known[0], known[0], known[80]]
    assert found["confidence"][2] == 1


def test_names_of_a_person_are_taken(run):
    run.files.edits.write_text("rename:\n  0: lost card\n")
    names = run.assign(np.arange(5))["name"]
    assert names.count("lost card") == 1 and names.count("") == 4


def test_edits_of_new_texts_alone_are_taken(run):
    """They leave the clusters as they are; a pin to a cluster that is not there has no effect."""
    known = read_clustering(run.files).assignment.cluster
    before = run.assign([0, 1, 1])
    run.files.edits.write_text(f'rename:\n  {known[0]}: lost card\npin:\n  "new 1": 99\n  "new 2": {known[80]}\n')
    found = run.assign([0, 1, 1])
    assert found["name"] == ["lost card", "", ""]
    assert found["cluster"] == [*before["cluster"][:2], known[80]]


def test_a_finished_assignment_is_not_made_again_but_changed_clusters_are_taken(run, caplog):
    caplog.set_level("INFO")
    run.assign([0, 1])
    caplog.clear()
    run.assign([0, 1])
    assert "already made" in caplog.text and "wrote" not in caplog.text
    run.files.edits.write_text("merge:\n  - [0, 1, 2, 3, 4]\n")
    assert run.assign([0, 1])["cluster"] == [0, 0]


def test_vectors_of_another_model_are_refused(run):
    path = run.folder / "other.npy"
    np.save(path, np.ones((3, 4), np.float32))
    with pytest.raises(DataError, match="vectors of 4 dimensions, the clusters' have 16"):
        assign_new_texts(run.files, NewTexts(np.load(path), None, path), path)


@pytest.mark.parametrize("name", ["centers", "anchors", "texts"])
@pytest.mark.parametrize("damage", ["missing", "other"])
def test_files_of_another_run_are_refused_and_made_again(run, name, damage):
    path = getattr(run.files, name)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="run cluster.sh with --overwrite"):
        read_clustering(run.files)
        read_anchors(run.files)
    run.write()
    read_clustering(run.files)
    read_anchors(run.files)


@pytest.mark.parametrize("damage", ["missing", "saved by a spreadsheet"])
def test_added_clusters_outlive_what_happens_to_the_table(run, damage):
    run.assign([7] * 12, update=True)
    ids = run.ids()
    whole = run.files.table.read_bytes()
    if damage == "missing":
        run.files.table.unlink()
    else:
        run.files.table.write_bytes(whole.replace(b"\n", b"\r\n"))
    run.assign([0, 7], "later")
    run.write()
    assert run.ids() == ids == [0, 1, 2, 3, 4, 5]
    assert damage != "missing" or run.files.table.read_bytes() == whole


def test_clusters_before_cluster_sh_are_refused(tmp_path):
    files = ClusterFiles(tmp_path, "none")
    with pytest.raises(DataError, match="run cluster.sh first"):
        read_clusters(files)
    path = tmp_path / "new.npy"
    np.save(path, np.ones((2, 3), np.float32))
    with pytest.raises(DataError, match="run cluster.sh first"):
        assign_new_texts(files, NewTexts(np.load(path), None, path), path)


@pytest.mark.parametrize("when", ["before", "after", "between"])
def test_a_kill_while_files_are_replaced_leaves_one_whole_clustering(run, monkeypatch, when):
    """The clusters are renamed into place first, then what belongs to them."""
    from perspective.description import files as module

    before = read_clustering(run.files)
    run.files.edits.write_text("merge:\n  - [0, 1]\n")

    class Killed(BaseException):
        pass

    finish = module.finish_writing
    calls = []

    def die(files):
        calls.append(None)
        if len(calls) < 3:  # at the beginning of writing
            return finish(files)
        if when == "between":
            waiting = module._waiting(files.centers)
            waiting.replace(files.centers)
        raise Killed

    def die_early(self, value):
        raise Killed

    with monkeypatch.context() as patch:
        if when == "before":
            patch.setattr(Output, "write_json", die_early)
        else:
            patch.setattr(module, "finish_writing", die)
            patch.setattr("perspective.description.clusters.finish_writing", die)
        with pytest.raises(Killed):
            run.write()
    assert list(run.folder.glob(".*.new"))
    finish_writing(run.files)
    found = read_clustering(run.files)
    read_anchors(run.files)
    expected = before.record.clusters if when == "before" else found.record.clusters
    assert len(found.record.clusters) == (5 if when == "before" else 4)
    assert found.record.clusters == expected
    run.write()
    assert run.ids() == [0, 2, 3, 4] and not list(run.folder.glob(".*"))


def test_an_update_that_is_killed_before_assigning_adds_no_more(run, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    groups = [7] * 12 + [9] * 4
    with monkeypatch.context() as patch:
        patch.setattr(new_texts, "write_assignment", die)
        with pytest.raises(Killed):
            run.assign(groups, update=True)
    assert run.ids() == [0, 1, 2, 3, 4, 5]
    assert set(run.assign(groups, update=True)["cluster"][:12]) == {5}
    assert run.ids() == [0, 1, 2, 3, 4, 5]


def test_embedding_resumes_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(new_texts, "BLOCK_TEXTS", 4)
    texts, asked = [f"{row}" for row in range(10)], []

    def embed(block):
        asked.extend(block)
        if len(asked) == 8 and not (tmp_path / "go").exists():
            raise KeyboardInterrupt
        return np.array([[int(text), 1.0] for text in block], np.float32)

    (tmp_path / "in.txt").write_text("x")
    output = Output(tmp_path / "new.npy", "embeddings", {}, {"texts": tmp_path / "in.txt"})
    with pytest.raises(KeyboardInterrupt):
        write_vectors_of(output, texts, lambda: embed)
    (tmp_path / "go").touch()
    write_vectors_of(output, texts, lambda: embed)
    assert asked == [*texts[:8], *texts[4:]]
    assert np.load(tmp_path / "new.npy")[:, 0].tolist() == list(range(10))
    assert read_json(sidecar_path(output.path))["schema"] == "embeddings" and not output.partial.exists()
