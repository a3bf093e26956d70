"""Work on a local Ray cluster of two workers, some of which are killed."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
from helpers import ROOT, stage_environment, wait_for

from perspective.artifacts import Output, read_facts
from perspective.errors import DataError, ModelError
from perspective.runtime.ray import EngineSettings, _Shards, _share_out, write_vectors_on_ray


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="needs requirements-ray.txt")
    pytest.importorskip("ray.data")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="CRITICAL",
    )
    yield ray
    ray.shutdown()


def engine(shard_texts, workers=2):
    return EngineSettings("ray", workers, shard_texts)


def load_lengths(log, seconds=0.0):
    """A model that needs no loading: the length of each text; it logs the shards begun and finished."""

    def compute(texts):
        with open(log, "a", buffering=1) as lines:
            lines.write(f"begin {os.getpid()} {texts[0]}\n")
            time.sleep(seconds)
            if "deadly" in texts:
                os.kill(os.getpid(), signal.SIGKILL)
            if "bad" in texts:
                raise DataError("a text that no model takes")
            lines.write(f"end {os.getpid()} {texts[0]}\n")
        return np.array([[len(text), 1] for text in texts])

    return compute


def fail_to_load():
    raise ModelError("x: no such model")


def read_log(log):
    """Return (what, pid, first text) of each line."""
    return [line.split(" ", 2) for line in log.read_text().splitlines()] if log.exists() else []


def count(log, what):
    return Counter(text for kind, _, text in read_log(log) if kind == what)


def kill_one_at_work(log, n_done):
    """Kill -9 a worker in the middle of a shard, after `n_done` shards are finished."""
    wait_for(lambda: count(log, "end").total() >= n_done, 300)
    while True:
        lines = read_log(log)
        at_work = [pid for kind, pid, text in lines if kind == "begin" and ["end", pid, text] not in lines]
        if at_work:
            os.kill(int(at_work[-1]), signal.SIGKILL)
            return


@pytest.mark.slow
def test_a_killed_worker_loses_no_finished_shard(cluster, sentences, tmp_path):
    texts = [f"{number} {text}" for number, text in enumerate(sentences(95))]
    log = tmp_path / "log"
    output = Output(tmp_path / "v.npy", "embeddings", {})
    killer = threading.Thread(target=kill_one_at_work, args=(log, 3))
    killer.start()
    write_vectors_on_ray(output, texts, partial(load_lengths, log, 0.3), engine(10))
    killer.join()
    assert np.load(output.path).tolist() == [[len(text), 1] for text in texts]
    assert output.is_finished() and output.facts["n_shards"] == 10
    begun, done = count(log, "begin"), count(log, "end")
    assert set(done) == set(texts[::10]) and set(done.values()) == {1}
    assert begun.total() == 11  # only the interrupted shard was begun again
    assert len({pid for _, pid, _ in read_log(log)}) == 3
    output.discard_partial()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "v.npy", "v.npy.meta.json"]


@pytest.mark.slow
def test_vectors_and_answer_states_are_those_of_one_process(
    cluster, embedder_folder, llm_folder, sentences, tmp_path, one_thread
):
    from perspective.llm.loading import load_llm
    from perspective.models.embedding import EmbedSettings, load_embedding
    from perspective.teacher.states import compute_states

    texts = sentences(40, n_words=12)
    load = partial(load_llm, str(llm_folder))
    found = [
        compute_states(Output(tmp_path / f"{name}.npy", "answer states", {}), texts, ("\nIntent:",), load, settings)
        for name, settings in (("local", None), ("ray", engine(16, workers=1)))
    ]
    assert found[0].shape == (40, 32)
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    assert not list(tmp_path.glob("*.partial"))
    embed = partial(load_embedding, str(embedder_folder), EmbedSettings(), None)
    output = Output(tmp_path / "v.npy", "embeddings", {})
    write_vectors_on_ray(output, texts, embed, engine(16, workers=1))
    vectors = np.load(output.path)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, embed()(texts), atol=1e-5)


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_ends_the_run(cluster, tmp_path):
    output, log = Output(tmp_path / "v.npy", "embeddings", {}), tmp_path / "log"
    texts = ["a", "bb", "ccc", "deadly"]
    with pytest.raises(ModelError, match="Ray gave up a shard after 4 tries.*fewer --workers") as caught:
        write_vectors_on_ray(output, texts, partial(load_lengths, log), engine(1))
    assert "\n" not in str(caught.value)
    assert count(log, "begin")["deadly"] == 4
    texts[-1] = "harmless"
    kept = len(list(output.partial.glob("*.npy")))
    log.unlink()
    write_vectors_on_ray(output, texts, partial(load_lengths, log), engine(1))
    assert count(log, "end").total() == 4 - kept
    assert np.load(output.path)[:, 0].tolist() == [1, 2, 3, 8]


@pytest.mark.slow
def test_an_error_in_a_worker_is_raised_unchanged(cluster, tmp_path):
    output = Output(tmp_path / "v.npy", "embeddings", {})
    gc.disable()
    try:
        with pytest.raises(DataError, match="^a text that no model takes$") as kept:
            write_vectors_on_ray(output, ["a", "bad"], partial(load_lengths, tmp_path / "log"), engine(1))
    finally:
        gc.enable()
    # Its workers end, although the error is kept; otherwise the next run would wait for their CPUs.
    wait_for(lambda: cluster.available_resources().get("CPU") == 2, 60)
    assert kept.value.__context__ is None
    with pytest.raises(ModelError, match="^x: no such model$"):
        write_vectors_on_ray(output, ["b", "c"], fail_to_load, engine(1))
    with pytest.raises(DataError, match="--workers 3: the Ray cluster has 2 CPUs"):
        write_vectors_on_ray(output, ["b", "c"], fail_to_load, engine(1, workers=3))


DRIVER = """
import sys
from functools import partial
from pathlib import Path
import ray
import test_ray
from perspective.artifacts import Output
ray.cloudpickle.register_pickle_by_value(test_ray)
folder, texts = Path(sys.argv[1]), [f"{number}" for number in range(12)]
load = partial(test_ray.load_lengths, folder / "log", 0.3)
test_ray.write_vectors_on_ray(
    Output(folder / "v.npy", "embeddings", {}), texts, load, test_ray.engine(1)
)
"""


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path):
    pytest.importorskip("ray", reason="needs requirements-ray.txt")
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    environment = stage_environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests' / 'runtime'}")
    log, partial_folder = tmp_path / "log", tmp_path / "v.npy.partial"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(partial_folder.glob("ray-*.npy"))) >= 3, 300)
    process.kill()
    process.wait()
    kept = len(list(partial_folder.glob("ray-*.npy")))
    pids = {int(pid) for _, pid, _ in read_log(log)}
    wait_for(lambda: not any(is_running(pid) for pid in pids), 60)  # no worker outlives its cluster
    log.unlink()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    lines = {line.split(":")[0] for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()}
    assert lines == {"on Ray", "joining"}  # the progress bars and nothing else
    assert 3 <= kept < 12 and count(log, "end").total() == 12 - kept
    assert np.load(tmp_path / "v.npy")[:, 0].tolist() == [len(str(number)) for number in range(12)]


def is_running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")  # a zombie: dead, but not waited for


def test_shards_are_identified_by_their_texts(tmp_path):
    texts = ["a", "b", "c", "d", "e"]
    shards = _Shards.split(texts, 2)
    assert len(shards) == 3 and [shards.count(start) for start in shards.names] == [2, 2, 1]
    (tmp_path / shards.names[2]).touch()
    missing = shards.missing(tmp_path)
    assert list(missing.names) == [0, 4] and missing.n_texts == 3
    assert [table.to_pydict() for table in missing] == [
        {"start": [0], "texts": [["a", "b"]]},
        {"start": [4], "texts": [["e"]]},
    ]
    assert _Shards.split(["a", "b", "c", "x", "e"], 2).missing(tmp_path).n_texts == 5
    assert _Shards.split(["a", "b", 'c", "d'], 2).missing(tmp_path).n_texts == 3  # boundaries between texts count


def test_joined_shards_have_the_bytes_of_np_save(tmp_path):
    output, texts = Output(tmp_path / "v.npy", "embeddings", {}), [f"{number}" for number in range(25)]
    vectors = np.random.default_rng(0).normal(size=(25, 7)).astype(np.float32)
    shards = _Shards.split(texts, 10)
    folder = output.open_partial()
    for start, name in shards.names.items():
        np.save(folder / name, vectors[start : start + 10])
    write_vectors_on_ray(output, texts, dict, engine(10))  # nothing is missing: no cluster is needed
    np.save(tmp_path / "expected.npy", vectors)
    assert output.path.read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert output.is_finished() and read_facts(output.path)["n_texts"] == 25
    np.save(folder / shards.names[20], vectors[:4])
    with pytest.raises(DataError, match=r"shape \(4, 7\), expected \(5, 7\)"):
        write_vectors_on_ray(output, texts, dict, engine(10))


def test_shards_of_another_run_are_refused(tmp_path):
    folder = Output(tmp_path / "v.npy", "embeddings", {"embedder": "a"}).open_partial()
    (folder / "shard.npy").write_bytes(b"work")
    with pytest.raises(DataError, match="unfinished run with other inputs or settings"):
        write_vectors_on_ray(Output(tmp_path / "v.npy", "embeddings", {"embedder": "b"}), ["a"], dict, engine(1))


def test_without_ray_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match="^--engine ray: Ray is not installed; run: bash scripts/setup.sh --ray$"):
        write_vectors_on_ray(Output(tmp_path / "v.npy", "embeddings", {}), ["a", "b"], dict, engine(1))


@pytest.mark.parametrize(
    "nodes, requested, expected",
    [
        ([{"CPU": 2.0}], None, (2, {"num_cpus": 1})),
        ([{"CPU": 9.0}], 2, (2, {"num_cpus": 4})),
        ([{"CPU": 8.0}, {"CPU": 8.0}], 1, (1, {"num_cpus": 8})),  # on one node
        ([{"CPU": 8.0}, {"CPU": 2.0}, {}], 5, (5, {"num_cpus": 2})),
        ([{"CPU": 96.0, "GPU": 8.0}], None, (8, {"num_gpus": 1})),
        ([{"CPU": 16.0}, {"CPU": 96.0, "GPU": 8.0}], 3, (3, {"num_gpus": 1})),
    ],
)
def test_each_worker_gets_one_gpu_or_an_equal_share_of_cpus(nodes, requested, expected):
    assert _share_out(nodes, requested) == expected


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"workers": 0}, "--workers 0: must be at least 1"),
        ({"shard_texts": 0}, "--shard_texts 0: must be at least 1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(DataError, match=message):
        EngineSettings(**settings)
