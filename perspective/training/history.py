"""The training loss as table and plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perspective.plots import make_figure, save_figure


def draw_loss(steps: Sequence[float], losses: Sequence[float], path: Path) -> None:
    """Plot the training loss by step, with a running mean, as a PNG."""
    figure, (axis,) = make_figure(ncols=1, width=6, height=3.2)
    axis.plot(steps, losses, color="#c5ccd6", linewidth=0.8, label="step")
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axis.plot(steps[window - 1 :], smooth, color="#2f6db3", label=f"mean of {window}")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def write_history(folder: Path, history: Sequence[dict[str, float]]) -> None:
    """Write the loss by step as `loss.csv` and, if there are any steps, `loss.png`."""
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "epoch", "loss", "learning_rate"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)
    if history:
        draw_loss([entry["step"] for entry in history], [entry["loss"] for entry in history], folder / "loss.png")
