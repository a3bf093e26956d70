"""Arrange leaderboard rows as tables: one row per model, one column per data set or metric."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from pandas.io.formats.style import Styler

from perspective.artifacts.markdown import format_interval
from perspective.layout import STUDY_BASE
from perspective.leaderboard.standings import MEASURED, PUBLISHED, published_sets
from perspective.retrieval.metrics import METRICS

MEAN = "mean"
BEST = "font-weight: 700; background-color: rgba(47, 109, 179, 0.16)"
MODEL = ["model", "retriever", "source"]
ARM = ["arm", "embedder-LLM"]  # identifies a row of the study
PUBLISHED_PAIR = ("published before", "published after")


@dataclass(frozen=True)
class Table:
    """A table to show. The three frames share their rows and the columns of figures.

    Attributes:
        values: Row names, then figures; NaN if missing.
        shown: The figures as text, with interval or spread.
        best: Whether a figure is the highest among comparable ones.
    """

    values: pd.DataFrame
    shown: pd.DataFrame
    best: pd.DataFrame

    @property
    def figures(self) -> list[str]:
        """Columns with figures."""
        return list(self.shown.columns)


def style_table(table: Table) -> Styler:
    """Return the styled table: figures shown as texts, the best marked, sortable by figure."""
    style = table.values.style.apply(
        lambda _: table.best.replace({True: BEST, False: ""}), axis=None, subset=table.figures
    )
    for column in table.figures:
        texts = dict(zip(table.values[column], table.shown[column], strict=True))
        style.format(texts.get, na_rep="", subset=[column])
        for row, (value, text) in enumerate(zip(table.values[column], table.shown[column], strict=True)):
            if text and texts[value] != text:  # the same score, with another interval
                style.format(lambda _, text=text: text, subset=(row, column))
    return style


def filter_rows(
    rows: pd.DataFrame, datasets: Sequence[str] = (), models: Sequence[str] = (), sources: Sequence[str] = ()
) -> pd.DataFrame:
    """Keep rows of the given data sets, models and sources; an empty filter keeps all.

    Published figures are means, kept only if all their data sets are. Models are those of
    retrieval, and embedders of clustering.
    """
    kept = pd.Series(True, index=rows.index)
    if datasets:
        whole = set(published_sets()) <= set(datasets)
        is_published = rows["source"].eq(PUBLISHED) if "source" in rows else False
        kept &= rows["data set"].isin(datasets) | (is_published & whole)
    for column, names in (("model", models), ("embedder", models), ("source", sources)):
        if names and column in rows:
            kept &= rows[column].isin(names)
    return rows[kept]


def sort_metrics(metrics: Sequence[str]) -> list[str]:
    """Return metrics sorted by family, then by cutoff.

    >>> sort_metrics(["MAP@10", "NDCG@10", "F1@1", "NDCG@3"])
    ['NDCG@3', 'NDCG@10', 'F1@1', 'MAP@10']
    """

    def place(metric: str) -> tuple[int, str, int]:
        family, _, cutoff = metric.partition("@")
        known = METRICS.index(family) if family in METRICS else len(METRICS)
        return known, family, int(cutoff) if cutoff.isdecimal() else 0

    return sorted(set(metrics), key=place)


def shorten_model(name: str) -> str:
    """Return a model's name for a table: the folder's name for a path.

    >>> shorten_model("intfloat/e5-large"), shorten_model("/work/6_retrieval/checkpoints/docs_minilm")
    ('intfloat/e5-large', 'docs_minilm')
    """
    return name.rstrip("/").rpartition("/")[2] if name.count("/") > 1 or name.startswith((".", "/")) else name


def escape_markdown(text: str) -> str:
    r"""Escape text for Markdown: names in result files are data, not markup.

    >>> print(escape_markdown("docs_[x](http://y) :red[z]"))
    docs\_\[x\]\(http\:\/\/y\) \:red\[z\]
    """
    return re.sub(r"([^\w\s.,;'-]|_)", r"\\\1", text)


def tabulate_sets(rows: pd.DataFrame, metric: str, sort_by: str = MEAN) -> Table:
    """Arrange one metric: models as rows, data sets as columns, and the mean over a row's data sets.

    Means over different data sets are not comparable: the best is marked per set of data sets.

    Args:
        rows: Retrieval rows from `load_standings`.
        metric: Metric to show.
        sort_by: Column to sort by, in descending order; missing figures last.
    """
    rows = rows[rows["metric"].eq(metric)]
    published = rows["source"].eq(PUBLISHED)
    cells = rows[MODEL].assign(
        column=rows["data set"].map(_name_column).mask(published, MEAN),
        value=rows["score"].astype(float),
        shown=[_format_score(*score) for score in zip(rows["score"], rows["low"], rows["high"], strict=True)],
        over=published.map({True: _join(published_sets()), False: ""}),
        n_sets=published.map({True: len(published_sets()), False: 1}),
    )
    return _lay_out(_add_means(cells, MODEL), MODEL, sort_by)


def tabulate_metrics(rows: pd.DataFrame, dataset: str | None = None) -> Table:
    """Arrange one data set: models as rows, metrics as columns.

    Args:
        rows: Retrieval rows.
        dataset: Its name; None for the mean over a model's data sets, with the published means.
    """
    rows = rows if dataset is None else rows[rows["data set"].eq(dataset)]
    over = rows["data set"].mask(rows["source"].eq(PUBLISHED), _join(published_sets()))
    n_sets = rows["source"].map({PUBLISHED: len(published_sets()), MEASURED: 1})
    groups = rows.assign(over=over, n_sets=n_sets, score=rows["score"].astype(float)).groupby([*MODEL, "metric"])
    cells = groups.agg(value=("score", "mean"), over=("over", _join), n_sets=("n_sets", "sum")).reset_index()
    cells = cells.assign(column=cells["metric"].map(_name_column), shown=cells["value"].map("{:.2f}".format))
    if dataset is not None:
        return _lay_out(cells, MODEL)
    cells["sets"] = cells.groupby(MODEL)["n_sets"].transform("max").astype(str)
    return _lay_out(cells, [*MODEL, "sets"])


def tabulate_study(rows: pd.DataFrame, metric: str) -> Table:
    """Arrange the quality studies: arms as rows, data sets as columns, with the gain over no training."""
    rows = rows[rows["metric"].eq(metric)]
    gains = zip(*(rows[name] for name in ("arm", "mean", "gain", "gain_std", "n_seeds")), strict=True)
    cells = rows[ARM].assign(
        column=rows["data set"].map(_name_column),
        value=rows["mean"].astype(float),
        shown=[
            f"{mean:.2f}" if arm == STUDY_BASE else f"{mean:.2f} ({gain:+.2f} ± {std:.2f}, n={n_seeds})"
            for arm, mean, gain, std, n_seeds in gains
        ],
        over="",
        n_sets=1,
    )
    return _lay_out(_add_means(cells, ARM), ARM, MEAN)


def tabulate_clustering(rows: pd.DataFrame, metric: str) -> Table:
    """Arrange the runs: before, after and gain, one row per run."""
    rows = rows[rows["metric"].eq(metric)].sort_values(["data set", "gain"], ascending=[True, False])
    values = rows[["data set", "run", "embedder", "judge", "before", "after", "gain", "verdict", *PUBLISHED_PAIR]]
    values = values.dropna(axis="columns", how="all").reset_index(drop=True)
    shown = pd.DataFrame(
        {
            "before": [f"{mean:.2f} ± {std:.2f}" for mean, std in zip(rows["before"], rows["before_std"], strict=True)],
            "after": [f"{mean:.2f} ± {std:.2f}" for mean, std in zip(rows["after"], rows["after_std"], strict=True)],
            "gain": [f"{mean:+.2f} ± {std:.2f}" for mean, std in zip(rows["gain"], rows["gain_std"], strict=True)],
            **{
                name: values[name].map("{:.2f}".format, na_action="ignore") for name in PUBLISHED_PAIR if name in values
            },
        }
    ).fillna("")
    return Table(values, shown, pd.DataFrame(False, index=shown.index, columns=shown.columns))


def _add_means(cells: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Add the mean of each row's cells, unless there is only one data set."""
    sets, means = cells[cells["column"].ne(MEAN)], cells[cells["column"].eq(MEAN)]
    if sets["column"].nunique() > 1 or len(means):
        groups = sets.groupby(names)
        row_means = groups.agg(value=("value", "mean"), over=("column", _join), n_sets=("n_sets", "sum")).reset_index()
        means = pd.concat([means, row_means.assign(column=MEAN)])
    return pd.concat([means.assign(shown=_format_means(means)), sets], ignore_index=True)


