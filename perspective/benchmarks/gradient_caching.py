"""Measure what gradient caching costs and saves: peak memory and seconds of one training step, in this process.

Reads:  datasets/<dataset>/train.jsonl, or --train_file
Writes: one line of JSON to the terminal; the peak is the process's, so each setting needs its own

for size in 0 32; do python -m perspective.benchmarks.gradient_caching --batch_size 512 --mini_batch_size $size; done
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import DATASETS
from perspective.data.pairs import load_pairs
from perspective.models.embedders import load_embedder
from perspective.retrieval.training import build_loss, draw_pairs, make_dataset


@dataclass(frozen=True)
class BenchmarkSettings:
    """What is measured."""

    dataset: str = field(default="docstrings", metadata={"help": "name of the retrieval set"})
    embedder: str = field(default="minilm", metadata={"help": "gte, e5, minilm, an id of the hub or a folder"})
    train_file: str | None = field(default=None, metadata={"help": "pairs as jsonl; default those of the data set"})
    batch_size: int = field(default=64, metadata={"help": "pairs in the step"})
    mini_batch_size: int = field(default=32, metadata={"help": "texts embedded at a time; 0 for the plain loss"})
    max_source_length: int = field(default=64, metadata={"help": "tokens a text is cut to"})
    seed: int = field(default=100, metadata={"help": "of drawing the pairs"})


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(BenchmarkSettings, argv, __doc__)
    pairs = load_pairs(Path(settings.train_file or DATASETS / settings.dataset / "train.jsonl"))
    data = make_dataset(draw_pairs(pairs, settings.batch_size, settings.seed), num_negatives=1, weighted=False)
    model = load_embedder(settings.embedder).train()
    model.max_seq_length = settings.max_source_length
    loss = build_loss(model, 0.02, settings.mini_batch_size)
    texts = [list(data[name]) for name in data.column_names if name != "label"]
    features = [
        {key: value.to(model.device) for key, value in model.preprocess(part).items() if hasattr(value, "to")}
        for part in texts
    ]
    before, started, worked = _peak_memory(model), time.perf_counter(), time.process_time()
    value = loss(features, torch.tensor(data["label"], device=model.device))
    value.backward()
    measured = {
        "loss": round(value.item(), 4),
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "peak_mib_before": before,
        "peak_mib": _peak_memory(model),
    }
    sys.stdout.write(json.dumps({**asdict(settings), **measured}) + "\n")


def _peak_memory(model: torch.nn.Module) -> int:
    """Return the largest memory taken so far in MiB: of the GPU where the model lies on one, else of the process."""
    if next(model.parameters()).is_cuda:
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
