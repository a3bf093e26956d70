"""Draw the map of the texts before and after, and the page with all that is known about the clusters.

Reads:  the clusters of cluster.sh, and where they exist names and the number of clusters; the vectors before and
        after fine-tuning; measures, trust and judgments of the run
Writes: clusters/<run>-map.npy: x and y before, x and y after, share of neighbours kept, a row a text;
        clusters/<run>.html, which a browser opens from disk without network

python -m perspective.3_describe.draw_map --dataset banking77
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from perspective.artifacts import Output, display_path, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.description.files import check_embeddings, find_embeddings, read_clustering
from perspective.layout import Layout
from perspective.options import DatasetOptions, LearnedRunOptions, OutputOptions, option
from perspective.page.map import MapSettings, draw_map, read_map

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapInputs:
    """Other vectors than those of the run."""

    feat_path: str | None = option(
        "vectors before fine-tuning as .npy; default: those of --embedder", default=None, group="input"
    )
    after_path: str | None = option(
        "vectors after fine-tuning as .npy; default: those that were clustered", default=None, group="input"
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Draw."""
    kinds = (DatasetOptions, LearnedRunOptions, MapInputs, MapSettings, OutputOptions)
    data, run, given, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(data, run)
    files = layout.description.inside(out.folder)
    clustering = read_clustering(files)
    inputs = {
        "before": Path(given.feat_path or layout.embeds),
        "after": Path(given.after_path or find_embeddings(files)),
    }
    check_embeddings(files)
    vectors_before, vectors_after = (read_vectors(path, len(clustering.texts)) for path in inputs.values())
    map_output = Output(files.map, "map", asdict(settings), inputs)
    if out.overwrite or not map_output.is_current():
        logger.info("drawing the map of %d texts, before and after", len(vectors_before))
        map_output.write_vectors(draw_map(vectors_before, vectors_after, settings).to_array(len(vectors_before)))
    else:
        map_output.log_finished()

    from perspective.page import assemble_page, build_content, hash_parts
    from perspective.page.sources import describe_run, list_sources

    sources = list_sources(files, layout, **inputs)
    page = Output(files.page, "page", {"title": data.dataset, "parts": hash_parts()}, sources)
    if out.overwrite or not page.is_current():
        text_map = read_map(files.map, len(vectors_before))
        description = describe_run(sources, files, data.dataset, clustering, text_map, vectors_before, vectors_after)
        page.facts |= {"n_shown": len(text_map.rows)}
        with page.open() as temporary:
            temporary.write_text(assemble_page(build_content(description)), encoding="utf-8")
        if description.measures is None:
            sys.stdout.write(description.verdict.format_text() + "\n")
    else:
        page.log_finished()
    sys.stdout.write(f"open {display_path(files.page)}\n")


if __name__ == "__main__":
    main()
