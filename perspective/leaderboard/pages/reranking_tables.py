"""Tables of docs/retrieval.md: rerankers, what a retriever learns from one, the consistency filter, help pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perspective.artifacts.markdown import format_interval, format_table
from perspective.layout import MEASURES
from perspective.leaderboard.measured import load
from perspective.retrieval.metrics import bootstrap_interval, resample_means

RERANKING = MEASURES / "benchmark_reranking.json"
HELP_PAGES = MEASURES / "retrieval_help.json"
# Of a ranking, by its cell and retriever: the first stage of reranking and timing, and what is shown.
FIRST_STAGES = {
    ("first stage", "bm25"): ("bm25", "BM25"),
    ("first stage", "dense"): ("dense", "MiniLM"),
    ("first stage", "hybrid"): ("hybrid", "MiniLM and BM25, hybrid"),
    ("m3", "dense"): ("dense of m3", "MiniLM trained as M3: dense"),
    ("m3", "hybrid"): ("hybrid of m3", "its dense way and BM25, hybrid"),
    ("m3", "all"): ("m3", "its three ways"),
}
STAGE_PARTS = {"hybrid": ("bm25", "dense"), "dense of m3": ("dense",), "hybrid of m3": ("bm25", "dense")}  # timed
RERANKERS = {"reranked": "reranked", "asked": "reranked by SmolLM2-135M, log-odds of Yes"}
# Of an arm: what the retriever learns from.
LEARNED = {
    "trained": "InfoNCE with three mined negatives each",
    "distilled": "the reranker's scores of them, and 0.2 x InfoNCE",
    "shuffled": "the same, each group's scores shuffled",
    "random": "the same, negatives drawn at random",
}
NOISY = {
    "none": "all",
    "filtered": "those that the filter keeps",
    "random": "as many at random",
    "clean": "only the clean ones",
}


def tabulate_reranked() -> str:
    """Rankings before and after reranking, the recall of what is reranked, and the time of a query."""
    cells = _cells()
    times: dict[str, float] = cells.get("query times", {"ms": {}})["ms"]
    rows = []
    for (cell, name), (stage, shown) in FIRST_STAGES.items():
        if cell not in cells:
            continue
        first = sum(times.get(part, 0.0) for part in STAGE_PARTS.get(stage, (stage,)))
        rows.append([shown, *_show_scores(cells[cell]["retrievers"][name]), "", _show_ms(first)])
        for how, ranked_by in RERANKERS.items():
            again = cells.get(f"{how} {stage}")
            if again:
                more = {**cells.get("speed", {}), **again}.get("ms_per_query")
                ceiling, time = f"{again['first_stage']['recall']:.1f}", _show_ms(first + more) if more else ""
                rows.append([f"{shown}, {ranked_by}", *_show_scores(again), ceiling, time])
    return format_table(["ranking", "NDCG@1", "NDCG@10", "ceiling: recall of the hits", "ms a query"], rows)


def _show_ms(milliseconds: float) -> str:
    return f"{milliseconds:,.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}" if milliseconds else ""


def tabulate_learned() -> str:
    """What a retriever learns from mined negatives and from a reranker, and from controls."""
    cells = _cells()
    untouched = cells["student"]
    rows = [["nothing: untouched", "", f"{untouched['scores']['NDCG@10']:.2f}", ""]]
    return _tabulate_arms(rows, LEARNED, "", untouched, "learns from", "against untouched")


def tabulate_filtered() -> str:
    """Precision and recall of the consistency filter, with half of the pairs corrupted."""
    found = _cells()["filter"]
    rows = [
        [name, f"{one['kept']} of {found['n_pairs']}", f"{one['precision']:.1f}", f"{one['recall']:.1f}"]
        for name, one in found["filters"].items()
    ]
    return format_table(["embedder that filters", "pairs kept", "precision", "recall"], rows)


def tabulate_noisy() -> str:
    """What a retriever learns from the pairs of which half are corrupted."""
    untouched = _cells()["student"]
    rows = [["none: untouched", "", "", f"{untouched['scores']['NDCG@10']:.2f}", ""]]
    return _tabulate_arms(rows, NOISY, "noisy ", untouched, "trained on", "against untouched")


def tabulate_help_pages() -> str:
    """Titles of help pages against pages, NDCG@10 with 95% intervals over queries."""
    found: dict[str, Any] = load(HELP_PAGES)
    names = list(dict.fromkeys(row["collection"] for row in found["rows"]))
    retrievers = list(dict.fromkeys(row["retriever"] for row in found["rows"]))
    cells = {(row["retriever"], row["collection"]): row for row in found["rows"]}
    rows = [
        [one, *(_show_interval(cells[one, name]) if (one, name) in cells else "" for name in names)]
        for one in retrievers
    ]
    return format_table(["NDCG@10", *names], rows)


def show_help_size(name: str) -> str:
    """A count of the help pages: n_queries or n_documents."""
    return f"{load(HELP_PAGES)[name]:,}"


def show_rate(way: str) -> str:
    """Pairs a second that the reranker reads: "ours", or "default" of `CrossEncoder.predict`."""
    return f"{_cells()['speed']['pairs_per_second'][way]:.0f}"


def show_difference(one: str, other: str) -> str:
    """NDCG@10 of an arm minus another's, the mean over the seeds that both have, with a 95% interval over queries."""
    cells = _cells()
    pairs = [
        (cells[f"{one.replace('_', ' ')} {seed}"], cells[f"{other.replace('_', ' ')} {seed}"])
        for seed in _seeds(cells, one.replace("_", " "))
        if f"{other.replace('_', ' ')} {seed}" in cells
    ]
    return _show_difference([np.subtract(first["per_query"], second["per_query"]) for first, second in pairs])


