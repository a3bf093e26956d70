"""Tables of docs/hybrid.md: each way of M3 alone and together, with and without self-distillation."""

from __future__ import annotations

from typing import Any

from perspective.artifacts.markdown import format_interval, format_table
from perspective.layout import MEASURES
from perspective.leaderboard.measured import load, load_koe5

HYBRID = MEASURES / "benchmark_hybrid.json"
ARMS = {"base": "", "plain": "without self-distillation: ", "distilled": "with self-distillation: "}
WAYS = {
    "bm25": "BM25",
    "untouched": "the body as it comes",
    "untouched+bm25": "the body as it comes and BM25, fused by rank",
    "dense": "dense",
    "sparse": "sparse",
    "multi": "multi-vector",
    "dense-sparse": "dense + sparse",
    "all": "all three",
}
COLLECTIONS = {
    "docstrings": "docstrings",
    "gnome-help-ko": "Korean",
    "gnome-help-en": "English",
    "gnome-help-ko-en": "Korean to English",
}
# Of an arm and a way: how README names it.
STACKS = {
    ("base", "bm25"): "BM25",
    ("base", "untouched"): "multilingual-e5-small (118M), as it comes",
    ("base", "untouched+bm25"): "both, fused by rank",
    ("distilled", "all"): "trained as M3 on 252 pairs, all three ways",
}


def tabulate_hybrid(*collections: str) -> str:
    """NDCG@10 by way, with 95% intervals over queries; over several seeds their deviation too."""
    summary: dict[str, Any] = load(HYBRID)["summary"]
    rows = [
        [f"{opening}{shown}", *(_show(summary[name][arm][way]) for name in collections)]
        for arm, opening in ARMS.items()
        for way, shown in WAYS.items()
        if all(way in summary[name].get(arm, {}) for name in collections)
    ]
    return format_table(["NDCG@10 (%)", *(COLLECTIONS[name] for name in collections)], rows)


def tabulate_hybrid_gains(*collections: str) -> str:
    """What the other ways and the sums are over the same model's dense way, with 95% intervals over queries."""
    summary: dict[str, Any] = load(HYBRID)["summary"]
    rows = [
        [
            f"{opening}{shown}",
            *("{:+.1f} ({:+.1f} to {:+.1f})".format(*summary[name][arm][way]["against_dense"]) for name in collections),
        ]
        for arm, opening in ARMS.items()
        for way, shown in WAYS.items()
        if arm != "base" and way != "dense" and all(way in summary[name].get(arm, {}) for name in collections)
    ]
    return format_table(["against dense, points", *(COLLECTIONS[name] for name in collections)], rows)


def tabulate_published_way(collection: str) -> str:
    """The metrics that KoE5 publishes, of a collection."""
    summary: dict[str, Any] = load(HYBRID)["summary"][collection]
    names = load_koe5()["metrics"]
    rows = [
        [shown, *(f"{summary[arm][way]['published metrics'][name]:.2f}" for name in names)]
        for (arm, way), shown in STACKS.items()
    ]
    return format_table([COLLECTIONS[collection], *names], rows)


def show_seeds(collection: str) -> str:
    """The number of training seeds on a collection."""
    arms = load(HYBRID)["summary"][collection]
    return " and ".join(sorted({str(arms[arm]["all"]["n_seeds"]) for arm in ARMS if "all" in arms.get(arm, {})})) or "0"


def _show(found: dict[str, Any]) -> str:
    deviation = f" ± {found['std']:.1f}" if found["n_seeds"] > 1 else ""
    return f"{found['mean']:.1f}{deviation} {format_interval(found['interval'])}"
