"""Tables of docs/decoders.md: the arms of LLM2Vec, and what instruction, pooling and rank are worth."""

from __future__ import annotations

from typing import Any, get_args

from perspective.artifacts.markdown import format_interval, format_table
from perspective.layout import MEASURES
from perspective.leaderboard.measured import load
from perspective.options import PoolingName

DECODERS = MEASURES / "benchmark_decoders.json"
POOLINGS: tuple[PoolingName, ...] = get_args(PoolingName)
# Of an arm: its cell, the cell of its loss of masked tokens, and the paper's mean over tasks (1.3B, mean pooling).
ARMS = {
    "Uni": ("uni", "loss uni", "33.0"),
    "Bi": ("bi", "loss bi", "30.3"),
    "Bi + MNTP": ("bi+mntp", "loss bi+mntp", "42.1"),
    "Uni + SimCSE": ("uni+simcse", "", "45.0"),
    "Bi + SimCSE": ("bi+simcse", "", "44.5"),
    "Bi + MNTP + SimCSE": ("bi+mntp+simcse", "", "52.4"),
}
# Pooling, rank, instruction in training and in asking, cell.
TUNED = (
    ("last token", "", "not trained; asked with it", "untrained"),
    ("last token", 16, "with", "instruction"),
    ("last token", 16, "with; asked with a wrong one", "wrong instruction"),
    ("last token", 16, "without", "no instruction"),
    ("last token", 8, "with", "rank 8"),
    ("last token", 32, "with", "rank 32"),
    ("weighted mean", 16, "with", "weighted"),
    ("mean", 16, "with", "mean"),
    ("mean", 16, "with; asked with a wrong one", "mean, wrong instruction"),
    ("mean", 16, "without", "mean, no instruction"),
    ("mean", 8, "with", "mean, rank 8"),
    ("mean", 32, "with", "mean, rank 32"),
)


def tabulate_arms(what: str) -> str:
    """The six arms by pooling.

    Args:
        what: A clustered data set, for ACC / NMI, or "docstrings", for NDCG@10.
    """
    cells: dict[str, Any] = load(DECODERS)["cells"]
    rows = []
    for arm, (cell, _, _) in ARMS.items():
        if cell not in cells:
            continue
        found = cells[cell]["retrieval"] if what == "docstrings" else cells[cell]["clusters"][what]
        rows.append([arm, *(_show(found[pooling]) for pooling in POOLINGS)])
    metric = "NDCG@10" if what == "docstrings" else "ACC / NMI"
    return format_table([f"{what}, {metric} (%)", "last token", "mean", "weighted mean"], rows)


def tabulate_masked_loss() -> str:
    """The loss of masked tokens of held-out texts, and what the paper reports of the six arms."""
    cells: dict[str, Any] = load(DECODERS)["cells"]
    rows = [
        [arm, f"{cells[loss]['masked_loss']:.2f}" if loss in cells else "", published]
        for arm, (_, loss, published) in ARMS.items()
    ]
    return format_table(["arm", "loss of a masked token, nats", "published score"], rows)


def tabulate_tuned() -> str:
    """NDCG@10 on the docstrings after fine-tuning, with 95% intervals over queries."""
    cells: dict[str, Any] = load(DECODERS)["cells"]
    rows = []
    for *arm, cell in TUNED:
        if cell in cells:
            found = cells[cell]["retrieval"]
            losses = [f"{cells[cell][name]:.2f}" for name in ("first_loss", "final_loss") if name in cells[cell]]
            rows.append([*arm, _show(found), " -> ".join(losses)])
    return format_table(["pooling", "rank", "instruction", "NDCG@10", "loss"], rows)


def _show(found: dict[str, Any]) -> str:
    if "NDCG@10" in found:
        return f"{found['NDCG@10']:.1f} {format_interval(found['interval'])}"
    return f"{found['ACC']:.1f} / {found['NMI']:.1f}"
