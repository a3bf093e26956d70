"""What pre-training gives a small encoder: RetroMAE against masked language modelling on the same texts, and none.

Each arm is measured by its [CLS] state before and after the same fine-tuning on pairs; a seed is one of pre-training
and of fine-tuning. The texts are the documents of the training half of the docstrings, of other packages than the test.

Reads:  datasets/docstrings/ (make_docs_set.sh); --body: a BERT or RoBERTa with its masked-LM head
Writes: measures/benchmark_retromae.json; measures/benchmark_retromae/, models and a file for each cell: a killed
        benchmark resumes

python -m perspective.benchmarks.retrieval.retromae --body google/bert_uncased_L-2_H-128_A-2
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import Output, read_facts, read_json, write_text
from perspective.artifacts.jsonl import write_jsonl
from perspective.artifacts.writing import dump_json
from perspective.benchmarks.retrieval.synthesis import METRIC, compare_runs, score_collection
from perspective.benchmarks.speed.comparison import time_cpu
from perspective.benchmarks.stages import run_stage
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import Collection, load_collection
from perspective.data.corpus import DATASETS, read_texts
from perspective.data.docstrings import NAME
from perspective.data.pairs import load_pairs
from perspective.layout import MEASURES
from perspective.models.decoders import replace_pooling
from perspective.models.embedders import load_embedder
from perspective.options import option
from perspective.pretraining.mntp import split_texts
from perspective.pretraining.retromae import RetroMaeLoss, load_rebuilder
from perspective.pretraining.settings import checkpoint_path, sample_texts
from perspective.retrieval.training import RetrieverTrainSettings, train_retriever
from perspective.runtime.devices import training_precision

logger = logging.getLogger(__name__)

RESULTS = MEASURES / "benchmark_retromae.json"
FOLDER = RESULTS.with_suffix("")
ARMS = ("none", "mlm", "retromae")
N_TEXTS, N_PAIRS, MAX_TOKENS = 2000, 512, 96
RATE, TUNING_RATE = 1e-3, 5e-4  # of a body of 128 dimensions


@dataclass(frozen=True)
class RetroMaeBenchmark:
    """What is measured."""

    body: str = option("a small encoder: a hub id or a folder", group="model")
    seeds: list[int] = option("seeds of pre-training and fine-tuning", default=[100, 13, 21])


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(RetroMaeBenchmark, argv, __doc__)
    collection = load_collection(DATASETS / NAME)
    cells = {arm: [_keep_cell(arm, seed, settings, collection) for seed in settings.seeds] for arm in ARMS}
    results = {"body": Path(settings.body).name, "metric": METRIC, "arms": summarize(cells)}
    write_text(RESULTS, dump_json({**results, **_keep_speed(settings)}))


def summarize(cells: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each arm: means and deviations over seeds, and differences to the other arms."""
    rows = []
    for arm, runs in cells.items():
        row: dict[str, Any] = {"arm": arm, "n_seeds": len(runs), "facts": runs[0]["facts"]}
        for when in ("before", "after"):
            means = [float(np.mean(run[when])) for run in runs]
            row[when] = {"mean": round(float(np.mean(means)), 3), "std": round(float(np.std(means)), 3)}
            for other in ("none", "mlm"):
                if arm not in ("none", other):
                    mine, theirs = ([np.array(run[when]) for run in cells[one]] for one in (arm, other))
                    row[when][f"against_{other}"] = compare_runs(mine, theirs)
        rows.append(row)
    return rows


def _keep_cell(arm: str, seed: int, settings: RetroMaeBenchmark, collection: Collection) -> dict[str, Any]:
    """Return the scores of each query before and after fine-tuning, of a run that may be finished already."""
    made_from = {"body": settings.body, "arm": arm, "seed": seed, "n_texts": N_TEXTS, "n_pairs": N_PAIRS}
    inputs = {"pairs": DATASETS / NAME / "train.jsonl", "documents": DATASETS / NAME / "corpus.jsonl"}
    path = FOLDER / f"{arm}-{seed}.json"
    cell = Output(path, "pre-training cell", made_from, inputs, precision=training_precision())
    if cell.is_finished(quiet=True):
        return read_json(path)
    folder, facts = _pretrain(arm, seed, settings.body)
    model = _load(folder)
    before = score_collection(model, collection)
    tuned = FOLDER / f"{arm}-{seed}.tuned"
    training = RetrieverTrainSettings(
        seed=seed,
        max_pairs=N_PAIRS,
        num_negatives=0,
        max_source_length=MAX_TOKENS,
        learning_rate=TUNING_RATE,
        per_device_train_batch_size=64,
        temperature=0.05,
    )
    train_retriever(model, load_pairs(inputs["pairs"]), training, Output(tuned, "retriever", made_from))
    after = score_collection(load_embedder(str(tuned)), collection)
    shutil.rmtree(tuned)
    result = {name: [round(float(one), 3) for one in scores] for name, scores in (("before", before), ("after", after))}
    cell.write_json({**result, "facts": facts})
    logger.info("%s, seed %d: %s %.2f, tuned %.2f", arm, seed, METRIC, before.mean(), after.mean())
    return read_json(path)


