"""Measure a small decoder as an embedder: the six arms of LLM2Vec, and ablations of instruction, pooling and rank.

Each cell is a file of its own, from which a killed study resumes; training calls the entry scripts of stages 5 and 6.

Reads:  datasets/{banking77,clinc,stackexchange,massive_scenario}/small.jsonl, datasets/docstrings/ (make_docs_set.sh)
Writes: measures/benchmark_decoders/, the texts, models and cells; measures/benchmark_decoders.json, all cells

python -m perspective.benchmarks.decoders.study
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import Output, read_facts
from perspective.artifacts.jsonl import write_jsonl
from perspective.benchmarks.cells import cell_path, gather_cells, measure_cell
from perspective.benchmarks.decoders import measuring
from perspective.benchmarks.stages import run_stage
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import DATASETS, CorpusSettings, load_texts
from perspective.data.docstrings import NAME
from perspective.data.pairs import load_pairs
from perspective.errors import require_known
from perspective.layout import MEASURES
from perspective.models.decoders import make_bidirectional, write_instruction
from perspective.models.embedders import load_embedder
from perspective.models.registry import describe_model
from perspective.options import OverwriteOptions, option
from perspective.pretraining.settings import checkpoint_path

FOLDER = MEASURES / "benchmark_decoders"
RESULTS = FOLDER.with_suffix(".json")
CLUSTERED = ("banking77", "clinc")
PRETRAINED_ON = (*CLUSTERED, "stackexchange", "massive_scenario")
N_SHORT, N_LONG = 2000, 500  # texts of the data sets, documents of the docstrings' training half
N_SIMCSE = 640  # five steps of 128 texts
# Ten times that of the paper: this is 5 steps in place of 1,000.
SIMCSE_RATE = 3e-4
N_PAIRS = 320
TASK = "Given a one-line summary of a function, retrieve its documentation"
WRONG_TASK = "Given a news headline, retrieve the weather report of the same day"


class DecoderStudy:
    """The models of the study, each trained once."""

    def __init__(self, embedder: str) -> None:
        self.embedder = embedder

    @cached_property
    def base(self) -> Path:
        """The decoder as a folder, converted once."""
        output = Output(FOLDER / "base", "decoder", describe_model(self.embedder))
        if not output.is_finished(quiet=True):
            model = load_embedder(self.embedder)
            with output.open() as folder:
                model.save_pretrained(str(folder), create_model_card=False)
        return output.path

    @cached_property
    def texts(self) -> Path:
        """Texts to pre-train on: of the tuning sets, and documents."""
        path = FOLDER / "texts.jsonl"
        sources = {name: CorpusSettings(name).path for name in PRETRAINED_ON}
        sources["pairs"] = DATASETS / NAME / "train.jsonl"
        output = Output(path, "texts", {"n_short": N_SHORT, "n_long": N_LONG}, sources)
        if not output.is_finished(quiet=True):
            rng = np.random.default_rng(0)
            short = [text for name in PRETRAINED_ON for text in load_texts(CorpusSettings(name))]
            long = [pair.document for pair in load_pairs(sources["pairs"])]
            drawn = [*rng.permutation(short)[:N_SHORT].tolist(), *rng.permutation(long)[:N_LONG].tolist()]
            with output.open() as temporary:
                write_jsonl(temporary, [{"input": drawn[row]} for row in rng.permutation(len(drawn))])
        return path

    def pretrain(self, objective: str, embedder: Path, *options: object) -> Path:
        """Return the folder of a model that stage 5 pre-trains."""
        name = f"{embedder.name}-{objective}{'-causal' if '--no_bidirectional' in options else ''}"
        call = ("--dataset", "mixed", "--data_path", self.texts, "--embedder", embedder, "--max_source_length", 64)
        into = FOLDER / name
        run_stage(f"5_pretrain.{objective}", *call, *options, "--output_path", into)
        return checkpoint_path("mixed", str(embedder), objective, into)

    def mntp(self) -> Path:
        """Return the decoder trained by masked next-token prediction."""
        return self.pretrain("mntp", self.base, "--learning_rate", 5e-4, "--per_device_train_batch_size", 32)

    def simcse(self, embedder: Path, *options: object) -> Path:
        """Return an embedder trained by SimCSE."""
        settings = ("--max_texts", N_SIMCSE, "--learning_rate", SIMCSE_RATE, "--warmup_ratio", 0)
        return self.pretrain("simcse", embedder, *settings, *options)

    def finetune(self, *options: object) -> Path:
        """Return the decoder fine-tuned on pairs of the docstrings."""
        name = "-".join(str(one).strip("-")[:16].replace(" ", "_") for one in options) or "plain"
        call: tuple[object, ...] = (
            *("--dataset", NAME, "--train_file", DATASETS / NAME / "train.jsonl", "--embedder", self.base),
            *("--output_dir", FOLDER / f"tuned-{name}", "--max_pairs", N_PAIRS, "--num_negatives", 0),
            *("--per_device_train_batch_size", 32, "--mini_batch_size", 0, "--max_source_length", 64),
            *("--learning_rate", 5e-4, "--weight_decay", 0.1, "--temperature", 0.02, *options),
        )
        run_stage("6_retrieval.train", *call)
        return FOLDER / f"tuned-{name}"


def _measure_arm(folder: Path, bidirectional: bool = False) -> dict[str, Any]:
    model = load_embedder(str(folder), reading=True)
    if bidirectional:
        make_bidirectional(model)
    model.max_seq_length = measuring.MAX_TOKENS
    clusters = {name: measuring.measure_clusters(model, name) for name in CLUSTERED}
    return {"clusters": clusters, "retrieval": measuring.measure_retrieval(model)}


def _masked_loss(study: DecoderStudy, which: str) -> dict[str, Any]:
    facts = read_facts(study.mntp())
    return {"masked_loss": facts[f"masked_loss_{which}"], "n_texts": facts["n_texts"]}


def _measure_tuned(folder: Path, pooling: str, task: str | None) -> dict[str, Any]:
    model = load_embedder(str(folder), reading=True)
    model.max_seq_length = measuring.MAX_TOKENS
    return {"retrieval": measuring.measure_retrieval(model, write_instruction(task) if task else "")[pooling]}


def _tune(pooling: str = "last", rank: int = 16, task: str | None = TASK, asked: str | None = TASK) -> Any:  # noqa: ANN401
    """Return a cell: training with a task, and asking with another."""
    prompts = ("--task", task) if task else ("--query_prompt", "", "--document_prompt", "")

    def measure(study: DecoderStudy) -> dict[str, Any]:
        folder = study.finetune("--pooling", pooling, "--lora_rank", rank, *prompts)
        facts = {"first_loss": read_facts(folder)["first_loss"], "final_loss": read_facts(folder)["final_loss"]}
        return {**_measure_tuned(folder, pooling, asked), **facts}

    return measure


CELLS: dict[str, Callable[[DecoderStudy], dict[str, Any]]] = {
    "uni": lambda study: _measure_arm(study.base),
    "bi": lambda study: _measure_arm(study.base, bidirectional=True),
    "bi+mntp": lambda study: _measure_arm(study.mntp()),
    "uni+simcse": lambda study: _measure_arm(study.simcse(study.base, "--no_bidirectional")),
    "bi+simcse": lambda study: _measure_arm(study.simcse(study.base)),
    "bi+mntp+simcse": lambda study: _measure_arm(study.simcse(study.mntp())),
    "loss uni": lambda study: _masked_loss(study, "causal"),
    "loss bi": lambda study: _masked_loss(study, "bidirectional"),
    "loss bi+mntp": lambda study: _masked_loss(study, "trained"),
    "untrained": lambda study: _measure_tuned(study.base, "last", TASK),
    "instruction": _tune(),
    "no instruction": _tune(task=None, asked=None),
    "wrong instruction": _tune(asked=WRONG_TASK),
    "rank 8": _tune(rank=8),
    "rank 32": _tune(rank=32),
    "weighted": _tune(pooling="weighted"),
    # With the last token, so few steps teach nothing: the ablations again with the mean.
    "mean": _tune(pooling="mean"),
    "mean, no instruction": _tune(pooling="mean", task=None, asked=None),
    "mean, wrong instruction": _tune(pooling="mean", asked=WRONG_TASK),
    "mean, rank 8": _tune(pooling="mean", rank=8),
    "mean, rank 32": _tune(pooling="mean", rank=32),
}


@dataclass(frozen=True)
class DecoderStudySettings(OverwriteOptions):
    """What is measured."""

    cells: list[str] = option("cells; default all", default=list(CELLS), group="input")
    embedder: str = option("the decoder", default="smollm2", group="model")

    def __post_init__(self) -> None:
        """Check names."""
        require_known("cells", self.cells, CELLS)


def run_study(settings: DecoderStudySettings) -> dict[str, Any]:
    """Measure every cell that is not finished; return all cells by name."""
    study = DecoderStudy(settings.embedder)
    sizes = {name: getattr(measuring, name) for name in ("N_CLASSES", "N_TEXTS", "N_QUERIES", "N_DOCUMENTS")}
    for name in settings.cells:
        made_from = {"cell": name, "embedder": settings.embedder, "n_pairs": N_PAIRS, "n_simcse": N_SIMCSE, **sizes}
        cell = Output(cell_path(RESULTS, name), "decoder cell", made_from, {"texts": study.texts})
        if not cell.is_finished(settings.overwrite):
            measure_cell(cell, partial(CELLS[name], study))
            gather_cells(RESULTS, CELLS, SIZES)
    return gather_cells(RESULTS, CELLS, SIZES)


SIZES = {
    **{"short texts": N_SHORT, "documents": N_LONG, "simcse texts": N_SIMCSE, "pairs": N_PAIRS},
    **{"queries": measuring.N_QUERIES, "searched": measuring.N_DOCUMENTS},
    **{"classes": measuring.N_CLASSES, "texts": measuring.N_TEXTS},
}


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Run the study."""
    settings = parse_settings(DecoderStudySettings, argv, __doc__)
    results = run_study(settings)
    sys.stdout.write(f"{len(results['cells'])} of {len(CELLS)} cells: {RESULTS}\n")


if __name__ == "__main__":
    main()
