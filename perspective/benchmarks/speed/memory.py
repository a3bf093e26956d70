"""Peak memory of each stage in a separate process, and its growth with the work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from perspective.artifacts import Output, TrainingTriplet, Triplet
from perspective.benchmarks.speed.comparison import Row, SpeedSettings, ask_questions, read_texts, run_alone, time_once
from perspective.clustering.kmeans import cluster_by_seed
from perspective.judging.choice import ChoiceJudge
from perspective.llm.loading import load_llm
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.teacher.states import read_states, write_question
from perspective.training.distillation import distill_embedder
from perspective.training.finetuning import finetune_embedder
from perspective.training.settings import TrainSettings


def bench_memory(settings: SpeedSettings) -> list[Row]:
    """Run each stage on a small input and on one four times as large."""
    return [
        measure_growth("embedding", embed_many, (500, 2000), "texts", "no growth"),
        measure_growth("k-means", cluster_many, (2000, 8000), "vectors"),
        measure_growth("choice judging", judge_many, (32, 128), "triplets", "no growth"),
        measure_growth("answer states", read_many, (500, 2000), "texts", "no growth"),
        measure_growth("fine-tuning on triplets", train_many, (128, 512), "triplets"),
        measure_growth("distillation", distill_many, (500, 2000), "texts"),
    ]


def measure_growth(
    name: str, work: Callable[[int], float], sizes: tuple[int, int], unit: str, target: str = "stated"
) -> Row:
    """Return the peak memory of a stage at two sizes."""
    few, many = sizes
    (_, low), (_, high) = run_alone(work, few), run_alone(work, many)
    note = f"peak {low / 2**30:.2f} GiB at {few:,} {unit}, {high / 2**30:.2f} GiB at {many:,}"
    return Row(f"memory, {name}", "its own growth", target, None, None, None, "", note)


def embed_many(n_texts: int) -> float:
    """Embed texts; return the seconds."""
    model, texts = load_embedder("minilm"), repeat_texts(n_texts)
    return time_once(lambda: embed_texts(model, texts))


def cluster_many(n_vectors: int) -> float:
    """Cluster random vectors; return the seconds."""
    vectors = np.random.default_rng(0).normal(size=(n_vectors, 384)).astype(np.float32)
    return time_once(lambda: list(cluster_by_seed(vectors, 77)))


def judge_many(n_triplets: int) -> float:
    """Judge triplets by choice; return the seconds."""
    questions, wording = ask_questions(n_triplets)
    judge = ChoiceJudge(load_llm("smollm2"), wording)
    return time_once(lambda: list(judge.judge(questions)))


def read_many(n_texts: int) -> float:
    """Read answer states; return the seconds."""
    llm, texts = load_llm("smollm2"), repeat_texts(n_texts)
    return _with_output("states.npy", lambda output: read_states(llm, texts, (write_question("intent"),), output))


def train_many(n_triplets: int) -> float:
    """Fine-tune on random triplets; return the seconds."""
    texts = read_texts("banking77")
    rows = np.random.default_rng(0).integers(len(texts), size=(n_triplets, 3)).tolist()
    triplets = [TrainingTriplet("", texts[a], texts[p], texts[n], Triplet(a, p, n)) for a, p, n in rows]
    train = TrainSettings(recipe="standard", num_train_epochs=1.0)
    return _with_output("model", lambda output: finetune_embedder(load_embedder("minilm"), triplets, train, output))


def distill_many(n_texts: int) -> float:
    """Distil random vectors; return the seconds."""
    texts = repeat_texts(n_texts)
    teacher = np.random.default_rng(0).normal(size=(n_texts, 384)).astype(np.float32)
    train = TrainSettings(recipe="distill", num_train_epochs=1.0)
    return _with_output(
        "model", lambda output: distill_embedder(load_embedder("minilm"), texts, teacher, train, output)
    )


def repeat_texts(n_texts: int) -> list[str]:
    """Return `n_texts` texts of banking77, repeated if it has fewer."""
    return (read_texts("banking77") * 2)[:n_texts]


def _with_output(name: str, work: Callable[[Output], object]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return time_once(lambda: work(Output(Path(folder) / name, "benchmark", {})))
