"""Our stages and what people would run instead, in turn, on the same inputs, threads and model.

Reads:  datasets/{banking77,few_nerd_nat,mtop_domain,stackexchange}/small.jsonl
Writes: measures/benchmark_speed.json and .md; a stage measured anew replaces its rows

bash scripts/benchmark_speed.sh [STAGE ...]
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from baselines import plain_judging, published_sampling, published_training
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import perspective.uncertainty
from perspective.artifacts import Output, TrainingTriplet, dump_json, write_text
from perspective.benchmark_gpu import measure_matrix_rate
from perspective.cli import entry_point, parse_settings
from perspective.clustering import SEEDS, cluster_by_seed, clustering_accuracy
from perspective.corpus import CorpusSettings, load_labels, load_texts
from perspective.embedding import count_tokens, embed_texts
from perspective.errors import DataError, suggest_name
from perspective.judging.batching import pad_right
from perspective.judging.choice import ChoiceJudge
from perspective.judging.protocol import Question, choose_wording
from perspective.judging.states import StateSettings, read_states
from perspective.layout import MEASURES, PREDICT_STAGE
from perspective.losses import PublishedLoss
from perspective.models import load_embedder, load_llm
from perspective.random_models import count_parameters
from perspective.sampling import SampleSettings, sample_triplets
from perspective.training import TrainSettings, finetune_embedder
from perspective.uncertainty import measure_uncertainty, scale_max_distance, select_uncertain_queries

logger = logging.getLogger(__name__)

DATASETS = ("banking77", "few_nerd_nat", "mtop_domain", "stackexchange")
EPOCH_STEPS = 512  # of the published loop: 1,024 triplets, two at a time
N_QUESTIONS, N_PLAIN = 64, 8  # triplets judged by ours, and how many of them one prompt at a time


@dataclass(frozen=True)
class SpeedSettings:
    """What is measured."""

    stages: list[str] | None = field(default=None, metadata={"help": "stages; default all"})
    n_pairs: int = field(default=3, metadata={"help": "times each of two is run, in turn"})
    llm: list[str] = field(default_factory=lambda: ["smollm2"], metadata={"help": "the LLMs that judge"})

    def __post_init__(self) -> None:
        """Check names."""
        for name in self.stages or []:
            if name not in STAGES:
                raise DataError(f'stage "{name}": {suggest_name(name, STAGES)}')


@dataclass(frozen=True)
class Row:
    """One comparison: medians in seconds, and what shows that both did the same."""

    what: str
    against: str
    target: str
    ours_seconds: float
    other_seconds: float | None
    ratio: float | None
    equal: str
    note: str = ""


def time_pairs(ours: Callable, other: Callable, n_pairs: int) -> tuple[float, float, float]:
    """Run two functions in turn; return their median seconds and the median of the pairs' ratios."""
    times = np.array([[_seconds(run) for run in (ours, other)] for _ in range(n_pairs)])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), float(np.median(times[:, 1] / times[:, 0]))