def _cells() -> dict[str, Any]:
    cells: dict[str, Any] = load(RERANKING)["cells"]
    return cells


def _seeds(cells: Mapping[str, Any], arm: str) -> list[str]:
    """The seeds of an arm, whose cells are named "arm seed"."""
    return [seed for name in cells for start, _, seed in [name.rpartition(" ")] if start == arm and seed.isdigit()]


def _tabulate_arms(
    rows: list[list[str]], arms: Mapping[str, str], prefix: str, untouched: Mapping[str, Any], *columns: str
) -> str:
    cells = _cells()
    counts = bool(prefix)  # of pairs, which differ by arm
    for arm, shown in arms.items():
        found = [cells[f"{prefix}{arm} {seed}"] for seed in _seeds(cells, f"{prefix}{arm}")]
        if not found:
            continue
        scores = np.array([one["scores"]["NDCG@10"] for one in found])
        spread = f" ± {scores.std():.2f}" if len(scores) > 1 else ""
        difference = _show_difference([np.subtract(one["per_query"], untouched["per_query"]) for one in found])
        n_pairs = [f"{found[0]['n_pairs']}"] if counts else []
        rows.append([shown, *n_pairs, str(len(scores)), f"{scores.mean():.2f}{spread}", difference])
    first, last = columns
    return format_table([first, *(["pairs"] if counts else []), "seeds", "NDCG@10", last], rows)


def _show_difference(differences: Sequence[np.ndarray]) -> str:
    """The mean over seeds and queries, with the 95% interval of the bootstrap over queries."""
    mean = np.mean(differences, axis=0)
    ends = bootstrap_interval(resample_means(mean[:, None]))
    return f"{mean.mean():+.2f} {format_interval((end[0] for end in ends), '+.2f')}"


def _show_scores(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{found['scores'][metric]:.1f} {format_interval(found['interval'][metric])}"
        for metric in ("NDCG@1", "NDCG@10")
    ]


def _show_interval(row: Mapping[str, Any]) -> str:
    return f"{row['score']:.1f} {format_interval(row['interval'])}"
