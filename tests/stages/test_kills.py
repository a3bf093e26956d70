"""Every stage of stages 1, 2, 3 and 5, killed at random moments and run again, gives the bytes of an undisturbed run.

Requests to a server, which must not be paid twice, are counted in `test_pipeline` and `test_naming`.
"""

import json
import multiprocessing
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from helpers import STAGES, make_vectors, run_stage_into, write_jsonl

from perspective.artifacts import hash_file, read_sidecar, sidecar_path

N_TEXTS = 320  # two blocks of answer states
N_KILLS = 2  # a stage
RUN = "tiny_small_embedder_m=60_seed=100"
RANDOM_RUN = "tiny_small_random_m=60_seed=100"
TEACHER = "tiny_small_embedder-llm-teacher.npy"
JUDGED_TEACHER = f"{RUN}-llm-judged-teacher.npy"
# Loaded once; each run is forked from there, so that kills meet its work, not its imports.
PRELOADED = [
    "perspective.training.distillation",
    "perspective.training.finetuning",
    "perspective.llm.packing",
    "perspective.description.counting",
    "perspective.description.new_texts",
    "perspective.naming.files",
    "perspective.page.sources",
    "openTSNE",
    "perspective.pretraining.simcse",
    "sentence_transformers",
    "transformers.trainer",
    "datasets",
    "sklearn.cluster",
    "sklearn.neighbors",
    *STAGES.values(),
]
forks = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Case:
    """A call of a stage, and what it writes.

    Attributes:
        stage: Name of the entry script.
        results: Names of its results.
        options: Its options; `{made}` is the folder of an undisturbed run's files, `{out}` that of the results.
    """

    stage: str
    results: tuple[str, ...]
    options: str


DATA = "--dataset tiny --data_path {texts}"
EMBEDS = "tiny_small_embeds_embedder.npy"
FEATS = "--feat_path {made}/" + EMBEDS
STATES = "--states_path {made}/tiny_small-llm.npy"
JUDGED = f"--pred_path {{made}}/{RUN}-llm-pred.json"
CASES = {
    "embed": Case(
        "get_embedding",
        (EMBEDS, "tiny_small_embeds_embedder_measures.json", "tiny_small_embeds_embedder_clusterings.npy"),
        DATA + " --embedder {embedder} --output_path {out}",
    ),
    "sample": Case(
        "triplet_sampling",
        (f"{RUN}.json",),
        DATA + " --embedder {embedder} --max_query 60 --max_distance 8 --out_dir {out} " + FEATS,
    ),
    "sample at random": Case(
        "random_triplet_sampling", (f"{RANDOM_RUN}.json",), DATA + " --max_query 60 --out_dir {out}"
    ),
    "read": Case(
        "read_states",
        ("tiny_small-llm.npy", "tiny_small-llm-control.npy"),
        DATA + " --llm {llm} --perspective intent --output_path {out}",
    ),
    "judge by states": Case(
        "predict_triplet",
        (f"{RUN}-llm-pred.json",),
        DATA + " --triplet_path {made}/" + RUN + ".json --llm {llm} --perspective intent --output_path {out} " + STATES,
    ),
    "judge by choice": Case(
        "predict_triplet",
        (f"{RUN}-llm-choice-pred.json",),
        DATA + " --triplet_path {made}/" + RUN + ".json --llm {llm} --judge choice --output_path {out}",
    ),
    "analyse": Case(
        "calculate_accuracy", (f"{RUN}-llm-accuracy.json",), f"{DATA} --output_path {{out}} {JUDGED} {FEATS}"
    ),
    "convert": Case("convert_triplet", (f"{RUN}-llm-train.json",), f"{DATA} --output_path {{out}} {JUDGED} {FEATS}"),
    "convert by embedder": Case(
        "convert_triplet_self", (f"{RUN}-llm-self-train.json",), f"{DATA} --output_path {{out}} {JUDGED} {FEATS}"
    ),
    "teach": Case(
        "convert_states",
        (TEACHER,),
        "--dataset tiny --embedder {embedder} --llm llm --weight 1 --output_path {out} " + f"{FEATS} {STATES}",
    ),
    "teach by triplets": Case(
        "convert_states",
        (JUDGED_TEACHER,),
        "--dataset tiny --embedder {embedder} --llm llm --max_query 60 --states_llm none --output_path {out} "
        f"{FEATS} --judged_path {{made}}/{EMBEDS}",
    ),
    "distil": Case(
        "finetune",
        ("distilled",),
        DATA + " --embedder {embedder} --train_file {made}/" + TEACHER + " --output_dir {out}/distilled "
        "--num_train_epochs 1 --per_device_train_batch_size 16 --save_steps 4",
    ),
    "train on triplets": Case(
        "finetune",
        ("trained",),
        DATA + " --embedder {embedder} --train_file {made}/" + RUN + "-llm-self-train.json --output_dir {out}/trained "
        "--num_train_epochs 4 --per_device_train_batch_size 4 --save_steps 8 --recipe standard",
    ),
    "mask": Case(
        "mntp",
        ("tiny_llm-mntp",),
        DATA + " --embedder {llm} --output_path {out} --per_device_train_batch_size 16 --save_steps 4 --lora_rank 2",
    ),
    "tell views apart": Case(
        "simcse",
        ("tiny_llm-simcse",),
        DATA + " --embedder {llm} --output_path {out} --per_device_train_batch_size 16 --save_steps 4 --lora_rank 2",
    ),
    "embed again": Case(
        "get_embedding",
        (
            "tiny_small_embeds_distilled.npy",
            "tiny_small_embeds_distilled_measures.json",
            "tiny_small_embeds_distilled_clusterings.npy",
        ),
        DATA + " --embedder {embedder} --checkpoint {made}/distilled --output_path {out}",
    ),
}