def _seconds(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@cache
def read_texts(dataset: str) -> list[str]:
    return load_texts(CorpusSettings(dataset, "small", None, "input"))


@cache
def embed_dataset(dataset: str) -> np.ndarray:
    return embed_texts(load_embedder("minilm"), read_texts(dataset))


def describe_rate(flop: float, seconds: float, shape: tuple[int, int, int]) -> str:
    """Say what share of the rate of one matrix product a stage reaches."""
    rate = flop / seconds
    share = 100 * rate / measure_matrix_rate(shape)
    return f"{rate / 1e9:.0f} GFLOP/s, {share:.0f}% of the matrix rate at {' x '.join(f'{n:,}' for n in shape)}"


def bench_loss(settings: SpeedSettings) -> list[Row]:
    columns = [torch.randn(64, 384, requires_grad=True) for _ in range(3)]
    loss = PublishedLoss(None, published_training.TEMPERATURE)

    def ours() -> torch.Tensor:
        value = loss.compute_loss_from_embeddings(columns, None)
        value.backward()
        return value

    def other() -> torch.Tensor:
        value = published_training.double_loop_loss(*columns)
        value.backward()
        return value

    difference = abs(ours().item() - other().item())
    seconds = time_pairs(lambda: [ours() for _ in range(20)], other, settings.n_pairs)
    return [
        Row(
            "loss and gradient, batch 64",
            "the published double loop",
            "50x",
            seconds[0] / 20,
            seconds[1],
            20 * seconds[2],
            f"differ by {difference:.1e}",
        )
    ]


def bench_training(settings: SpeedSettings) -> list[Row]:
    texts = read_texts("banking77")
    sampled, _ = sample_triplets(embed_dataset("banking77"), SampleSettings())
    triplets = [TrainingTriplet("", *(texts[row] for row in triplet.key), triplet) for triplet in sampled]
    n_steps = 3

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train = TrainSettings(recipe="standard", num_train_epochs=1.0)
            finetune_embedder(load_embedder("minilm"), triplets, train, Output(Path(folder) / "model", "embedder", {}))

    def other() -> None:
        published_training.train(load_embedder("minilm"), triplets, n_steps)

    one, part, ratio = time_pairs(ours, other, settings.n_pairs)
    model = load_embedder("minilm")
    n_tokens = sum(count_tokens(model, [text for t in triplets for text in (t.anchor, t.positive, t.negative)]))
    flop = 6 * count_parameters(model.transformers_model) * n_tokens
    return [
        Row(
            f"fine-tuning, an epoch of {len(triplets)} triplets",
            f"the published loop ({n_steps} of its {EPOCH_STEPS} steps timed)",
            "100x",
            one,
            part / n_steps * EPOCH_STEPS,
            ratio / n_steps * EPOCH_STEPS,
            "other batches and learning rate: see the study for the gains of both recipes",
            f"{describe_rate(flop, one, (256, 384, 1536))}, over loading, training and saving",
        )
    ]


def bench_embedding(settings: SpeedSettings) -> list[Row]:
    texts = [text for dataset in DATASETS for text in read_texts(dataset)[:1000]]
    model = load_embedder("minilm")
    ours = embed_texts(model, texts)
    other = model.encode(texts)
    cosines = (ours * other).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(other, axis=1)
    seconds = time_pairs(lambda: embed_texts(model, texts), lambda: model.encode(texts), settings.n_pairs)
    n_tokens = sum(count_tokens(model, texts))
    flop = 2 * count_parameters(model.transformers_model) * n_tokens
    return [
        Row(
            f"embedding, {len(texts)} texts of 4 sets",
            "SentenceTransformer.encode, its defaults",
            "2.5x, half the matrix rate",
            *seconds,
            f"smallest cosine {cosines.min():.6f}",
            f"{n_tokens / seconds[0]:.0f} tokens/s, {describe_rate(flop, seconds[0], (1024, 384, 1536))}",
        )
    ]


def bench_sampling(settings: SpeedSettings) -> list[Row]:
    vectors = embed_dataset("mtop_domain")[:4000]
    threshold = scale_max_distance(vectors.shape[1])
    _, uncertainty = sample_triplets(vectors, SampleSettings())
    queries = select_uncertain_queries(uncertainty.entropy, 0.0, 0.2)
    expected, _ = published_sampling.sample(vectors, threshold)
    same = len(set(queries.tolist()) & set(expected.tolist())) / len(expected)
    seconds = time_pairs(
        lambda: sample_triplets(vectors, SampleSettings()),
        lambda: published_sampling.sample(vectors, threshold),
        settings.n_pairs,
    )
    scaled = StandardScaler().fit_transform(vectors.astype(float))
    ward = time_pairs(
        lambda: perspective.uncertainty._join_by_ward(scaled, threshold),
        lambda: AgglomerativeClustering(n_clusters=None, distance_threshold=threshold).fit(scaled),
        settings.n_pairs,
    )
    rows = [
        Row(
            "sampling, 4,000 texts",
            "the published loop",
            "20x",
            *seconds,
            f"{100 * same:.1f}% of the queries are the same",
            f"Ward's exact clustering alone takes {ward[0]:.2f} and {ward[1]:.2f} s",
        )
    ]
    for n_texts in (10**4, 10**5, 10**6):
        taken, peak = run_alone(sample_mixture, n_texts)
        note = f"peak memory {peak / 2**30:.1f} GiB"
        target = "10 minutes, 8 GiB" if n_texts == 10**6 else "about linear"
        rows.append(Row(f"sampling, {n_texts:,} vectors", "its own growth", target, taken, None, None, "", note))
    rows[1] = Row(**{**vars(rows[1]), "equal": compare_sampled_clusters()})
    return rows


def sample_mixture(n_texts: int) -> float:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(300, 384)).astype(np.float32)
    vectors = centers[rng.integers(300, size=n_texts)]
    for start in range(0, n_texts, 10_000):
        vectors[start : start + 10_000] += rng.normal(size=vectors[start : start + 10_000].shape)
    start_time = time.perf_counter()
    sample_triplets(vectors, SampleSettings())
    return time.perf_counter() - start_time


