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

from perspective.artifacts import Output, read_sidecar
from perspective.artifacts.sidecar import Sidecar
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.description.edits import write_template
from perspective.description.files import read_count
from perspective.description.records import GIVEN
from perspective.description.settings import ClusterSettings
from perspective.layout import ClusterFiles, Layout
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
    made = read_sidecar(files.found) if files.found.exists() and not out.overwrite else None
    is_given, was_given = settings.n_clusters is not None, made is not None and made.facts.get("n_clusters_given")
    if settings.method == "kmeans" and not is_given:
        settings = replace(settings, n_clusters=_find_number(files, made if was_given else None))
    made_from = {**asdict(settings), "seed": run.seed, "scale": corpus.scale}
    output = Output(files.found, "found clusters", made_from, {"embeddings": embeddings, "texts": corpus.path})
    output.facts["n_clusters_given"] = is_given
    # A number that nobody gave gives way, and what was clustered by it.
    gives_way = not (is_given and was_given) and _differs_in_number(made, output, is_given)
    is_found = output.is_finished(out.overwrite or gives_way, quiet=True)
    from perspective.description.clusters import find_free_id, write_clusters, write_found

    if not is_found:
        vectors = output.read_vectors("embeddings", len(texts))
        write_found(output, files, vectors, texts, settings, run.seed, corpus.scale)
    if not files.edits.exists():
        write_template(files.edits, find_free_id(files))
    write_clusters(files, embeddings, texts)


def _find_number(files: ClusterFiles, made: Sidecar | None) -> int:
    """Return the number of clusters: that of an earlier call, if it was given there, or of count_clusters."""
    if made and not (files.count.exists() and read_count(files).criterion == GIVEN):
        return int(made.settings["n_clusters"])
    return read_count(files).n_clusters


def _differs_in_number(made: Sidecar | None, output: Output, is_given: bool) -> bool:
    """Tell whether clusters differ in their number only, or in that a person gives it now."""
    settings = output.fingerprint.settings
    if made is None or (made.settings == settings and not is_given):
        return False
    alike = {"settings": {**made.settings, "n_clusters": settings["n_clusters"]}}
    return output.is_of_earlier_inputs(made.model_copy(update=alike))


if __name__ == "__main__":
    main()
