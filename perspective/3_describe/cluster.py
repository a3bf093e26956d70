"""Cluster the texts: cluster, confidence and outlier flag of each, and a tree over the clusters.

Reads:  the vectors of the fine-tuned embedder, or --feat_path; clusters/<run>-count.json, unless --n_clusters;
        clusters/<run>-edits.yaml, a person's edits
Writes: clusters/<run>-clusters.json, -centers.npy, -texts.parquet, -texts.csv; -found.npy, the clusters before
        edits, and -anchors.npz, by which assign.sh assigns; an -edits.yaml that shows how to edit

python -m perspective.3_describe.cluster --dataset banking77
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from perspective.artifacts import Output, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.description.edits import write_template
from perspective.description.files import read_count
from perspective.description.settings import ClusterSettings
from perspective.layout import Layout
from perspective.options import LearnedRunOptions, OutputOptions, VectorOptions


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Cluster."""
    kinds = (CorpusSettings, LearnedRunOptions, VectorOptions, ClusterSettings, OutputOptions)
    corpus, run, given, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(corpus, run)
    files = layout.description.inside(out.folder)
    texts = load_texts(corpus)
    embeddings = Path(given.feat_path or layout.after_embeds)
    if settings.method == "kmeans" and settings.n_clusters is None:
        settings = replace(settings, n_clusters=read_count(files).n_clusters)
    made_from = {**asdict(settings), "seed": run.seed, "scale": corpus.scale}
    output = Output(files.found, "found clusters", made_from, {"embeddings": embeddings, "texts": corpus.path})
    is_found = output.is_finished(out.overwrite, quiet=True)
    from perspective.description.clusters import find_free_id, write_clusters, write_found

    if not is_found:
        write_found(output, files, read_vectors(embeddings, len(texts)), texts, settings, run.seed, corpus.scale)
    if not files.edits.exists():
        write_template(files.edits, find_free_id(files))
    write_clusters(files, embeddings, texts)


if __name__ == "__main__":
    main()
