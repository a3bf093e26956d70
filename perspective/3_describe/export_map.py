"""Write one table with what is known about each text, for programs that explore it.

Reads:  the clusters, their names and the map
Writes: clusters/<run>-explore.parquet: row, text, cluster, name, confidence, outlier, x and y after, x_before and
        y_before; prints its path

python -m perspective.3_describe.export_map --dataset banking77
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from perspective.artifacts import Output
from perspective.cli import entry_point, parse_settings
from perspective.layout import Layout
from perspective.options import DatasetOptions, LearnedRunOptions, OutputOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Export."""
    data, run, out = parse_settings((DatasetOptions, LearnedRunOptions, OutputOptions), argv, __doc__)
    layout = Layout.of(data, run)
    files = layout.description.inside(out.folder)
    inputs = {"map": files.map, "clusters": files.clusters, "texts": files.texts}
    inputs |= {"names": files.names} if files.names.exists() else {}
    output = Output(files.explore, "table to explore", {}, inputs)
    if out.overwrite or not output.is_current():
        import pyarrow.parquet as pq

        from perspective.page.export import make_map_table

        with output.open() as temporary:
            pq.write_table(make_map_table(files), temporary)
    sys.stdout.write(f"{output.path}\n")


if __name__ == "__main__":
    main()