@dataclass(frozen=True)
class Undisturbed:
    """The files of a run that nothing disturbed, the seconds of each case, and what the options are filled with."""

    folder: Path
    seconds: dict[str, float]
    places: dict[str, str]

    def start(self, name: str, out: Path) -> multiprocessing.Process:
        options = [part.format(made=self.folder, out=out, **self.places) for part in CASES[name].options.split()]
        process = forks.Process(target=run_stage_into, args=(out / "log.txt", CASES[name].stage, *options))
        process.start()
        return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, embedder_folder, llm_folder):
    folder = tmp_path_factory.mktemp("undisturbed")
    rng = random.Random(0)
    words = ("card", "bank", "top", "transfer", "rain", "sun", "music", "song", "pin", "lost", "money", "alarm")
    texts = [f"{' '.join(rng.choices(words, k=rng.randint(2, 9)))} {i}" for i in range(N_TEXTS)]
    data = write_jsonl(folder / "tiny.jsonl", [{"input": text, "label": text.split()[0]} for text in texts])
    places = {"texts": str(data), "embedder": str(embedder_folder), "llm": str(llm_folder)}
    forks.set_forkserver_preload(PRELOADED)
    warm_up = forks.Process(target=time.sleep, args=(0,))  # not measured: the server's own imports
    warm_up.start()
    warm_up.join()
    run = Undisturbed(folder, {}, places)
    for name in CASES:
        started = time.perf_counter()
        process = run.start(name, folder)
        process.join()
        assert process.exitcode == 0, (folder / "log.txt").read_text()
        run.seconds[name] = time.perf_counter() - started
    return run