def _pretrain(arm: str, seed: int, body: str) -> tuple[str, dict[str, Any]]:
    """Return the folder of the encoder of an arm, and what its training cost and gave."""
    if arm == "none":
        return body, {}
    into = FOLDER / f"seed-{seed}"
    options = {
        **{"dataset": "docs", "data_path": _write_texts(), "embedder": body, "objective": arm, "output_path": into},
        **{"max_texts": N_TEXTS, "max_source_length": MAX_TOKENS, "learning_rate": RATE, "seed": seed},
    }
    started = time.process_time()
    run_stage("5_pretrain.retromae", *(part for name, value in options.items() for part in (f"--{name}", value)))
    folder = checkpoint_path("docs", body, arm, into)
    names = ("masked_loss_before", "masked_loss_trained", "first_loss", "final_loss")
    facts = {name: read_facts(folder)[name] for name in names}
    return str(folder), {**facts, "processor_seconds": round(time.process_time() - started)}


def _write_texts() -> Path:
    """Write the documents of the training pairs, if they are not there yet; return their file."""
    path = FOLDER / "texts.jsonl"
    if not path.exists():
        documents = dict.fromkeys(pair.document for pair in load_pairs(DATASETS / NAME / "train.jsonl"))
        write_jsonl(path, [{"input": text} for text in documents])
    return path


def _keep_speed(settings: RetroMaeBenchmark) -> dict[str, Any]:
    """Return what `measure_speed` gives, which may be measured already."""
    file, seed, path = _write_texts(), settings.seeds[0], FOLDER / "speed.json"
    made_from = {"body": settings.body, "seed": seed, "n_texts": N_TEXTS, "max_tokens": MAX_TOKENS}
    cell = Output(path, "speed", made_from, {"texts": file}, precision=training_precision())
    if not cell.is_finished(quiet=True):
        texts, _ = split_texts(sample_texts(read_texts(file, "input"), N_TEXTS, seed), seed)
        cell.write_json(measure_speed(settings.body, texts))
    return read_json(path)


def measure_speed(body: str, texts: Sequence[str], n_timed: int = 5, n_a_time: int = 32) -> dict[str, Any]:
    """Return the tokens of an epoch, and tokens per CPU second of forward and backward passes.

    Args:
        body: The encoder.
        texts: Those of an epoch.
        n_timed: Times that each is measured, in turn; the median counts.
        n_a_time: Texts in a batch.

    Returns:
        n_tokens, and in `speed` the rates of "body" (no head), of "masked_lm" (transformers' own loss, whose head
        is asked about every token), and of both objectives.
    """
    from transformers import AutoModelForMaskedLM

    model = _load(body)
    model.max_seq_length = MAX_TOKENS
    n_tokens = sum(map(len, model.tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]))
    encoded = model.preprocess(list(texts[:n_a_time]))
    features = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    whole = AutoModelForMaskedLM.from_pretrained(body).train()
    model.append(load_rebuilder(body, model))
    model.train()
    losses = {name: RetroMaeLoss(model, rebuilds=name == "retromae") for name in ("mlm", "retromae")}
    passes: dict[str, Callable[[], Any]] = {
        "body": lambda: model.transformers_model(**features).last_hidden_state.sum().backward(),
        "masked_lm": lambda: whole(**features, labels=features["input_ids"]).loss.backward(),
        **{name: lambda loss=loss: loss([features]).backward() for name, loss in losses.items()},  # type: ignore[misc]
    }
    for run in passes.values():
        run()  # makes the gradients' memory
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(n_timed):
        for name, run in passes.items():
            seconds[name].append(time_cpu(run))
    n_batch = int(features["attention_mask"].sum())
    return {"n_tokens": n_tokens, "speed": {name: round(n_batch / np.median(one)) for name, one in seconds.items()}}


def _load(folder: str) -> Any:  # noqa: ANN401
    """Return an encoder whose vector is the [CLS] state."""
    model = load_embedder(folder)
    replace_pooling(model, "cls")
    return model


if __name__ == "__main__":
    main()
