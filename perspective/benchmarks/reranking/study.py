"""Measure rerankers, what a retriever learns from one, and the consistency filter, on a sample of the docstrings.

Reads:  datasets/docstrings/ (make_docs_set.sh)
Writes: measures/benchmark_reranking/: samples, models, results and cells, from which a killed study
        resumes; measures/benchmark_reranking.json, all cells

python -m perspective.benchmarks.reranking.study
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import Output, read_facts
from perspective.benchmarks.cells import cell_path, gather_cells, measure_cell
from perspective.benchmarks.decoders.measuring import SAMPLE_SEED
from perspective.benchmarks.reranking.models import (
    FOLDER,
    MAX_PAIR_TOKENS,
    MAX_TOKENS,
    N_DOCUMENTS,
    N_QUERIES,
    N_RERANKED,
    RerankingStudy,
)
from perspective.benchmarks.reranking.samples import (
    N_NEGATIVES,
    N_NOISY,
    N_RERANKER,
    N_STUDENT,
    corrupt_half,
)
from perspective.benchmarks.speed_table import describe_machine
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import load_collection
from perspective.data.pairs import Pair, load_pairs
from perspective.errors import require_known
from perspective.hybrid.encoding import encode_texts
from perspective.hybrid.search import search_hybrid
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.models.hybrid_files import load_hybrid
from perspective.models.registry import find_local
from perspective.options import OverwriteOptions, option
from perspective.retrieval.embedding import embed_sides
from perspective.retrieval.mining import MineSettings, filter_pairs
from perspective.retrieval.search import search_bm25, search_dense

RESULTS = FOLDER.with_suffix(".json")
LLM = "smollm2"
SEEDS = (100, 13, 21)
N_TIMED = 256  # pairs
RERANKED = ("--n_reranked", str(N_RERANKED))
KEEP_TOP_K = 2  # of E5
DEPTH = 100  # hits


# cells of the retrievers and rerankers


def _measure_first_stage(study: RerankingStudy) -> dict[str, Any]:
    found = {name: study.evaluate(study.base, "--retriever", name) for name in ("bm25", "dense", "hybrid")}
    return {"retrievers": found}


def _measure_m3(study: RerankingStudy) -> dict[str, Any]:
    found = {name: study.evaluate(study.m3, "--retriever", name) for name in ("dense", "hybrid", "all")}
    return {"retrievers": found}


def _rerank(name: str) -> Callable[[RerankingStudy], dict[str, Any]]:
    """Rank the hits of a first stage again by the trained reranker: of MiniLM, or "m3", all three ways of one."""

    def measure(study: RerankingStudy) -> dict[str, Any]:
        return study.evaluate(*_first_stage(study, name), "--reranker", str(study.reranker), *RERANKED)

    return measure


def _ask_llm(study: RerankingStudy) -> dict[str, Any]:
    """Rank the hybrid's hits again by the log-odds of an LLM's Yes; the time is that of reranking."""
    first = _first_stage(study, "hybrid")
    study.evaluate(*first)  # embeds, which is not timed
    started = time.process_time()
    asked = study.evaluate(*first, "--reranker", LLM, *RERANKED)
    seconds = time.process_time() - started
    return {**asked, "ms_per_query": round(1000 * seconds / N_QUERIES, 1)}


def _first_stage(study: RerankingStudy, name: str) -> tuple[Any, ...]:
    return (study.m3, "--retriever", "all") if name == "m3" else (study.base, "--retriever", name)


def _measure_student(study: RerankingStudy) -> dict[str, Any]:
    return study.evaluate(study.student)


def _measure_speed(study: RerankingStudy) -> dict[str, Any]:
    """Pairs a second of our batches and of `CrossEncoder.predict`, best of three in turns, and what a query costs."""
    from perspective.reranking.loading import load_reranker, score_texts

    reranker: Any = load_reranker(str(study.reranker))
    whole = load_collection(study.collection())
    documents = list(whole.corpus.values())
    rng = np.random.default_rng(SAMPLE_SEED)
    queries = list(whole.queries.values())
    pairs = [(queries[row % len(queries)], documents[int(rng.integers(len(documents)))]) for row in range(N_TIMED)]
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: score_texts(reranker, pairs),
        "default": lambda: reranker.predict(pairs, show_progress_bar=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, run in ways.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    rates = {name: round(N_TIMED / min(found), 1) for name, found in seconds.items()}
    ms_per_query = round(1000 * N_RERANKED / rates["ours"], 1)
    return {"pairs_per_second": rates, "ms_per_query": ms_per_query, "machine": describe_machine()}


def _measure_times(study: RerankingStudy) -> dict[str, Any]:
    """Milliseconds that a query costs each first stage, of encoding and ranking; indexes are made before."""
    whole = load_collection(study.collection())
    ids, documents = list(whole.corpus), list(whole.corpus.values())
    plain, m3 = load_embedder(str(study.base), reading=True), load_hybrid(str(study.m3), reading=True)
    embedded, encoded = embed_texts(plain, documents), encode_texts(m3, documents)
    ways: dict[str, Callable[[list[str]], Any]] = {
        "bm25": lambda queries: search_bm25(queries, documents, ids, DEPTH),
        "dense": lambda queries: search_dense(embed_texts(plain, queries), embedded, ids, DEPTH),
        "m3": lambda queries: search_hybrid(encode_texts(m3, queries), encoded, ids, "all", DEPTH),
    }
    queries = list(whole.queries.values())
    return {"ms": {name: round(_time_query(search, queries), 2) for name, search in ways.items()}}


def _time_query(search: Callable[[list[str]], Any], queries: list[str]) -> float:
    """Return milliseconds a query: what all cost beyond one, so that indexing the documents is not counted."""
    seconds = []
    for asked in (queries[:1], queries[:1], queries):
        started = time.process_time()
        search(asked)
        seconds.append(time.process_time() - started)
    return 1000 * (seconds[2] - seconds[1]) / (len(queries) - 1)


def _learn(arm: str, seed: int) -> Callable[[RerankingStudy], dict[str, Any]]:
    def measure(study: RerankingStudy) -> dict[str, Any]:
        negatives = ("--num_negatives", N_NEGATIVES)
        pairs = {
            "trained": lambda: study.scored("mined"),
            "distilled": lambda: study.scored("mined"),
            "shuffled": study.shuffled,
            "random": lambda: study.scored("random"),
        }[arm]()
        distill = ("--distill",) if arm != "trained" else ()
        return study.evaluate(study.train(arm, pairs, seed, *negatives, *distill))

    return measure


# cells of the filter


def _filter(folder: Path) -> np.ndarray:
    """Return which of the pairs an embedder keeps, `(n_pairs,)`."""
    pairs, _ = corrupt_half()
    embedded = embed_sides(
        load_embedder(str(folder)), (pair.query for pair in pairs), (pair.document for pair in pairs)
    )
    kept = {id(pair) for pair in filter_pairs(pairs, embedded, MineSettings(keep_top_k=KEEP_TOP_K))}
    return np.array([id(pair) in kept for pair in pairs])


def _measure_filter(study: RerankingStudy) -> dict[str, Any]:
    """Precision and recall in percent: of an embedder trained elsewhere, and, as E5, of one trained on the noise."""
    _, is_clean = corrupt_half()
    embedders = {"MiniLM": study.base, "the student, trained on all pairs": _train_on(study, "none", SEEDS[0])}
    found = {}
    for name, folder in embedders.items():
        is_kept = _filter(folder)
        found[name] = {
            "kept": int(is_kept.sum()),
            "precision": round(100 * float(is_clean[is_kept].mean()), 2),
            "recall": round(100 * float(is_kept[is_clean].mean()), 2),
        }
    return {"filters": found, "n_pairs": len(is_clean), "n_clean": int(is_clean.sum())}


def _train_on(study: RerankingStudy, arm: str, seed: int) -> Path:
    file = _choose_pairs(study, arm, seed)
    return study.train(f"noisy-{arm}", file, seed, "--num_negatives", 0)


def _choose_pairs(study: RerankingStudy, arm: str, seed: int) -> Path:
    """Return the file of an arm's pairs: all, those that the filter keeps, as many at random, or the clean ones."""
    pairs, is_clean = corrupt_half()

    def choose() -> list[Pair]:
        is_kept = is_clean if arm == "clean" else np.ones(len(pairs), dtype=bool)
        if arm == "filtered":
            is_kept = _filter(study.base)
        if arm == "random":
            n_kept = len(load_pairs(_choose_pairs(study, "filtered", seed)))
            is_kept = np.isin(np.arange(len(pairs)), np.random.default_rng(seed).permutation(len(pairs))[:n_kept])
        return [pair for pair, kept in zip(pairs, is_kept, strict=True) if kept]

    name = f"noisy-{arm}" + (f"-{seed}" if arm == "random" else "")
    return study.pairs(name, choose, arm=arm, n=N_NOISY)


