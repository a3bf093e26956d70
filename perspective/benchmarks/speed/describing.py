"""Stage 3 against BERTopic on the same vectors, and naming against one prompt at a time; in CPU seconds.

On one quiet core they are the seconds that pass.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from perspective.artifacts import ROOT, Output, read_vectors
from perspective.benchmarks.baselines import bertopic_topics, plain_judging
from perspective.benchmarks.speed.comparison import Row, SpeedSettings, embed_dataset, read_texts, run_alone, time_cpu
from perspective.benchmarks.stages import run_stage
from perspective.clustering.kmeans import cluster_vectors
from perspective.description.clusters import build_clustering, find_free_id, write_clusters
from perspective.description.counting import count_clusters
from perspective.description.edits import Edits, write_template
from perspective.description.finding import find_clusters
from perspective.description.settings import ClusterSettings, CountSettings
from perspective.layout import ClusterFiles, Layout
from perspective.llm.loading import load_llm
from perspective.llm.replies import ReplyLog
from perspective.models.embedders import load_embedder
from perspective.naming.keywords import TermCounts
from perspective.naming.llm import LocalNamer
from perspective.naming.naming import name_clusters
from perspective.naming.prompts import NAME_TOKENS, SENTENCE_TOKENS, Ask
from perspective.page.map import MapSettings, draw_map
from perspective.vectors import normalize_rows

DATASET, N_CLUSTERS, SEED = "clinc", 150, 100
N_MAPPED, N_ASSIGNED = 10**5, 10**6
N_PLAIN = 12  # prompts of each kind that are asked one at a time
N_TRANSFORMED = 10_000  # vectors that BERTopic assigns
STATE_DIM = 576  # SmolLM2-135M's
BLOCK = 2**14


@cache
def load_vectors() -> np.ndarray:
    """Return MiniLM's vectors of the texts, `(n_texts, dim)`."""
    path = Layout(DATASET, "small", "minilm").embeds
    return read_vectors(path) if path.exists() else embed_dataset(DATASET)


def bench_describing(settings: SpeedSettings) -> list[Row]:
    """Count, cluster and map; the scripts as a user runs them are timed too."""
    texts, vectors, rng = read_texts(DATASET), load_vectors(), np.random.default_rng(0)
    # In place of an adapted embedder's vectors and of answer states: they take as long.
    after = vectors + rng.normal(scale=0.02, size=vectors.shape).astype(np.float32)
    states = rng.standard_normal((len(texts), STATE_DIM), dtype=np.float32)

    def ours() -> None:
        count = count_clusters(vectors, texts, states, CountSettings(), SEED)
        found = find_clusters(normalize_rows(vectors), ClusterSettings(n_clusters=count.n_clusters), SEED)
        build_clustering(vectors, texts, found, "kmeans", Edits())
        counts = TermCounts(texts, found, int(found.max()) + 1)
        for cluster in range(int(found.max()) + 1):
            counts.rank([cluster])
        draw_map(vectors, after, MapSettings())

    def other() -> None:
        bertopic_topics.find_topics(texts, vectors)
        for one in (vectors, after):
            bertopic_topics.draw_map(one)

    scripts = time_scripts(texts, vectors, after, states)
    return [
        compare(
            f"counting, clusters, keywords, two maps, {len(texts):,} texts",
            "BERTopic, two maps by UMAP",
            "60 s",
            time_cpu(ours),
            other,
            f"CPU seconds; as three scripts, with their start and the page: {scripts:.0f}",
        )
    ]


def bench_mapping(settings: SpeedSettings) -> list[Row]:
    """Draw the maps and the page of many texts by `draw_map.sh`."""
    texts = read_texts(DATASET)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before, after = (repeat_vectors(folder / f"{part}.npy", N_MAPPED, seed) for seed, part in enumerate("ab"))
        files = cluster_repeated(folder, after, [texts[row % len(texts)] for row in range(N_MAPPED)])
        seconds, peak = run_alone(partial(run_describe, "draw_map", folder, before, after), N_MAPPED)
        size = files.page.stat().st_size
        vectors = np.load(before)
    return [
        compare(
            f"two maps and the page, {N_MAPPED:,} vectors",
            "two maps by UMAP (one timed)",
            "5 minutes, 25 MB",
            seconds,
            lambda: bertopic_topics.draw_map(vectors),
            f"CPU seconds; page of {size / 1e6:.1f} MB, peak memory {peak / 2**30:.1f} GiB",
            scale=2,
        )
    ]


def bench_assigning(settings: SpeedSettings) -> list[Row]:
    """Assign many vectors by `assign.sh --feat_path`."""
    texts, vectors = read_texts(DATASET), load_vectors()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "few.npy", vectors)
        cluster_repeated(folder, folder / "few.npy", texts)
        many = repeat_vectors(folder / "many.npy", N_ASSIGNED, 0)
        seconds, peak = run_alone(partial(run_describe, "assign", folder, many, None), N_ASSIGNED)
        new = np.array(np.load(many, mmap_mode="r")[:N_TRANSFORMED])
    other = None
    if bertopic_topics.is_installed():
        other = partial(bertopic_topics.assign, bertopic_topics.find_topics(texts, vectors), new)
    return [
        compare(
            f"assigning {N_ASSIGNED:,} vectors to {N_CLUSTERS} clusters",
            f"BERTopic.transform ({N_TRANSFORMED:,} of them timed)",
            "2 minutes, 2 GiB",
            seconds,
            other,
            f"CPU seconds; Parquet and CSV written; peak memory {peak / 2**30:.2f} GiB",
            scale=N_ASSIGNED / N_TRANSFORMED,
        )
    ]