def describe(path: Path) -> object:
    """All that must be equal of a result: its bytes, what it was made from, what later stages read of it."""
    if path.is_dir():  # its card and chart hold dates
        return hash_file(path / "model.safetensors"), hash_file(path / "loss.csv")
    sidecar = read_sidecar(path)
    record = sidecar.record.model_dump()
    for count in ("n_prompts", "n_tokens"):  # a judge's work in the last run
        (record["judge"] or {"figures": {}})["figures"].pop(count, None)
    return hash_file(path), sidecar.sha256, sidecar.inputs, record


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_stage_killed_at_random_moments_ends_the_same(undisturbed, tmp_path, name):
    results = {tmp_path / result: undisturbed.folder / result for result in CASES[name].results}
    rng = random.Random(name)
    n_kills, longest = 0, undisturbed.seconds[name]
    while True:
        process = undisturbed.start(name, tmp_path)
        process.join(rng.uniform(0, longest) if n_kills < N_KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            n_kills += 1
            for got, expected in results.items():  # what is there is whole
                assert not got.exists() or describe(got) == describe(expected)
            continue
        assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
        assert all(describe(got) == describe(expected) for got, expected in results.items())
        left = {path.name for path in tmp_path.iterdir()} - {"log.txt"}
        assert left == {path.name for got in results for path in (got, sidecar_path(got))}
        if n_kills == N_KILLS:
            return
        # It ended before the kill came: again from the beginning, with an earlier one.
        for path in list(tmp_path.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        longest *= 0.7


# What each script of stage 3 adds to the folder of the run, in their order.
DESCRIBE = {
    "count_clusters": "{data} {feats} --states_path {made}/states.npy",
    "cluster": "{data} {feats}",
    "name_clusters": "{data} --naming_llm {llm} --checkpoint {embedder} --perspective intent",
    "draw_map": "--dataset mine {feats} --after_path {made}/after.npy",
    "assign": "--dataset mine --data_path {made}/new.jsonl --checkpoint {embedder} --update",
}


@dataclass(frozen=True)
class Described:
    """Folders with the files that were there before each script of stage 3, and after the last; seconds of each."""

    folder: Path
    seconds: dict[str, float]
    places: dict[str, str]

    def start(self, stage: str, out: Path) -> multiprocessing.Process:
        places = {"made": self.folder, "data": f"--dataset mine --data_path {self.folder}/mine.jsonl", **self.places}
        places["feats"] = f"--feat_path {self.folder}/before.npy"
        options = [*DESCRIBE[stage].format(**places).split(), "--output_path", str(out)]
        process = forks.Process(target=run_stage_into, args=(self.folder / "log.txt", stage, *options))
        process.start()
        return process


@pytest.fixture(scope="module")
def described(tmp_path_factory, embedder_folder, llm_folder):
    folder = tmp_path_factory.mktemp("described")
    words = ("card", "rain", "music", "alarm", "money")
    for name, n_texts in (("mine", 100), ("new", 40)):
        write_jsonl(folder / f"{name}.jsonl", [{"input": f"{words[i % 5]} {name} {i}"} for i in range(n_texts)])
    for seed, (name, dim) in enumerate((("before", 32), ("after", 32), ("states", 24))):
        np.save(folder / f"{name}.npy", make_vectors(100, seed, 5, dim).astype(np.float32))
    run = Described(folder, {}, {"embedder": str(embedder_folder), "llm": str(llm_folder)})
    forks.set_forkserver_preload(PRELOADED)
    out = folder / "out"
    out.mkdir()
    for stage in DESCRIBE:
        shutil.copytree(out, folder / stage)
        started = time.perf_counter()
        process = run.start(stage, out)
        process.join()
        assert process.exitcode == 0, (folder / "log.txt").read_text()
        run.seconds[stage] = time.perf_counter() - started
    return run


def read_files(folder):
    """All files by name, without sidecars, which hold times; of the estimates, too, seconds are left out."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".meta.json")}
    for name in [name for name in files if name.endswith("-count.json")]:
        count = json.loads(files[name])
        files[name] = {**count, "estimates": {key: one["n_clusters"] for key, one in count["estimates"].items()}}
    return files


@pytest.mark.slow
@pytest.mark.parametrize("stage", DESCRIBE)
def test_a_killed_script_of_stage_3_ends_the_same(described, tmp_path, stage):
    stages = list(DESCRIBE)
    after = stages[stages.index(stage) + 1] if stage != stages[-1] else "out"
    rng, longest = random.Random(stage), described.seconds[stage]
    out = shutil.copytree(described.folder / stage, tmp_path / "out")
    n_kills = 0
    while n_kills < 2:
        process = described.start(stage, out)
        process.join(rng.uniform(0, longest))
        if process.exitcode is None:
            process.kill()
            n_kills += 1
        else:  # it ended before the kill came: again from the beginning, with an earlier one
            shutil.rmtree(out)
            shutil.copytree(described.folder / stage, out)
            longest *= 0.7
        process.join()
    process = described.start(stage, out)
    process.join()
    assert process.exitcode == 0, (described.folder / "log.txt").read_text()
    found, expected = read_files(out), read_files(described.folder / after)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