def _learn_from_noise(arm: str, seed: int) -> Callable[[RerankingStudy], dict[str, Any]]:
    def measure(study: RerankingStudy) -> dict[str, Any]:
        folder = _train_on(study, arm, seed)
        return {**study.evaluate(folder), "n_pairs": read_facts(folder)["n_pairs"]}

    return measure


ARMS = ("trained", "distilled", "shuffled", "random")
NOISY_ARMS = ("none", "filtered", "random", "clean")
CELLS: dict[str, Callable[[RerankingStudy], dict[str, Any]]] = {
    "first stage": _measure_first_stage,
    "reranked dense": _rerank("dense"),
    "reranked hybrid": _rerank("hybrid"),
    "speed": _measure_speed,
    "student": _measure_student,
    **{f"{arm} {SEEDS[0]}": _learn(arm, SEEDS[0]) for arm in ARMS},
    "filter": _measure_filter,
    **{f"noisy {arm} {SEEDS[0]}": _learn_from_noise(arm, SEEDS[0]) for arm in NOISY_ARMS},
    **{f"{arm} {seed}": _learn(arm, seed) for seed in SEEDS[1:] for arm in ARMS},
    **{f"noisy {arm} {seed}": _learn_from_noise(arm, seed) for seed in SEEDS[1:] for arm in NOISY_ARMS},
    "m3": _measure_m3,
    "reranked m3": _rerank("m3"),
    "query times": _measure_times,
    "asked hybrid": _ask_llm,
}