def bench_naming(settings: SpeedSettings) -> list[Row]:
    """Name the clusters and the branches of their tree, with sentences, by each LLM of the settings."""
    return [compare_naming(name) for name in settings.llm]


def compare_naming(name: str) -> Row:
    """Name with one LLM, and ask it some of the same prompts one at a time."""
    texts, vectors = read_texts(DATASET), load_vectors()
    model, llm = load_embedder("minilm"), load_llm(name)
    found = cluster_vectors(vectors, N_CLUSTERS, SEED)
    record = build_clustering(vectors, texts, found, "kmeans", Edits())[0].record
    namer, asked = LocalNamer(llm, "intent"), dict[str, int]()

    def embed(names: Sequence[str]) -> np.ndarray:
        return np.asarray(model.encode(list(names), show_progress_bar=False), dtype=np.float32)

    with tempfile.TemporaryDirectory() as folder:
        log = ReplyLog(Path(folder) / "replies.jsonl", {}, namer.facts)

        def ask(asks: Sequence[Ask]) -> list[str | None]:
            asked.update({namer.write_prompt(one): SENTENCE_TOKENS if one.name else NAME_TOKENS for one in asks})
            return log.ask(namer, asks)

        start = time.perf_counter()
        seconds = time_cpu(lambda: name_clusters(record, texts, found, vectors, embed, ask, namer.is_chat))
        by_clock = time.perf_counter() - start
    rng = np.random.default_rng(0)
    other = 0.0
    for n_tokens in (NAME_TOKENS, SENTENCE_TOKENS):
        prompts = [prompt for prompt, n_new in asked.items() if n_new == n_tokens]
        some = [prompts[place] for place in rng.permutation(len(prompts))[:N_PLAIN]]
        other += time_cpu(partial(plain_judging.write, llm, some, n_tokens)) * len(prompts) / max(len(some), 1)
    return Row(
        f"naming {N_CLUSTERS} clusters and {len(record.tree)} branches, {Path(name).stem}",
        f"one prompt at a time, generate() ({2 * N_PLAIN} of them timed)",
        "2 minutes",
        seconds,
        other,
        other / seconds,
        "",
        f"CPU seconds, {by_clock:.0f} s by the clock; {len(asked)} prompts, "
        f"{namer.facts['n_tokens'] / seconds:.0f} tokens read a second",
    )


def compare(
    what: str,
    against: str,
    target: str,
    seconds: float,
    other: Callable[[], object] | None,
    note: str,
    scale: float = 1,
) -> Row:
    """Time the other side, after its functions are compiled, and return the row."""
    others = None
    if other is not None and bertopic_topics.is_installed():
        vectors = load_vectors()[:1000]
        bertopic_topics.draw_map(vectors)
        bertopic_topics.assign(bertopic_topics.find_topics(read_texts(DATASET)[:1000], vectors), vectors)
        others = scale * time_cpu(other)
    return Row(what, against, target, seconds, others, others and others / seconds, "", note)


def repeat_vectors(path: Path, n_vectors: int, seed: int) -> Path:
    """Write the vectors again and again with noise, a block at a time."""
    vectors, rng = load_vectors(), np.random.default_rng(seed)
    whole = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_vectors, vectors.shape[1]))
    for start in range(0, n_vectors, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n_vectors)) % len(vectors)
        whole[start : start + BLOCK] = vectors[rows] + 0.02 * rng.standard_normal((len(rows), vectors.shape[1]))
    whole.flush()
    return path


def cluster_repeated(folder: Path, embeddings: Path, texts: list[str]) -> ClusterFiles:
    """Write the clusters of repeated vectors; k-means has seen each once."""
    vectors = load_vectors()
    found = np.resize(cluster_vectors(vectors, N_CLUSTERS, SEED), len(texts)).astype(np.int64)
    files = Layout(DATASET, "small", "minilm").description.inside(folder)
    output = Output(files.found, "found clusters", {}, {"embeddings": embeddings}, {"method": "kmeans"})
    with output.open() as temporary, temporary.open("wb") as file:
        np.save(file, found)
    write_template(files.edits, find_free_id(files))
    write_clusters(files, embeddings, texts)
    return files


def run_describe(stage: str, folder: Path, vectors: Path, after: Path | None, _: int) -> float:
    """Run an entry script of stage 3 in this process; return its CPU seconds."""
    options = ["--after_path", after] if after else []
    call = ("--dataset", DATASET, "--output_path", folder, "--feat_path", vectors, *options)
    return time_cpu(lambda: run_stage(f"3_describe.{stage}", *call))


def time_scripts(texts: list[str], vectors: np.ndarray, after: np.ndarray, states: np.ndarray) -> float:
    """Return the CPU seconds of `count_clusters.sh`, `cluster.sh` and `draw_map.sh`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, array in (("before", vectors), ("after", after), ("states", states)):
            np.save(folder / f"{part}.npy", array)
        before = ["--feat_path", str(folder / "before.npy")]
        calls = {
            "count_clusters": [*before, "--states_path", str(folder / "states.npy")],
            "cluster": before,
            "draw_map": [*before, "--after_path", str(folder / "after.npy")],
        }
        scripts = ROOT / "perspective" / "3_describe" / "scripts"

        def run_all() -> None:
            for stage, options in calls.items():
                subprocess.run(
                    ["bash", str(scripts / f"{stage}.sh"), "--output_path", str(folder), *options],
                    env={
                        **os.environ,
                        "DATASETS": DATASET,
                        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    },
                    check=True,
                    stdout=subprocess.DEVNULL,
                )

        return time_cpu(run_all)
