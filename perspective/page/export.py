"""One table with what is known about each text that the map shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perspective.artifacts import display_path, read_sidecar
from perspective.description.files import make_table, read_clustering, read_names
from perspective.errors import DataError
from perspective.layout import ClusterFiles
from perspective.page.map import read_map

if TYPE_CHECKING:
    import pyarrow as pa


def make_map_table(files: ClusterFiles) -> pa.Table:
    """Return the rows of texts with the name of their cluster and their places before and after.

    Texts that the map leaves out are left out here too.

    Raises:
        DataError: The map was drawn of other vectors than those that the clusters were found in.
    """
    import pyarrow as pa

    clustering, names = read_clustering(files), read_names(files)
    drawn, clustered = read_sidecar(files.map), read_sidecar(files.clusters)
    if drawn and clustered and clustered.inputs.get("embeddings") not in drawn.inputs.values():
        raise DataError(f"{display_path(files.map)}: of other vectors than the clusters; run draw_map.sh again")
    text_map = read_map(files.map, len(clustering.texts))
    table = make_table(clustering.texts, clustering.assignment).take(text_map.rows)
    ids = table["cluster"].to_pylist()
    columns = {
        "name": pa.array([names.get(id_, f"cluster {id_}" if id_ >= 0 else "belongs nowhere") for id_ in ids]),
        "x": pa.array(text_map.after[:, 0]),
        "y": pa.array(text_map.after[:, 1]),
        "x_before": pa.array(text_map.before[:, 0]),
        "y_before": pa.array(text_map.before[:, 1]),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table
