"""Cells of a study: a file each, from which a killed study resumes, and a file of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from perspective.artifacts import Output, dump_json, read_json, write_text


def cell_path(results: Path, name: str) -> Path:
    """Return the file of a cell: it lies in the folder that is named as the results."""
    return results.with_suffix("") / f"cell-{name.replace(' ', '_')}.json"


def measure_cell(cell: Output, measure: Callable[[], dict[str, Any]], **more: str) -> None:
    """Write what a cell measures, more that is to be shown with it, and the seconds of processor time that it took."""
    started = time.process_time()
    cell.write_json({**measure(), **more, "processor_seconds": round(time.process_time() - started)})


def gather_cells(results: Path, cells: Collection[str], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Write the results: the sizes of the study and all cells that are measured, those of earlier runs too."""
    found = read_json(results).get("cells", {}) if results.exists() else {}
    found |= {name: read_json(path) for name in cells if (path := cell_path(results, name)).exists()}
    gathered = {"sizes": sizes, "cells": {name: found[name] for name in cells if name in found}}
    write_text(results, dump_json(gathered))
    return gathered