def compare_sampled_clusters() -> str:
    """Cluster 10^4 real texts wholly, by a sample of half, and wholly with a little noise."""
    vectors = np.concatenate([embed_dataset(dataset) for dataset in DATASETS])[:10_000]
    exact = measure_uncertainty(vectors)
    noise = np.random.default_rng(0).normal(scale=0.05 * vectors.std(axis=0), size=vectors.shape)
    shaken = measure_uncertainty(vectors + noise)
    perspective.uncertainty.N_AGGLOMERATED = len(vectors) // 2
    sampled = measure_uncertainty(vectors)
    perspective.uncertainty.N_AGGLOMERATED = len(vectors)
    by_sample, by_noise = (adjusted_rand_score(exact.clusters, other.clusters) for other in (sampled, shaken))
    return f"ARI to the exact clusters: from a sample of half {by_sample:.2f}, exact with 5% noise {by_noise:.2f}"


def bench_kmeans(settings: SpeedSettings) -> list[Row]:
    texts_vectors = embed_dataset("banking77")
    labels = np.unique(load_labels(CorpusSettings("banking77", "small", None, "input")), return_inverse=True)[1]
    rng = np.random.default_rng(0)
    large = np.concatenate([embed_dataset(dataset) for dataset in DATASETS])
    large = large[rng.integers(len(large), size=10**5)] + rng.normal(scale=0.02, size=(10**5, 384)).astype(np.float32)
    rows = []
    for name, vectors, seeds, n_pairs in (
        ("banking77, 5 seeds", texts_vectors, SEEDS, settings.n_pairs),
        ("10^5 vectors, 2 seeds", large, SEEDS[:2], 1),
    ):
        found: dict[str, list[np.ndarray]] = {}

        def ours(vectors: np.ndarray = vectors, seeds: Sequence[int] = seeds, found: dict = found) -> None:
            found["ours"] = list(cluster_by_seed(vectors, 77, seeds=seeds))

        def other(vectors: np.ndarray = vectors, seeds: Sequence[int] = seeds, found: dict = found) -> None:
            found["other"] = [KMeans(77, n_init=10, random_state=seed).fit(vectors).labels_ for seed in seeds]

        seconds = time_pairs(ours, other, n_pairs)
        inertias = [np.mean([measure_inertia(vectors, c) for c in found[side]]) for side in ("ours", "other")]
        equal = f"inertia {100 * (inertias[0] / inertias[1] - 1):+.3f}%"
        if len(vectors) == len(labels):
            accuracies = [[100 * clustering_accuracy(labels, c) for c in found[side]] for side in ("ours", "other")]
            equal += ", ACC " + " against ".join(f"{np.mean(a):.2f} ± {np.std(a):.2f}" for a in accuracies)
        rows.append(Row(f"k-means, 77 clusters, 10 starts, {name}", "scikit-learn's call", "3x", *seconds, equal))
    return rows


