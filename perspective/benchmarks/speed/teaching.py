"""The teacher of a million texts: time and memory of stage 4."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from perspective.benchmarks.speed.comparison import Row, SpeedSettings, run_alone, time_once
from perspective.benchmarks.stages import run_stage
from perspective.layout import control_path
from perspective.trust.specificity import sample_control_rows

N_TEXTS = 10**6
N_KINDS = 5000
DIM, STATE_DIM = 384, 576  # of MiniLM and SmolLM2
ROWS_AT_A_TIME = 50_000


def bench_teacher(settings: SpeedSettings) -> list[Row]:
    """Make the teacher of a million texts from vectors and answer states on disk, by the entry script."""
    with tempfile.TemporaryDirectory() as folder:
        write_evidence(Path(folder), N_TEXTS)
        taken, peak = run_alone(partial(convert, Path(folder)), N_TEXTS)
    what, target = f"teacher, {N_TEXTS:,} vectors", "15 minutes, 8 GiB"
    note = f"peak memory {peak / 2**30:.1f} GiB, pages of mapped files included"
    return [Row(what, "its own growth", target, taken, None, None, "", note)]


def write_evidence(folder: Path, n_texts: int) -> None:
    """Write vectors, answer states and control states of texts of many kinds."""
    rng = np.random.default_rng(0)
    frequencies = rng.pareto(1.5, N_KINDS) + 0.2
    kinds = rng.choice(N_KINDS, n_texts, p=frequencies / frequencies.sum())
    for name, dim in (("vectors", DIM), ("states", STATE_DIM)):
        spread = (1 + np.arange(dim)) ** -0.5  # a spectrum that falls, as of texts
        centers = rng.normal(size=(N_KINDS, dim)) * spread
        rows = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (n_texts, dim))
        for start in range(0, n_texts, ROWS_AT_A_TIME):
            drawn = centers[kinds[start : start + ROWS_AT_A_TIME]]
            drawn += rng.normal(size=drawn.shape) * spread
            rows[start : start + ROWS_AT_A_TIME] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        rows.flush()
    asked = np.array(rows[sample_control_rows(n_texts)])
    others = [asked + rng.normal(scale=STATE_DIM**-0.5, size=asked.shape) for _ in range(3)]
    np.save(control_path(folder / "states.npy"), np.hstack(others).astype(np.float32))


def convert(folder: Path, n_texts: int) -> float:
    """Make the teacher; return the seconds."""
    inputs = ("--feat_path", folder / "vectors.npy", "--states_path", folder / "states.npy")
    call = ("--dataset", "synthetic", *inputs, "--output_path", folder / "teacher")
    return time_once(lambda: run_stage("2_finetune.convert_states", *call))
