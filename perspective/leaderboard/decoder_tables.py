"""Tables of docs/decoders.md: the arms of LLM2Vec, and what instruction, pooling and rank are worth."""

from __future__ import annotations

from typing import Any, get_args

from perspective.artifacts.markdown import format_table
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
TUNED = {
    "untrained, asked with the instruction": "untrained",
    "last token, rank 16, with the instruction": "instruction",
    "the same, asked with a wrong instruction": "wrong instruction",
    "trained and asked without": "no instruction",
    "mean": "mean",
    "weighted mean": "weighted",
    "rank 8": "rank 8",
    "rank 32": "rank 32",
}


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
    for name, cell in TUNED.items():
        if cell in cells:
            found = cells[cell]["retrieval"]
            loss = f"{cells[cell]['final_loss']:.2f}" if "final_loss" in cells[cell] else ""
            rows.append([name, _show(found), loss])
    return format_table(["trained on", "NDCG@10", "loss at the end"], rows)


def show_size(*words: str) -> str:
    """A number of texts of the study, by its name in the JSON."""
    return f"{load(DECODERS)['sizes'][' '.join(words)]:,}"


def show_minutes() -> str:
    """Processor minutes of the cells that are measured."""
    return f"{sum(cell['processor_seconds'] for cell in load(DECODERS)['cells'].values()) / 60:.0f}"


def _show(found: dict[str, Any]) -> str:
    if "NDCG@10" in found:
        low, high = found["interval"]
        return f"{found['NDCG@10']:.1f} [{low:.1f}, {high:.1f}]"
    return f"{found['ACC']:.1f} / {found['NMI']:.1f}"