RERANKER_CELLS = (
    *("first stage", "m3", "query times", "speed", "asked hybrid"),
    *(f"reranked {name}" for name in ("dense", "hybrid", "m3")),
)


@dataclass(frozen=True)
class RerankingStudySettings(OverwriteOptions):
    """What is measured."""

    cells: list[str] = option("cells; default all", default=list(CELLS), group="input")
    student: str = option(
        "the embedder that learns, or an encoder's folder, used with mean pooling", default="minilm", group="model"
    )
    learning_rate: float = option("of the student", default=3e-5)

    def __post_init__(self) -> None:
        """Check names."""
        require_known("cells", self.cells, CELLS)


def run_study(settings: RerankingStudySettings) -> dict[str, Any]:
    """Measure every cell that is not finished; return all cells by name."""
    study = RerankingStudy(settings.student, settings.learning_rate)
    for name in settings.cells:
        made_from: dict[str, Any] = {"cell": name, **SIZES}
        inputs, shown = {}, {}
        if name not in RERANKER_CELLS:
            made_from |= {"student": settings.student, "learning_rate": settings.learning_rate}
            inputs = find_local(student=settings.student)
            shown = {"student": settings.student.rpartition("/")[2]}
        cell = Output(cell_path(RESULTS, name), "reranking cell", made_from, inputs)
        if not cell.is_finished(settings.overwrite):
            measure_cell(cell, partial(CELLS[name], study), **shown)
            gather_cells(RESULTS, CELLS, SIZES)
    return gather_cells(RESULTS, CELLS, SIZES)


SIZES = {
    **{"queries": N_QUERIES, "documents": N_DOCUMENTS, "reranked": N_RERANKED},
    **{"reranker pairs": N_RERANKER, "student pairs": N_STUDENT, "noisy pairs": N_NOISY, "negatives": N_NEGATIVES},
    **{"tokens": MAX_TOKENS, "pair tokens": MAX_PAIR_TOKENS, "timed": N_TIMED},
}


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Run the study."""
    settings = parse_settings(RerankingStudySettings, argv, __doc__)
    results = run_study(settings)
    sys.stdout.write(f"{len(results['cells'])} of {len(CELLS)} cells: {RESULTS}\n")


if __name__ == "__main__":
    main()
