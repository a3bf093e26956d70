"""Charts of the leaderboard: bars with intervals, one chart per data set."""

from __future__ import annotations

import textwrap
from typing import Any

import altair as alt
import pandas as pd

from perspective.leaderboard.standings import MEASURED, PUBLISHED
from perspective.leaderboard.tables import shorten_model

STRONG, PALE, LINE = "#2f6db3", "#9aa7b8", "#1f2d3d"
COLORS = {MEASURED: STRONG, PUBLISHED: PALE, "before": PALE, "after": STRONG}
BAR_STEP = 24  # pixels
TITLE_WIDTH = 46  # characters


def chart_retrieval(rows: pd.DataFrame, metric: str) -> list[alt.LayerChart]:
    """Draw one metric: one bar per model, best first, with the 95% interval if known."""
    rows = rows[rows["metric"].eq(metric)].sort_values("score", ascending=False)
    bars = pd.DataFrame(
        {
            "name": rows["model"].map(shorten_model) + " · " + rows["retriever"],
            "data set": rows["data set"],
            "kind": rows["source"],
            **{column: rows[column].astype(float) for column in ("score", "low", "high")},
        }
    )
    return _draw(bars, metric)


def chart_clustering(rows: pd.DataFrame, metric: str) -> list[alt.LayerChart]:
    """Draw one measure before and after, with the standard deviation over the k-means seeds."""
    rows = rows[rows["metric"].eq(metric)]
    parts = []
    for kind in ("before", "after"):
        mean, std = rows[kind].astype(float), rows[f"{kind}_std"].astype(float)
        bars = {"name": rows["run"] + " · " + kind, "data set": rows["data set"], "kind": kind}
        parts.append(pd.DataFrame({**bars, "score": mean, "low": mean - std, "high": mean + std}))
    return _draw(pd.concat(parts).sort_index(kind="stable"), metric)


def _draw(bars: pd.DataFrame, title: str) -> list[alt.LayerChart]:
    """Draw one chart per data set on a common scale, bars in row order."""
    top = float(bars[["score", "high"]].max(axis=None))
    return [_draw_one(part, str(dataset), title, top) for dataset, part in bars.groupby("data set", sort=True)]


def _draw_one(bars: pd.DataFrame, dataset: str, title: str, top: float) -> alt.LayerChart:
    figures: list[Any] = [alt.Tooltip(f"{figure}:Q", format=".2f") for figure in ("score", "low", "high")]
    # Explicit order: otherwise a bar added while the chart is shown comes last.
    names = alt.Y("name:N", sort=list(bars["name"]), title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(bars).encode(y=names, tooltip=["name", "kind", *figures])
    score = base.encode(x=alt.X("score:Q", title=f"{title} (%)", scale=alt.Scale(domain=[0, top])))
    solid = score.mark_bar(height={"band": 0.7}).encode(
        color=alt.Color("kind:N", scale=alt.Scale(domain=list(COLORS), range=list(COLORS.values())), legend=None)
    )
    spread = base.mark_rule(strokeWidth=1.5, color=LINE).encode(x="low:Q", x2="high:Q")
    text = score.mark_text(align="left", dx=4, color="white", baseline="middle", fontWeight=600).encode(
        x=alt.datum(0), text=alt.Text("score:Q", format=".2f")
    )
    return alt.LayerChart(layer=[solid, spread, text]).properties(
        title=textwrap.wrap(dataset, TITLE_WIDTH), height=alt.Step(BAR_STEP)
    )
