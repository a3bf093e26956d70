"""Show retrieval and clustering results in the browser.

Reads:  measures/ and after_measures/ of --root (default: the repository); checks for changes periodically
Writes: nothing

streamlit run perspective/leaderboard/page.py -- --root .
"""

from __future__ import annotations

import argparse
from pathlib import Path

import altair as alt
import pandas as pd
import streamlit as st

from perspective.artifacts import ROOT
from perspective.errors import DataError
from perspective.evaluation.clustering_scores import METRICS
from perspective.layout import STUDY_BASE
from perspective.leaderboard.charts import chart_clustering, chart_retrieval
from perspective.leaderboard.clustering_rows import read_settings
from perspective.leaderboard.standings import (
    MEASURED,
    PUBLISHED,
    Stamp,
    Standings,
    load_standings,
    published_source,
    scan_results,
)
from perspective.leaderboard.tables import (
    MEAN,
    Table,
    escape_markdown,
    filter_rows,
    shorten_model,
    sort_metrics,
    style_table,
    tabulate_clustering,
    tabulate_metrics,
    tabulate_sets,
    tabulate_study,
)

REFRESH_SECONDS = 3
NO_MATCH = "No result fits these filters."
FIRST_METRICS = ("NDCG@10", "NDCG@1")  # default metrics, if present


def main() -> None:
    """Draw the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, default=ROOT)
    root = parser.parse_args().root.resolve()
    st.set_page_config("Retrieval leaderboard", layout="wide")
    st.title("Leaderboard")
    seen = scan_results(root)
    found = _load(root, seen)
    faults = st.container()  # always rendered, so that new lines do not reset the tabs below
    for fault in found.faults:
        faults.warning(f"Not shown: {escape_markdown(fault)}")
    datasets, models, sources = _ask_filters(found)
    st.header("Retrieval")
    note = st.container()
    if not found.retrieval["source"].eq(MEASURED).any():
        note.info(
            "Nothing measured yet. Run `bash perspective/6_retrieval/scripts/evaluate.sh`: "
            "its results appear here as soon as they are written."
        )
    retrieval = filter_rows(found.retrieval, datasets, models, sources)
    table = retrieval.to_csv(index=False)
    st.sidebar.download_button("Download CSV", table, "leaderboard.csv", "text/csv", on_click="ignore")
    _show_retrieval(retrieval)
    st.header("Clustering")
    if found.clustering.empty and found.study.empty:
        st.info("Nothing measured before and after fine-tuning yet: run `bash scripts/run.sh`.")
    else:
        _show_clustering(filter_rows(found.clustering, datasets, models), filter_rows(found.study, datasets))
    _watch(root, seen)


@st.cache_data(max_entries=4)
def _load(root: Path, seen: tuple[Stamp, ...]) -> Standings:
    return load_standings(root)


@st.fragment(run_every=REFRESH_SECONDS)
def _watch(root: Path, seen: tuple[Stamp, ...]) -> None:
    if scan_results(root) != seen:
        st.rerun()
    st.caption(f"New and changed results appear automatically; checked every {REFRESH_SECONDS} seconds.")


def _ask_filters(found: Standings) -> tuple[list[str], list[str], list[str]]:
    measured = found.retrieval[found.retrieval["source"].eq(MEASURED)]
    datasets = {*measured["data set"], *found.clustering["data set"], *found.study["data set"]}
    models = {*found.retrieval["model"], *found.clustering["embedder"]}
    with st.sidebar:
        st.header("Filters")
        return (
            st.multiselect("Data set", sorted(datasets), placeholder="all", key="datasets"),
            st.multiselect("Model", sorted(models), format_func=shorten_model, placeholder="all", key="models"),
            st.pills("Figures", [MEASURED, PUBLISHED], selection_mode="multi", key="sources"),
        )


def _show_retrieval(rows: pd.DataFrame) -> None:
    if rows.empty:
        st.info(NO_MATCH)
        return
    metrics = sort_metrics(rows["metric"])
    first = next((metrics.index(name) for name in FIRST_METRICS if name in metrics), 0)
    by_set, by_metric, settings = st.tabs(["By data set", "By metric", "Settings of the runs"])
    with by_set:
        left, right = st.columns(2)
        metric = left.selectbox("Metric", metrics, index=first, key="metric")
        columns = tabulate_sets(rows, metric).figures
        table = tabulate_sets(rows, metric, right.selectbox("Sort by", columns, key="sort"))
        _show_table(table)
        _show_charts(chart_retrieval(rows, metric))
    with by_metric:
        measured = rows.loc[rows["source"].eq(MEASURED), "data set"]
        dataset = st.selectbox("Data set shown", [MEAN, *sorted(measured.unique())], key="dataset")
        _show_table(tabulate_metrics(rows, None if dataset == MEAN else dataset))
    with settings:
        _show_settings(rows)
    st.caption(
        "Percent; in square brackets the 95% interval over queries. The number of data sets is given with each "
        "mean; the best is marked among means over the same data sets. "
        f"Published: {escape_markdown(published_source())}."
    )


def _show_clustering(runs: pd.DataFrame, study: pd.DataFrame) -> None:
    if runs.empty and study.empty:
        st.info(NO_MATCH)
        return
    metric = st.segmented_control("Measure", METRICS, default=METRICS[0], required=True, key="measure")
    if not runs.empty:
        st.subheader("Before and after fine-tuning")
        _show_table(tabulate_clustering(runs, metric))
        _show_charts(chart_clustering(runs, metric))
    if not study.empty:
        st.subheader("Study of the method")
        _show_table(tabulate_study(study, metric))
    st.caption(
        "Percent, mean ± standard deviation over the k-means seeds of one training seed. In the study, in brackets, "
        f"the gain over {STUDY_BASE}, paired by seed, over n training seeds and the k-means seeds."
    )


def _show_table(table: Table) -> None:
    first, *others = (name for name in table.values if name not in table.figures)
    columns = {first: st.column_config.TextColumn(pinned=True, width="medium")}
    columns |= {name: st.column_config.TextColumn() for name in others}
    st.dataframe(style_table(table), hide_index=True, placeholder="", column_config=columns)


def _show_charts(charts: list[alt.LayerChart]) -> None:
    columns = st.columns(2)
    for i, chart in enumerate(charts):
        columns[i % len(columns)].altair_chart(chart)


def _show_settings(rows: pd.DataFrame) -> None:
    runs = rows.dropna(subset="file").drop_duplicates("file").set_index("file")
    if runs.empty:
        st.info("Published figures have no settings to show.")
        return
    file = st.selectbox("Run", sorted(runs.index), format_func=lambda file: Path(file).stem, key="run")
    st.text(f"{runs.loc[file, 'model']} · {runs.loc[file, 'retriever']} · {file}")
    try:
        st.json(read_settings(Path(file)), expanded=2)
    except (DataError, OSError) as error:
        st.warning(escape_markdown(str(error)))


if __name__ == "__main__":
    main()
