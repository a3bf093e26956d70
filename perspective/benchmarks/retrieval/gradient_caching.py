"""Measure peak memory and seconds of one training step, with or without gradient caching.

Reads:  datasets/<dataset>/train.jsonl, or --train_file
Writes: one line of JSON to the terminal; the peak is of the whole process: run one process per setting

python -m perspective.benchmarks.retrieval.gradient_caching --batch_size 512 --mini_batch_size 32    # and 0
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import DATASETS, sample_in_order
from perspective.data.pairs import load_pairs
from perspective.models.embedders import load_embedder
from perspective.options import option
from perspective.retrieval.training import make_dataset
from perspective.training.losses.distilled_ranking import build_ranking_loss


@dataclass(frozen=True)
class CachingSettings:
    """What is measured."""

    dataset: str = option("name of the retrieval set", default="docstrings", group="input")
    embedder: str = option("gte, e5, minilm, an id of the hub or a folder", default="minilm", group="model")
    train_file: str | None = option("pairs as jsonl; default those of the data set", default=None, group="input")
    batch_size: int = option("pairs in the step", default=64, group="scale")
    mini_batch_size: int = option("texts embedded at a time; 0 for the plain loss", default=32, group="scale")
    max_source_length: int = option("tokens a text is cut to", default=64)
    seed: int = option("seed of the pairs drawn", default=100)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure one training step."""
    settings = parse_settings(CachingSettings, argv, __doc__)
    pairs = load_pairs(Path(settings.train_file or DATASETS / settings.dataset / "train.jsonl"))
    data = make_dataset(sample_in_order(pairs, settings.batch_size, settings.seed), num_negatives=1, weighted=False)
    model = load_embedder(settings.embedder).train()
    model.max_seq_length = settings.max_source_length
    loss = build_ranking_loss(model, 0.02, settings.mini_batch_size)
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
    """Return the peak memory so far in MiB: of the GPU if the model is on one, else of the process."""
    if next(model.parameters()).is_cuda:
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
