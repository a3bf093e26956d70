"""The table of docs/pretraining.md: what pre-training gives a small encoder."""

from __future__ import annotations

from perspective.artifacts.markdown import format_table
from perspective.layout import MEASURES
from perspective.leaderboard.measured import find, load
from perspective.leaderboard.pages.synthesis_tables import show_difference

RETROMAE = MEASURES / "benchmark_retromae.json"
NAMES = {"none": "nothing", "mlm": "masked tokens", "retromae": "RetroMAE"}


def tabulate_pretraining() -> str:
    """NDCG@10 before and after the same fine-tuning, by what the encoder was pre-trained with."""
    rows = []
    for arm in load(RETROMAE)["arms"]:
        masked = arm["facts"].get("masked_loss_trained")
        rows.append(
            [
                NAMES[arm["arm"]],
                "" if masked is None else f"{arm['facts']['masked_loss_before']:.2f} -> {masked:.2f}",
                *(f"{arm[when]['mean']:.2f} ± {arm[when]['std']:.2f}" for when in ("before", "after")),
                *(show_difference(arm["after"].get(f"against_{other}")) for other in ("none", "mlm")),
            ]
        )
    columns = ["pre-trained with", "loss of masked tokens", "NDCG@10 before fine-tuning", "after"]
    return format_table([*columns, "after, against nothing", "after, against masked tokens"], rows)


def show_tokens() -> str:
    """195,000: tokens of an epoch, the same for both objectives."""
    return f"{round(load(RETROMAE)['n_tokens'], -3):,}"


def show_speed(name: str) -> str:
    """4,100: tokens per CPU second of forward and backward passes."""
    return f"{find(load(RETROMAE), 'speed', name, of=RETROMAE.name):,}"