def _lay_out(cells: pd.DataFrame, names: list[str], sort_by: str = "") -> Table:
    """Pivot cells into columns.

    Args:
        cells: One row per cell: the row's `names`, `column`, `value`, `shown`; `n_sets`, the number of
            data sets averaged; and `over`, equal for comparable cells of a column.
        names: Columns that identify a row.
        sort_by: Column to sort by; the first if missing.
    """
    comparable = cells.groupby(["column", "over"])["value"]
    cells = cells.assign(best=cells["value"].eq(comparable.transform("max")) & comparable.transform("size").gt(1))
    found = set(cells["column"])
    columns = [MEAN] * (MEAN in found) + sort_metrics(list(found - {MEAN}))
    wide = cells.pivot(index=names, columns="column", values=["value", "shown", "best", "n_sets"])
    values = wide["value"].astype(float)[columns].reset_index()
    by = sort_by if sort_by in found else columns[0]
    # Means over more data sets first: a mean over one easy set is not comparable.
    keys = pd.DataFrame({0: wide["n_sets"][by].to_numpy(float), 1: values[by], 2: values[columns[0]]})
    order = keys.sort_values([0, 1, 2], ascending=False, kind="stable").index
    values = values.loc[order]
    values.columns.name = None
    shown = wide["shown"][columns].fillna("").reset_index(drop=True).loc[order]
    best = wide["best"][columns].eq(True).reset_index(drop=True).loc[order]
    if "model" in values:
        values["model"] = values["model"].map(shorten_model)
    return Table(*(frame.reset_index(drop=True) for frame in (values, shown, best)))


def _name_column(name: str) -> str:
    """Quote a data set or metric that has the name of a table column."""
    return f'"{name}"' if name in (MEAN, "sets", *ARM, *MODEL) else name


def _join(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _format_means(cells: pd.DataFrame) -> list[str]:
    means = zip(cells["value"], cells["n_sets"], strict=True)
    return [f"{mean:.2f} ({n} set{'s' * (n > 1)})" for mean, n in means]


def _format_score(score: float, low: float, high: float) -> str:
    return f"{score:.2f}" if math.isnan(low) else f"{score:.2f} {format_interval((low, high), '.2f')}"
