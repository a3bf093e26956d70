"""Time our stages against common alternatives, in turn, on the same inputs, threads and model.

Reads:  datasets/{banking77,few_nerd_nat,mtop_domain,stackexchange}/small.jsonl
Writes: measures/benchmark_speed.json and .md; rows of the measured stages are
        replaced, and the machine and its load that they were measured with

bash scripts/benchmark_speed.sh [STAGE ...]
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from perspective.artifacts import dump_json, write_text
from perspective.artifacts.markdown import format_table
from perspective.benchmarks.gpu import measure_matrix_rate
from perspective.benchmarks.speed.comparison import Row, SpeedSettings
from perspective.benchmarks.speed.decoders import bench_decoders
from perspective.benchmarks.speed.describing import bench_assigning, bench_describing, bench_mapping, bench_naming
from perspective.benchmarks.speed.embedding import bench_embedding
from perspective.benchmarks.speed.hybrid import bench_hybrid
from perspective.benchmarks.speed.judging import bench_judging, bench_states
from perspective.benchmarks.speed.kmeans import bench_kmeans
from perspective.benchmarks.speed.memory import bench_memory
from perspective.benchmarks.speed.sampling import bench_sampling
from perspective.benchmarks.speed.teaching import bench_teacher
from perspective.benchmarks.speed.training import bench_attention, bench_loss, bench_training
from perspective.benchmarks.speed.writing import bench_writing
from perspective.cli import entry_point, parse_settings
from perspective.errors import require_known
from perspective.layout import MEASURES
from perspective.options import option

logger = logging.getLogger(__name__)

STAGES: dict[str, Callable[[SpeedSettings], list[Row]]] = {
    "loss": bench_loss,
    "training": bench_training,
    "attention": bench_attention,
    "embedding": bench_embedding,
    "sampling": bench_sampling,
    "kmeans": bench_kmeans,
    "judging": bench_judging,
    "states": bench_states,
    "memory": bench_memory,
    "teacher": bench_teacher,
    "describing": bench_describing,
    "naming": bench_naming,
    "mapping": bench_mapping,
    "assigning": bench_assigning,
    "writing": bench_writing,
    "decoders": bench_decoders,
    "hybrid": bench_hybrid,
}


COLUMNS = ("stage", "against", "target", "ratio", "ours, s", "other, s", "equal", "note")


@dataclass(frozen=True)
class StageSettings:
    """What is measured."""

    stages: list[str] = option("stages; default all", default=list(STAGES), group="input")

    def __post_init__(self) -> None:
        """Check names."""
        require_known("stages", self.stages, STAGES)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, object]:
    """Describe the machine and libraries that the times depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": count_cores(),
        "torch_threads": torch.get_num_threads(),
        "float32_gflops_2048": round(measure_matrix_rate((2048,) * 3) / 1e9),
        "torch": torch.__version__,
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }


def format_rows(results: dict[str, Any]) -> str:
    """Return the table; ours is faster at a ratio above 1."""
    lines = []
    for rows in results["stages"].values():
        for row in rows:
            ratio = f"{row['ratio']:.2f}x" if row["ratio"] else ""
            ours = f"{row['ours_seconds']:.3g}" if row["ours_seconds"] else ""
            other = f"{row['other_seconds']:.2f}" if row["other_seconds"] else ""
            lines.append([row["what"], row["against"], row["target"], ratio, ours, other, row["equal"], row["note"]])
    machines = [
        f"{stage}: {', '.join(f'{name} {value}' for name, value in machine.items())}"
        for stage, machine in results["machines"].items()
    ]
    return "\n".join([format_table(COLUMNS, lines), *machines, ""])


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure the stages and print the table."""
    chosen, settings = parse_settings((StageSettings, SpeedSettings), argv, __doc__)
    path = MEASURES / "benchmark_speed.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"stages": {}, "machines": {}}
    for stage in tqdm(chosen.stages, unit="stage"):
        logger.info("== %s", stage)
        results["machines"][stage] = describe_machine()
        results["stages"][stage] = [vars(row) for row in STAGES[stage](settings)]
        for part in results.values():
            part |= {name: part.pop(name) for name in STAGES if name in part}  # in the order of the stages
        write_text(path, dump_json(results))
        write_text(path.with_suffix(".md"), format_rows(results))
    sys.stdout.write(format_rows(results))


if __name__ == "__main__":
    main()
