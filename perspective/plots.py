"""Figures with a common style and reproducible bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_figure(ncols: int, width: float, height: float) -> tuple[Any, Any]:
    """Return a matplotlib figure and its row of axes; sizes in inches."""
    # Not pyplot, which would choose a window system and keep global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, ncols, squeeze=False)[0]


def save_figure(figure: Any, path: Path) -> None:  # noqa: ANN401
    """Write a figure as PNG."""
    # Without matplotlib's version, the same picture gives the same bytes.
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})
