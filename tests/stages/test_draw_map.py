"""The map and the page, from the command line to the files."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import make_vectors, refuse, run_stage, write_jsonl

from perspective.description.records import Name, Names
from perspective.layout import ClusterFiles, Layout
from perspective.page.map import read_map

N_TEXTS = 60


@pytest.fixture
def run(tmp_path):
    """Clusters of texts with vectors before and after, and the options of the stages."""

    class Run:
        data = ["--dataset", "mine", "--output_path", tmp_path / "out"]
        files = ClusterFiles(tmp_path / "out", Layout("mine", "small", "minilm").description.stem)
        before, after = tmp_path / "before.npy", tmp_path / "after.npy"
        texts = write_jsonl(tmp_path / "mine.jsonl", [{"input": f"text {row} <b>"} for row in range(N_TEXTS)])

        def cluster(self, *more):
            path = ["--data_path", self.texts, "--feat_path", self.after]
            run_stage("cluster", *self.data, *path, "--n_clusters", "4", *more)

        def draw(self, *more):
            run_stage("draw_map", *self.data, "--feat_path", self.before, "--after_path", self.after, *more)

        def page(self):
            return self.files.page.read_text(encoding="utf-8")

    made = Run()
    np.save(made.before, make_vectors(N_TEXTS, n_groups=4).astype(np.float32))
    np.save(made.after, make_vectors(N_TEXTS, n_groups=4, seed=1).astype(np.float32))
    return made


def test_map_and_page_are_drawn_once(run, capsys, caplog):
    caplog.set_level("INFO")
    run.cluster()
    run.draw()
    out = capsys.readouterr().out
    assert "without labels" in out and "clusters found again from other starts" in out
    assert out.splitlines()[-1] == f"open {run.files.page}"
    assert len(read_map(run.files.map, N_TEXTS).rows) == N_TEXTS and "text 7 \\u003cb\\u003e" in run.page()
    made = run.files.page.stat().st_mtime_ns, run.files.map.stat().st_mtime_ns
    caplog.clear()
    run.draw()
    assert caplog.text.count("already made") == 2 and capsys.readouterr().out == f"open {run.files.page}\n"
    assert made == (run.files.page.stat().st_mtime_ns, run.files.map.stat().st_mtime_ns)


def test_new_names_draw_the_page_again_but_not_the_map(run, capsys):
    run.cluster()
    run.draw()
    made = run.files.map.stat().st_mtime_ns
    names = Names(perspective="kind", llm="tiny", names=[Name(id=0, name="a new name", source="llm")])
    run.files.names.write_text(names.model_dump_json())
    run.draw()
    assert "a new name" in run.page() and "by kind" in run.page()
    assert run.files.map.stat().st_mtime_ns == made


def test_the_map_of_other_vectors_is_drawn_again(run, capsys):
    run.cluster()
    run.draw()
    drawn = run.files.map.read_bytes()
    np.save(run.before, make_vectors(N_TEXTS, seed=5).astype(np.float32))
    run.draw()
    assert run.files.map.read_bytes() != drawn
    np.save(run.before, make_vectors(N_TEXTS + 1).astype(np.float32))
    assert f"{N_TEXTS + 1} rows for {N_TEXTS} texts" in refuse(capsys, run.draw, "--overwrite")


def test_clusters_of_vectors_that_were_made_again_are_refused(run, capsys):
    run.cluster()
    np.save(run.after, np.load(run.after)[::-1])
    assert "of other vectors than are in" in refuse(capsys, run.draw)


def test_a_page_of_somebody_else_is_not_replaced(run, capsys):
    run.cluster()
    run.files.page.write_text("mine")
    assert "not made by this stage" in refuse(capsys, run.draw)
    assert run.page() == "mine"


def test_without_clusters_it_says_what_to_run(run, capsys):
    assert "run cluster.sh first" in refuse(capsys, run.draw)


def test_a_sample_is_shown_of_many_texts(run):
    run.cluster()
    run.draw("--map_texts", "20")
    assert "a random sample of 20 of 60 texts is shown" in run.page()
    run_stage("export_map", *run.data)
    table = pq.read_table(run.files.explore)
    assert len(table) == 20 and {"text", "name", "x", "y", "x_before"} < set(table.column_names)


def test_a_map_of_other_vectors_than_the_clusters_is_not_exported(run, capsys):
    run.cluster()
    run.draw()
    np.save(run.after, np.load(run.after)[::-1])
    run.cluster("--overwrite")
    assert "of other vectors than the clusters; run draw_map.sh again" in refuse(
        capsys, lambda: run_stage("export_map", *run.data)
    )


def test_clusters_that_were_added_are_not_looked_for_among_the_texts_of_the_map(run, tmp_path):
    rng, centers = np.random.default_rng(0), np.eye(6, 32) * 4

    def draw(groups):
        return (centers[groups] + 0.1 * rng.normal(size=(len(groups), 32))).astype(np.float32)

    for path in (run.before, run.after):
        np.save(path, draw(np.arange(N_TEXTS) % 4))
    run.cluster()
    new = write_jsonl(tmp_path / "new.jsonl", [{"input": f"new {row}"} for row in range(20)])
    np.save(tmp_path / "new.npy", draw(4 + np.arange(20) % 2))
    run_stage("assign", *run.data, "--data_path", new, "--feat_path", tmp_path / "new.npy", "--update")
    run.draw()
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', run.page(), re.DOTALL)
    again = [cluster["again"] for cluster in json.loads(found)["clusters"]]
    assert len(again) == 6 and [value for value in again if value is not None] == [1.0] * 4


@pytest.mark.parametrize("n_clusters", ["1", "2"])
def test_two_texts_are_shown(run, tmp_path, n_clusters):
    write_jsonl(run.texts, [{"input": "one"}, {"input": "two"}])
    for path in (run.before, run.after):
        np.save(path, np.eye(2, 5, dtype=np.float32))
    run_stage("cluster", *run.data, "--data_path", run.texts, "--feat_path", run.after, "--n_clusters", n_clusters)
    run.draw()
    assert f"2 texts · {n_clusters} cluster" in run.page()


def test_equal_texts_are_shown(run):
    write_jsonl(run.texts, [{"input": "the same"}] * N_TEXTS)
    for path in (run.before, run.after):
        np.save(path, np.ones((N_TEXTS, 5), dtype=np.float32))
    run_stage("cluster", *run.data, "--data_path", run.texts, "--feat_path", run.after, "--n_clusters", "1")
    run.draw()
    assert "60 texts · 1 cluster ·" in run.page()