def measure_inertia(vectors: np.ndarray, clusters: np.ndarray) -> float:
    return sum(
        float(((rows - rows.mean(axis=0)) ** 2).sum())
        for rows in (vectors[clusters == cluster].astype(np.float64) for cluster in np.unique(clusters))
    )


def bench_judging(settings: SpeedSettings) -> list[Row]:
    return [compare_judging(name, settings.n_pairs) for name in settings.llm]


def compare_judging(name: str, n_pairs: int) -> Row:
    llm, texts = load_llm(name), read_texts("banking77")
    sampled, _ = sample_triplets(embed_dataset("banking77"), SampleSettings(max_query=N_QUESTIONS))
    questions = [Question(row, *(texts[i] for i in triplet.key)) for row, triplet in enumerate(sampled)]
    wording = choose_wording(PREDICT_STAGE / "prompts.json", "banking77").instruction
    judge = ChoiceJudge(llm, wording)
    written = ChoiceJudge(llm, wording, response="generate")
    prompts = [
        written._prepare(asked, swapped).text  # the very words that the judge asks
        for question in questions[:N_PLAIN]
        for swapped, asked in ((False, question), (True, question.swapped()))
    ]
    opinions = {opinion.row: opinion for opinion in judge.judge(questions)}
    n_tokens = judge.facts["n_tokens"]
    ours = []
    for told in (opinions[row] for row in range(N_PLAIN)):
        swapped = 1 - told.swapped_probability  # of label 1, which then named the other choice
        first = 2 * told.probability - told.swapped_probability  # what is given averages both orders
        ours += ["1" if value > 0.5 else "2" for value in (first, swapped)]
    other = plain_judging.judge(llm, prompts)
    decided = [(one, two) for one, two in zip(ours, other, strict=True) if two is not None]
    same = sum(one == two for one, two in decided)
    seconds, part, ratio = time_pairs(
        lambda: list(judge.judge(questions)), lambda: plain_judging.judge(llm, prompts), n_pairs
    )
    flop, config = 2 * count_parameters(llm.model) * n_tokens, llm.model.config
    scale = len(questions) / N_PLAIN
    return Row(
        f"choice judging, {len(questions)} triplets in both orders, {Path(name).stem}",
        f"one prompt at a time, generate(max_new_tokens=20) ({N_PLAIN} of the triplets timed)",
        "10x, 60% of the matrix rate",
        seconds,
        part * scale,
        ratio * scale,
        f"same label on {same} of {len(decided)} decided, {len(prompts) - len(decided)} undecided",
        f"{n_tokens / seconds:.0f} tokens/s, "
        f"{describe_rate(flop, seconds, (1536, config.hidden_size, config.intermediate_size))}",
    )


def bench_states(settings: SpeedSettings) -> list[Row]:
    llm, texts = load_llm(settings.llm[0]), read_texts("banking77")[:512]
    asked = StateSettings(choose_wording(PREDICT_STAGE / "prompts.json", "banking77").perspective)
    facts: dict = {}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            output = Output(Path(folder) / "states.npy", "answer states", {})
            read_states(llm, texts, asked, output)
            facts.update(output.facts)

    ours()
    # The same number of tokens in batches of one length: what the bare model needs for them.
    width, size = 24, 42
    n_batches = max(1, round(facts["n_tokens"] / (width * size)))
    ids, _ = pad_right([[5] * width] * size)

    @torch.inference_mode()
    def other() -> None:
        for _ in range(n_batches):
            llm.model.base_model(ids, use_cache=False)

    one, two, _ = time_pairs(ours, other, settings.n_pairs)
    rates = facts["n_tokens"] / one, n_batches * ids.numel() / two
    return [
        Row(
            f"answer states, {len(texts)} texts, {settings.llm[0]}",
            "the bare forward pass on as many tokens, without any context or padding",
            "within 10%",
            one,
            facts["n_tokens"] / rates[1],
            rates[0] / rates[1],
            "",
            f"{rates[0]:.0f} against {rates[1]:.0f} tokens/s; ours attend to a cached prefix",
        )
    ]


