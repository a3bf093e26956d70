"""Result files of retrieval and clustering as rows of the leaderboard.

A file that cannot be read becomes a line in `Standings.faults`; the others are still shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from perspective.artifacts import read_object
from perspective.artifacts.jsonl import check_text
from perspective.errors import DataError
from perspective.evaluation.clustering_scores import is_number
from perspective.layout import STUDY
from perspective.leaderboard.clustering_rows import CLUSTERING, STUDY_ROW, Rows, read_pair, read_study
from perspective.leaderboard.measured import load_koe5
from perspective.retrieval.results import VERSION

MEASURED, PUBLISHED = "measured", "published"
CEILING = "Ceiling"  # of a reranker: the recall of the first stage

RETRIEVAL = (
    *("model", "retriever", "source", "data set", "metric", "score", "low", "high"),
    *("n_queries", "n_documents", "file"),
)
RUN = ["model", "retriever", "data set", "metric"]  # what a retrieval score belongs to


@dataclass(frozen=True)
class Standings:
    """Everything that was found.

    Attributes:
        retrieval: A row a run (or published model) and metric, with the columns `RETRIEVAL`; `low` and
            `high` bound the 95% interval where it is known.
        clustering: A row a run and metric, before and after, with the columns `CLUSTERING`.
        study: A row an arm, data set and metric of the quality studies, with the columns `STUDY_ROW`.
        faults: A line a file that could not be read.
    """

    retrieval: pd.DataFrame
    clustering: pd.DataFrame
    study: pd.DataFrame
    faults: tuple[str, ...]


Stamp = tuple[Path, int, int]


def scan_results(root: Path) -> tuple[Stamp, ...]:
    """Return path, modification time and size of every result file; equal while nothing changes."""
    measures, after = root / "measures", root / "after_measures"
    befores = _list_stamps(measures, "*_measures.json")
    return tuple(_list_retrieval(root) + _list_stamps(after, "*_measures.json") + befores + _list_study(root))


def load_standings(root: Path) -> Standings:
    """Read all result files.

    Args:
        root: The folder that holds measures/ and after_measures/.
    """
    faults: dict[str, None] = {}  # in order, each once

    def read_all(read: Callable[[Stamp], Rows], stamps: Iterable[Stamp]) -> Rows:
        rows: Rows = []
        for stamp in stamps:
            try:
                rows += read(stamp)
            except (DataError, OSError) as error:
                faults[" ".join(str(error).replace(f"{root}/", "").split())] = None
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
                # These folders may hold any file; one that does not fit must not hide the others.
                faults[f"{stamp[0].name}: not of the form that the stages write"] = None
        return rows

    runs = pd.DataFrame(read_all(lambda stamp: _read_result(*stamp), _list_retrieval(root)), columns=list(RETRIEVAL))
    repeated = runs.duplicated(RUN, keep="last")  # files are in order of time
    for file in runs.loc[repeated, "file"].unique():
        faults[f"{Path(file).name}: a later file measures the same model on the same collection"] = None
    published = pd.DataFrame(_read_published(), columns=list(RETRIEVAL))
    pairs = read_all(lambda stamp: read_pair(stamp[0], root), _list_stamps(root / "after_measures", "*_measures.json"))
    study = read_all(lambda stamp: read_study(stamp[0]), _list_study(root))
    return Standings(
        retrieval=pd.concat([runs[~repeated], published], ignore_index=True) if len(runs) else published,
        clustering=pd.DataFrame(pairs, columns=list(CLUSTERING)),
        study=pd.DataFrame(study, columns=list(STUDY_ROW)),
        faults=tuple(faults),
    )


def _list_retrieval(root: Path) -> list[Stamp]:
    return _list_stamps(root / "measures" / "retrieval", "*.json")


def _list_study(root: Path) -> list[Stamp]:
    return _list_stamps(root / "measures", f"{STUDY}*.json")


def _list_stamps(folder: Path, pattern: str) -> list[Stamp]:
    stamps = []
    for path in folder.glob(pattern):
        if path.name.endswith(".meta.json") or path.name.startswith("."):
            continue
        try:
            found = path.stat()
        except OSError:  # gone since it was listed
            continue
        stamps.append((path, found.st_mtime_ns, found.st_size))
    return sorted(stamps, key=lambda stamp: (stamp[1], stamp[0]))


@lru_cache(maxsize=4096)  # a result holds a score a query: read it once a change
def _read_result(path: Path, changed: int, size: int) -> Rows:
    found = read_object(path)
    version = found.get("version")
    if version != VERSION:
        raise DataError(
            f"{path}: a result of version {version!r:.20}, not {VERSION}; evaluate again, or update the code"
        )
    scores, intervals = found.get("scores"), found.get("interval") or {}
    if not isinstance(scores, dict) or not isinstance(intervals, dict) or not scores:
        raise DataError(f'{path}: "scores" and "interval" must be objects, a metric an entry')
    common = {
        "model": check_text(found.get("model"), "model", str(path)),
        "retriever": check_text(found.get("retriever"), "retriever", str(path)),
        "data set": check_text(found.get("collection"), "collection", str(path)),
        "source": MEASURED,
        "n_queries": _read_count(found.get("n_queries")),
        "n_documents": _read_count(found.get("n_documents")),
        "file": str(path),
    }
    rows = []
    for metric, score in scores.items():
        check_text(metric, "metric", str(path))
        interval = intervals.get(metric, [])
        if not all(map(_is_percent, (score, *interval))) or len(interval) not in (0, 2):
            raise DataError(
                f"{path}: {metric} is {score!r:.40} in {interval!r:.40}; figures must lie between 0 and 100"
            )
        low, high = interval or (math.nan, math.nan)
        rows.append({**common, "metric": metric, "score": score, "low": low, "high": high})
    return rows + _read_ceiling(found, common, path)


def _read_ceiling(found: dict[str, Any], common: dict[str, Any], path: Path) -> Rows:
    """Return what a reranker can reach, the recall of the hits that it reads, as a row of its own."""
    first = found.get("first_stage")
    if first is None:
        return []
    if not isinstance(first, dict) or not _is_percent(first.get("recall")) or not is_number(first.get("n_reranked")):
        raise DataError(f'{path}: "first_stage" must hold "recall", from 0 to 100, and "n_reranked"')
    metric = f"{CEILING}@{first['n_reranked']:.0f}"
    return [{**common, "metric": metric, "score": first["recall"], "low": math.nan, "high": math.nan}]


def published_sets() -> tuple[str, ...]:
    """Return the data sets over which the published figures are averaged."""
    return tuple(load_koe5()["sets"])


def published_source() -> str:
    """Return where the published figures come from."""
    return str(load_koe5()["source"])


def _read_published() -> Rows:
    found = load_koe5()
    over = "mean of " + ", ".join(found["sets"])
    common = {"retriever": "dense", "source": PUBLISHED, "data set": over, "low": math.nan, "high": math.nan}
    return [
        {"model": model, "metric": metric, "score": score, **common}
        for model, scores in found["results"].items()
        for metric, score in zip(found["metrics"], scores, strict=True)
    ]


def _read_count(value: object) -> object:
    return value if is_number(value) else math.nan


def _is_percent(value: object) -> bool:
    return is_number(value) and -1e-6 <= value <= 100 + 1e-6  # type: ignore[operator]
