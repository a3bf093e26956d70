"""Shared by all comparisons: a row of the table, timing in pairs, a separate process, the texts."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from perspective.benchmarks.gpu import measure_matrix_rate
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.judging.protocol import Question, choose_wording
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.options import option
from perspective.triplets.sampling import SampleSettings, sample_triplets

DATASETS = ("banking77", "few_nerd_nat", "mtop_domain", "stackexchange")


@dataclass(frozen=True)
class SpeedSettings:
    """How the stages are measured."""

    n_pairs: int = option("number of timed pairs, ours and the other in turn", default=3, group="scale")
    llm: list[str] = option("LLMs that judge", default=["smollm2"], group="model")


@dataclass(frozen=True)
class Row:
    """One comparison: median seconds, and how far the results are equal."""

    what: str
    against: str
    target: str
    ours_seconds: float | None
    other_seconds: float | None
    ratio: float | None
    equal: str
    note: str = ""


def time_pairs(ours: Callable[[], object], other: Callable[[], object], n_pairs: int) -> tuple[float, float, float]:
    """Run two functions in turn; return their median seconds and the median of the pairs' ratios."""
    times = np.array([[time_once(run) for run in (ours, other)] for _ in range(n_pairs)])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), float(np.median(times[:, 1] / times[:, 0]))


def time_once(run: Callable[[], object]) -> float:
    """Run a function; return its seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def time_cpu(run: Callable[[], object]) -> float:
    """Run a function; return the CPU seconds of all its threads and processes, which other programs hardly change."""
    start = _read_cpu()
    run()
    return _read_cpu() - start


def _read_cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run_alone(work: Callable[[int], float], n_texts: int) -> tuple[float, int]:
    """Run a function in a separate process; return its seconds and the peak memory in bytes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        seconds = pool.submit(work, n_texts).result()
        peak = pool.submit(measure_peak).result()
    return seconds, peak


def measure_peak() -> int:
    """Return the peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    # Preferred on Linux: a child's ru_maxrss begins at its parent's.
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+)", status.read_text())):
        return 1024 * int(found.group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@cache
def read_texts(dataset: str) -> list[str]:
    """Return the texts of a data set, read once."""
    return load_texts(CorpusSettings(dataset))


@cache
def embed_dataset(dataset: str) -> np.ndarray:
    """Return MiniLM's vectors of a data set, `(n_texts, 384)`, computed once."""
    return embed_texts(load_embedder("minilm"), read_texts(dataset))


def ask_questions(n_questions: int) -> tuple[list[Question], str]:
    """Return questions about triplets of banking77, and the instruction of that data set."""
    texts = read_texts("banking77")
    sampled, _ = sample_triplets(embed_dataset("banking77"), SampleSettings(max_query=n_questions))
    questions = [Question(triplet, *(texts[i] for i in triplet.key)) for triplet in sampled]
    return questions, choose_wording("banking77").instruction


def describe_rate(flop: float, seconds: float, shape: tuple[int, int, int]) -> str:
    """Describe the rate of a stage, as a share of the rate of one matrix product too."""
    rate = flop / seconds
    share = 100 * rate / measure_matrix_rate(shape)
    return f"{rate / 1e9:.0f} GFLOP/s, {share:.0f}% of the matrix rate at {' x '.join(f'{n:,}' for n in shape)}"