def bench_memory(settings: SpeedSettings) -> list[Row]:
    rows = []
    for name, work in (("embedding", embed_many), ("answer states", read_many)):
        peaks = {n: run_alone(work, n) for n in (500, 2000)}
        growth = (peaks[2000][1] - peaks[500][1]) / 2**20
        note = f"peak {peaks[500][1] / 2**30:.2f} GiB at 500 texts, {peaks[2000][1] / 2**30:.2f} GiB at 2,000"
        rows.append(Row(f"memory, {name}", "its own growth", "no growth", peaks[2000][0], None, None, "", note))
        logger.info("%s: %+.0f MiB", name, growth)
    return rows


def embed_many(n_texts: int) -> float:
    model, texts = load_embedder("minilm"), (read_texts("banking77") * 2)[:n_texts]
    return _seconds(lambda: embed_texts(model, texts))


def read_many(n_texts: int) -> float:
    llm, texts = load_llm("smollm2"), (read_texts("banking77") * 2)[:n_texts]
    with tempfile.TemporaryDirectory() as folder:
        output = Output(Path(folder) / "states.npy", "answer states", {})
        return _seconds(lambda: read_states(llm, texts, StateSettings("intent"), output))


def run_alone(work: Callable[[int], float], n_texts: int) -> tuple[float, int]:
    """Run a function in a process of its own; return its seconds and the peak memory in bytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds = pool.submit(work, n_texts).result()
        peak = pool.submit(measure_peak).result()
    return seconds, peak


def measure_peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # a child's ru_maxrss begins at its parent's
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text()).group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


STAGES: dict[str, Callable[[SpeedSettings], list[Row]]] = {
    "loss": bench_loss,
    "training": bench_training,
    "embedding": bench_embedding,
    "sampling": bench_sampling,
    "kmeans": bench_kmeans,
    "judging": bench_judging,
    "states": bench_states,
    "memory": bench_memory,
}


def describe_machine() -> dict[str, object]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "float32_gflops_2048": round(measure_matrix_rate((2048,) * 3) / 1e9),
        "torch": torch.__version__,
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }


def format_rows(results: dict) -> str:
    """Return the table; a ratio above 1 says that ours is faster."""
    lines = ["| stage | against | target | ratio | ours, s | other, s | equal | note |", "| --- " * 8 + "|"]
    for rows in results["stages"].values():
        for row in rows:
            ratio = f"{row['ratio']:.2f}x" if row["ratio"] else ""
            other = f"{row['other_seconds']:.2f}" if row["other_seconds"] else ""
            cells = [row["what"], row["against"], row["target"], ratio, f"{row['ours_seconds']:.3g}", other]
            lines.append("| " + " | ".join([*cells, row["equal"], row["note"]]) + " |")
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    return "\n".join(lines) + f"\n\n{machine}\n"


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(SpeedSettings, argv, __doc__)
    path = MEASURES / "benchmark_speed.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"stages": {}}
    results["machine"] = describe_machine()
    for stage in tqdm(settings.stages or list(STAGES), unit="stage"):
        logger.info("== %s", stage)
        results["stages"][stage] = [vars(row) for row in STAGES[stage](settings)]
        results["stages"] = {name: results["stages"][name] for name in STAGES if name in results["stages"]}
        write_text(path, dump_json(results))
        write_text(path.with_suffix(".md"), format_rows(results))
    sys.stdout.write(format_rows(results))


if __name__ == "__main__":
    main()
