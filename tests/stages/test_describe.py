"""Counting, clustering and assigning, from the command line to the files."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, refuse, run_killed_when, run_stage, stage_command, stage_environment, write_jsonl

from perspective.artifacts import Output, read_sidecar
from perspective.description.files import find_embeddings, finish_writing, read_clustering, read_count
from perspective.errors import DataError
from perspective.layout import ClusterFiles, Layout

N_TEXTS, N_GROUPS = 160, 5
WORDS = ("card", "weather", "music", "alarm", "money")


@pytest.fixture
def run(tmp_path):
    """A data set of five kinds of texts with vectors, and the options of the stages."""

    class Run:
        groups = np.arange(N_TEXTS) % N_GROUPS
        path = write_jsonl(
            tmp_path / "mine.jsonl", [{"input": f"{WORDS[group]} {row}"} for row, group in enumerate(groups)]
        )
        vectors = tmp_path / "vectors.npy"
        states = tmp_path / "states.npy"
        stem = Layout("mine", "small", "minilm").description.stem
        files = ClusterFiles(tmp_path / "out", stem)
        data = ["--dataset", "mine", "--data_path", path, "--output_path", tmp_path / "out"]

        def count(self, *more):
            run_stage("count_clusters", *self.data, "--feat_path", self.vectors, "--states_path", self.states, *more)

        def cluster(self, *more):
            run_stage("cluster", *self.data, "--feat_path", self.vectors, *more)

        def assign(self, *more):
            run_stage("assign", *self.data[:2], *self.data[4:], *more)

    made = Run()
    rng = np.random.default_rng(0)
    for file, dim in ((made.vectors, 16), (made.states, 24)):
        np.save(file, (3 * np.eye(5, dim)[made.groups] + rng.standard_normal((N_TEXTS, dim)) / 2).astype(np.float32))
    return made


def test_count_then_cluster_then_assign(run, tmp_path, caplog):
    caplog.set_level("INFO")
    run.count()
    count = read_count(run.files)
    assert count.n_clusters in (5, 6) and len(count.estimates) == 7
    run.cluster()
    clustering = read_clustering(run.files)
    assert len(clustering.record.clusters) == count.n_clusters
    table = pq.read_table(run.files.texts)
    assert table.column_names == ["row", "cluster", "confidence", "outlier", "text"]
    assert table["text"][7].as_py() == "music 7"
    assert run.files.table.read_text().startswith('"row","cluster","confidence","outlier","text"\n0,')
    new = write_jsonl(tmp_path / "new.jsonl", [{"input": "card x"}, {"input": "alarm y"}])
    np.save(tmp_path / "new.npy", 3 * np.eye(5, 16, dtype=np.float32)[[0, 3]])
    run.assign("--data_path", new, "--feat_path", tmp_path / "new.npy")
    found = pq.read_table(run.files.assigned(new)).to_pydict()
    assert found["cluster"] == [clustering.assignment.cluster[row] for row in (0, 3)]
    caplog.clear()
    run.count()
    run.cluster()
    run.assign("--data_path", new, "--feat_path", tmp_path / "new.npy")
    assert caplog.text.count("already made") == 3 and "wrote" not in caplog.text


def test_new_texts_are_embedded_with_the_checkpoint(run, tmp_path, embedder_folder, sentences, caplog):
    texts = sentences(40)
    path = write_jsonl(tmp_path / "tiny.jsonl", [{"input": text} for text in texts])
    data = ["--dataset", "mine", "--output_path", tmp_path / "out"]
    run_stage("get_embedding", "--dataset", "mine", "--data_path", path, "--embedder", embedder_folder,
              "--no_measure", "--output_path", tmp_path)  # fmt: skip
    embeds = tmp_path / "mine_small_embeds_embedder.npy"
    run_stage("cluster", *data, "--data_path", path, "--feat_path", embeds, "--n_clusters", 4)
    assign = ("assign", *data, "--data_path", path, "--checkpoint", embedder_folder)
    run_stage(*assign)
    np.testing.assert_allclose(np.load(run.files.new_vectors(path)), np.load(embeds), atol=1e-5)
    found = pq.read_table(run.files.assigned(path))["cluster"].to_pylist()
    assert found == read_clustering(run.files).assignment.cluster.tolist()
    caplog.set_level("INFO")
    run_stage(*assign)
    assert caplog.text.count("already made") == 2


def test_given_vectors_of_another_model_and_other_files_of_texts_are_refused(
    run, tmp_path, embedder_folder, sentences, capsys
):
    path = write_jsonl(tmp_path / "tiny.jsonl", [{"input": text} for text in sentences(40)])
    other = shutil.copytree(embedder_folder, tmp_path / "other")
    (other / "more.txt").write_text("another model")
    vectors = []
    for model in (embedder_folder, other):
        run_stage("get_embedding", "--dataset", "mine", "--data_path", path, "--embedder", model,
                  "--no_measure", "--output_path", tmp_path)  # fmt: skip
        vectors.append(tmp_path / f"mine_small_embeds_{model.name}.npy")
    data = ["--dataset", "mine", "--output_path", tmp_path / "out"]
    run_stage("cluster", *data, "--data_path", path, "--feat_path", vectors[0], "--n_clusters", 4)
    run_stage("assign", *data, "--data_path", path, "--feat_path", vectors[0])
    line = refuse(capsys, "assign", *data, "--data_path", path, "--feat_path", vectors[1])
    assert "other.npy: not of the model of the clustered vectors" in line
    names = ["name_clusters", *data, "--naming_llm", "none", "--checkpoint", embedder_folder]
    assert "other texts than those of the clusters" in refuse(capsys, *names, "--data_path", run.path)
    assert "no such file" in refuse(capsys, *names, "--data_path", tmp_path / "none.csv")
    run_stage(*names, "--data_path", path)


def test_new_texts_are_embedded_as_the_clustered_ones_were(tmp_path, monkeypatch, embedder_folder, sentences, capsys):
    monkeypatch.setattr("perspective.layout.FINETUNE_STAGE", tmp_path)  # where the run's own checkpoint is
    path = write_jsonl(tmp_path / "tiny.jsonl", [{"input": text} for text in sentences(40)])
    data = ["--dataset", "banking77", "--data_path", path]
    run_stage("get_embedding", *data, "--embedder", embedder_folder, "--no_measure", "--output_path", tmp_path)
    embeds = tmp_path / "banking77_small_embeds_embedder.npy"
    data += ["--output_path", tmp_path / "out"]
    run_stage("cluster", *data, "--feat_path", embeds, "--n_clusters", 4)
    line = refuse(capsys, "assign", *data, "--checkpoint", embedder_folder, "--instruction")
    assert "made with another instruction; add --no_instruction" in line
    shutil.copytree(embedder_folder, Layout("banking77", "small", "minilm").checkpoint)
    assert "not the model of the clustered vectors; give that one by --checkpoint" in refuse(capsys, "assign", *data)


def test_changed_edits_are_applied_without_overwriting_and_other_numbers_are_refused(run, capsys, caplog):
    run.cluster("--n_clusters", 5)
    found = run.files.found.read_bytes()
    run.files.edits.write_text("merge:\n  - [0, 1]\nrename:\n  77: nobody\n")
    run.cluster("--n_clusters", 5)
    assert [one.id for one in read_clustering(run.files).record.clusters] == [0, 2, 3, 4]
    assert "rename 77: nobody: there is no cluster or branch 77 (the edit is kept, but has no effect" in caplog.text
    assert "77: nobody" in run.files.edits.read_text() and run.files.found.read_bytes() == found
    line = refuse(capsys, "cluster", *run.data, "--feat_path", run.vectors, "--n_clusters", 6)
    assert "made with other n_clusters (5, now 6)" in line and "--overwrite" in line


def test_a_number_that_nobody_gave_gives_way(run, caplog):
    caplog.set_level("INFO")
    run.count()
    run.cluster()
    run.count("--n_clusters", 7)
    run.cluster()  # follows the count
    assert len(read_clustering(run.files).record.clusters) == 7
    run.count()  # what a person gave stays
    assert "7 clusters, the number that was given" in caplog.text and read_count(run.files).n_clusters == 7
    run.count("--overwrite")
    run.cluster("--n_clusters", 4)
    run.cluster()  # keeps what was given here
    assert len(read_clustering(run.files).record.clusters) == 4 != read_count(run.files).n_clusters
    run.cluster("--overwrite")
    estimated = read_count(run.files).n_clusters
    assert len(read_clustering(run.files).record.clusters) == estimated
    run.cluster("--n_clusters", estimated)  # the same number, but now it is a person's
    vectors, output = np.load(run.vectors), Output(run.vectors, "embeddings", {})
    output.write_vectors(vectors)
    output.replace(read_sidecar(run.vectors))
    output.write_vectors(vectors * 2)
    run.count("--n_clusters", 7)
    run.cluster()  # another number of later vectors
    assert len(read_clustering(run.files).record.clusters) == 7


@pytest.mark.parametrize(
    ("stage", "more", "message"),
    [
        ("count_clusters", ["--n_clusters", 161], "--n_clusters 161: there are only 160 texts"),
        ("count_clusters", ["--criterion", "llm"], "--criterion llm: needs answer states; run read_states.sh first"),
        ("cluster", ["--method", "hdbscan", "--n_clusters", 5], "hdbscan finds the number itself; leave it out"),
    ],
)
def test_numbers_that_cannot_be_are_refused(run, capsys, stage, more, message):
    assert message in refuse(capsys, stage, *run.data, "--feat_path", run.vectors, *more)


def test_vectors_of_other_texts_are_refused(run, tmp_path, embedder_folder, capsys):
    run_stage("get_embedding", *run.data[:4], "--embedder", embedder_folder, "--no_measure", "--output_path", tmp_path)
    lines = run.path.read_text().splitlines()
    run.path.write_text("\n".join(reversed(lines)) + "\n")
    embeds = tmp_path / "mine_small_embeds_embedder.npy"
    line = refuse(capsys, "cluster", *run.data, "--feat_path", embeds, "--n_clusters", 5)
    assert "made from other texts than" in line and "make it again" in line


def test_a_typo_in_the_edits_is_one_line(run, capsys):
    run.cluster("--n_clusters", 5)
    run.files.edits.write_text("rename:\n  0: a\nmreg:\n  - [1, 2]\n")
    line = refuse(capsys, "cluster", *run.data, "--feat_path", run.vectors, "--n_clusters", 5)
    assert f"{run.files.edits}:3: " in line and "did you mean merge?" in line


def test_overwriting_keeps_the_ids_of_clusters_that_stay(run):
    run.cluster("--n_clusters", 5)
    before = read_clustering(run.files).assignment.cluster
    run.cluster("--n_clusters", 4, "--overwrite")
    after = read_clustering(run.files).assignment.cluster
    same = [one for one in set(before) if one in set(after)]
    assert len(same) == 3  # two were joined: a new cluster
    assert all((after[before == one] == one).all() for one in same)
    assert set(after) - set(before) == {5}
    run.cluster("--n_clusters", 5, "--overwrite")
    assert not (set(read_clustering(run.files).assignment.cluster) - set(after)) & set(before)  # gone is gone


def test_a_renamed_branch_takes_no_id_of_a_cluster(run):
    run.cluster("--n_clusters", 5)
    branch = read_clustering(run.files).record.tree[0].id
    run.files.edits.write_text(f"rename:\n  {branch}: mine\n")
    run.cluster("--n_clusters", 7, "--overwrite")
    assert max(one.id for one in read_clustering(run.files).record.clusters) < 20


@pytest.mark.parametrize("damaged", ["found", "texts"])
def test_overwriting_replaces_damaged_files(run, damaged, caplog):
    run.cluster("--n_clusters", 5)
    path = getattr(run.files, damaged)
    path.write_bytes(path.read_bytes()[:50])
    run.cluster("--n_clusters", 5, "--overwrite")
    assert len(read_clustering(run.files).record.clusters) == 5 and "damaged" in caplog.text


def test_a_kill_between_sidecar_and_clusters_mixes_nothing(run, capsys):
    run.cluster("--n_clusters", 5)
    old = run.files.clusters.read_bytes()
    first = {path.name: path.read_bytes() for path in (run.files.centers, run.files.anchors, run.files.texts)}
    run.cluster("--n_clusters", 7, "--overwrite")
    for name, content in first.items():  # what was there before: the new files wait under other names
        path = run.files.folder / name
        path.with_name(f".{name}.new").write_bytes(path.read_bytes())
        path.write_bytes(content)
    run.files.clusters.write_bytes(old)
    with pytest.raises(DataError, match="not of these clusters"):
        read_clustering(run.files)
    finish_writing(run.files)
    with pytest.raises(DataError, match="not of these clusters"):
        read_clustering(run.files)
    run.cluster("--n_clusters", 7, "--overwrite")
    assert len(read_clustering(run.files).record.clusters) == 7


def test_the_vectors_are_found_from_another_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_stage("cluster", *run.data, "--feat_path", run.vectors.name, "--n_clusters", 5)
    assert find_embeddings(run.files) == run.vectors


def test_hdbscan_needs_no_number(run):
    run.cluster("--method", "hdbscan", "--min_cluster_size", 20)
    clustering = read_clustering(run.files)
    assert clustering.record.method == "hdbscan" and len(clustering.record.clusters) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run count_clusters.sh first, or give --n_clusters N"),
        (["--n_clusters", "0"], "--n_clusters 0: must be at least 1"),
        (["--n_clusters", "161"], "160 texts cannot form 161 clusters"),
        (["--method", "hdbscan", "--min_cluster_size", "1"], "must be at least 2"),
        (["--method", "hdbscan", "--min_cluster_size", "150"], "finds no cluster of 150 texts"),
    ],
)
def test_what_cannot_be_clustered_is_refused(run, capsys, arguments, message):
    assert message in refuse(capsys, "cluster", *run.data, "--feat_path", run.vectors, *arguments)
    assert not run.files.clusters.exists()


def test_damaged_files_are_refused_in_one_line(run, capsys, tmp_path):
    np.save(tmp_path / "new.npy", np.ones((2, 16), np.float32))
    assign = (*run.data[:2], *run.data[4:], "--feat_path", tmp_path / "new.npy")
    assert "run cluster.sh first" in refuse(capsys, "assign", *assign)
    assert "assign needs new texts" in refuse(capsys, "assign", *assign[:-2])
    assert "assign needs new texts" in refuse(capsys, "assign", *assign, "--update")
    run.cluster("--n_clusters", 5)
    run.files.clusters.write_text("{")
    assert "bad JSON" in refuse(capsys, "assign", *assign)
    run.files.clusters.write_text(json.dumps({"method": "kmeans"}))
    assert "damaged" in refuse(capsys, "assign", *assign)
    run.cluster("--n_clusters", 5)  # makes them again
    np.save(tmp_path / "nan.npy", np.diag([1, 1, np.nan, *[1] * 13]).astype(np.float32))
    assert "nan.npy: row 2 holds NaN or infinity" in refuse(capsys, "assign", *assign[:-1], tmp_path / "nan.npy")
    assert not list(run.files.folder.glob("*assigned*"))
    run.assign("--feat_path", tmp_path / "new.npy")
    run.files.count.write_text("[]")
    assert "damaged" in refuse(capsys, "cluster", *run.data, "--feat_path", run.vectors, "--overwrite")


@pytest.mark.slow
@pytest.mark.parametrize("written", ["found.npy", "centers.npy", "texts.csv", "clusters.json"])
def test_killed_while_a_file_is_written_cluster_resumes(run, written):
    run.cluster("--n_clusters", 5)
    expected = read_clustering(run.files)
    command = stage_command("cluster", *run.data, "--feat_path", run.vectors, "--n_clusters", 5, "--overwrite")

    def is_writing():
        return any(run.files.folder.glob(f".*-{written}.*"))

    run_killed_when(is_writing, command, cwd=ROOT, env=stage_environment())
    run.cluster("--n_clusters", 5)
    found = read_clustering(run.files)
    assert found.record == expected.record
    np.testing.assert_array_equal(found.assignment.cluster, expected.assignment.cluster)
