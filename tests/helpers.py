"""What tests of whole stages share."""

import functools
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = {
    "get_embedding": "perspective.2_finetune.get_embedding",
    "triplet_sampling": "perspective.1_predict_triplet.triplet_sampling",
    "random_triplet_sampling": "perspective.1_predict_triplet.random_triplet_sampling",
    "read_states": "perspective.1_predict_triplet.read_states",
    "predict_triplet": "perspective.1_predict_triplet.predict_triplet",
    "calculate_accuracy": "perspective.1_predict_triplet.calculate_accuracy",
    "convert_triplet": "perspective.2_finetune.convert_triplet",
    "convert_triplet_self": "perspective.2_finetune.convert_triplet_self",
    "convert_states": "perspective.2_finetune.convert_states",
    "finetune": "perspective.2_finetune.finetune",
    "count_clusters": "perspective.3_describe.count_clusters",
    "cluster": "perspective.3_describe.cluster",
    "draw_map": "perspective.3_describe.draw_map",
    "export_map": "perspective.3_describe.export_map",
    "assign": "perspective.3_describe.assign",
    "name_clusters": "perspective.3_describe.name_clusters",
    "brainstorm": "perspective.4_synthesize.brainstorm",
    "generate": "perspective.4_synthesize.generate",
    "filter": "perspective.4_synthesize.filter",
    "mntp": "perspective.5_pretrain.mntp",
    "simcse": "perspective.5_pretrain.simcse",
    "retromae": "perspective.5_pretrain.retromae",
    "weak_pairs": "perspective.5_pretrain.weak_pairs",
}


def make_vectors(n_texts=120, seed=0, n_groups=8, dim=6):
    """Vectors in groups that overlap."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(n_groups, size=n_texts)
    return (rng.standard_normal((n_groups, dim)) * 2)[groups] + rng.standard_normal((n_texts, dim))


def run_stage(name, *arguments):
    """Run an entry script in this process."""
    importlib.import_module(STAGES[name]).main([str(argument) for argument in arguments])


def stage_command(name, *arguments):
    return [sys.executable, "-m", STAGES[name], *map(str, arguments)]


def stage_environment(**more):
    # Data sets of the machine's own would be found where a test expects none.
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "EMBWITHLLM_DATASETS": "", **more}


def run_killed_when(is_time, command, **options):
    """Start a command and kill -9 it as soon as `is_time()` says so; True if it ended by itself before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    while process.poll() is None:
        if is_time():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
        time.sleep(0.02)
    assert process.returncode == 0
    return True


def fail_at_step(monkeypatch, n):
    """Let the n-th step of all trainings fail, as a kill would end one; return a list that grows by each step."""
    from transformers import Trainer

    step, steps = Trainer.training_step, []

    def fail(*arguments, **keywords):
        steps.append(len(steps))
        if len(steps) == n:
            raise RuntimeError("killed")
        return step(*arguments, **keywords)

    monkeypatch.setattr(Trainer, "training_step", fail)
    return steps


def load_with_random_adapters(folder):
    """Load an embedder with LoRA adapters that change its vectors."""
    import torch

    from perspective.models.embedders import load_embedder
    from perspective.training.adapters import add_adapters

    torch.manual_seed(0)
    model = load_embedder(str(folder), device="cpu")
    add_adapters(model, 2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def run_stage_into(log, name, *arguments):
    """Run an entry script with all it prints going to a file; for processes of their own."""
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    run_stage(name, *arguments)


@contextmanager
def limit_file_size(n_bytes):
    """Let every write beyond a size fail, as on a full disk."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def copy_repository(folder):
    """Copy what git would hand to a stranger; the environment comes as a link."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder


def run_bash(folder, *command, environment=None):
    """Run a script of a copy of the repository; return its exit code and what it printed and logged."""
    done = subprocess.run(
        ["bash", *map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=stage_environment(PYTHONPATH="", **(environment or {})),
    )
    return done.returncode, done.stdout, done.stderr


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def make_question(row, query, choice1, choice2, gold=None):
    """A question about texts that stand in no file; `row_of` tells which it is, also of its judgment."""
    from perspective.artifacts import Triplet
    from perspective.judging.protocol import Question

    return Question(Triplet(3 * row, 3 * row + 1, 3 * row + 2, gold), query, choice1, choice2)


def row_of(judgment):
    return judgment.triplet.query_idx // 3


def refuse(capsys, stage, *arguments, **more):
    """Run a stage (by its name, or a callable) that must end with exit code 2; return its one line."""
    run = stage if callable(stage) else functools.partial(run_stage, stage)
    with pytest.raises(SystemExit) as ended:
        run(*arguments, **more)
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def find_browser():
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for found in map(shutil.which, filter(None, names)) if found), None)


def drop_weights(folder, part):
    """Take the weights with a part in their names out of a model's folder."""
    from safetensors.torch import save_file

    kept = {name: value for name, value in load_weights(folder).items() if part not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def load_weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
