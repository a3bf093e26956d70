"""Figures: one look for all pictures, written the same to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_figure(ncols: int, width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of matplotlib and its row of axes; sizes in inches."""
    # The figure class, not pyplot: no window system is asked for, and none is changed for others.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, ncols, squeeze=False)[0]


def save_figure(figure: Any, path: Path) -> None:  # noqa: ANN401
    """Write a figure as PNG."""
    # Without matplotlib's version in it, the same picture is the same file.
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})
