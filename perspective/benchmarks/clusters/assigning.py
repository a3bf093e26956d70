"""Measure the assignment of new texts against the labels.

1. Unseen texts: cluster 80% of the texts, assign the other 20%; beside that, cluster all texts again. ACC and NMI on
   the 20%.
2. Unknown classes: cluster the texts of 80% of the classes, without a fifth of them; assign that fifth and the texts
   of the other classes. How many belong nowhere, and which clusters are added among them.

Reads:  datasets/<dataset>/small.jsonl with labels; measures/<dataset>_small_embeds_<embedder>.npy
Writes: measures/benchmark_assigning.json

python -m perspective.benchmarks.clusters.assigning
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import dump_json, read_json, read_vectors, write_text
from perspective.cli import entry_point, parse_settings
from perspective.clustering.kmeans import cluster_vectors
from perspective.data.corpus import CorpusSettings
from perspective.description.assignment import assign_vectors
from perspective.description.clusters import build_clustering
from perspective.description.edits import Edits
from perspective.description.files import Anchors
from perspective.description.finding import find_clusters
from perspective.description.new_texts import NewTexts, find_added
from perspective.description.settings import ClusterSettings
from perspective.evaluation.clustering_scores import clustering_accuracy
from perspective.evaluation.labels import require_labels
from perspective.layout import MEASURES, Layout
from perspective.options import option
from perspective.vectors import normalize_rows

logger = logging.getLogger(__name__)

SHARE = 0.2  # of texts that are new, and of classes that are unknown
FIRST_NEW_ID = 10**6  # only to tell added clusters apart


@dataclass(frozen=True)
class AssigningSettings:
    """What is measured."""

    datasets: list[str] = option("data sets", default=["banking77", "clinc"], group="input", aliases=("--dataset",))
    embedder: str = option("the embedder", default="minilm", group="model")
    seeds: list[int] = option("seeds of the split and of k-means", default=[100, 13, 21])


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(AssigningSettings, argv, __doc__)
    path = MEASURES / "benchmark_assigning.json"
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    for name in settings.datasets:
        vectors, labels = load(name, settings)
        runs = [
            {"seed": seed, **measure_unseen(vectors, labels, seed), **measure_unknown(vectors, labels, seed)}
            for seed in settings.seeds
        ]
        results.setdefault("datasets", {})[name] = runs
        logger.info("%s: %s", name, runs)
        write_text(path, dump_json(results))


def load(name: str, settings: AssigningSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows and the class numbers of a data set."""
    labels = require_labels(CorpusSettings(name))
    vectors = read_vectors(Layout(name, "small", settings.embedder).embeds, len(labels))
    return normalize_rows(vectors), np.unique(np.array(labels, dtype=str), return_inverse=True)[1]


def measure_unseen(vectors: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Assign the unseen texts to the clusters of the others; cluster all; score both on the unseen texts."""
    order = np.random.default_rng(seed).permutation(len(labels))
    unseen, known = np.split(order, [int(SHARE * len(order))])
    n_classes = int(labels.max()) + 1
    anchors = make_anchors(vectors[known], n_classes, seed)
    assigned = assign_vectors(vectors[unseen], anchors).cluster
    again = cluster_vectors(vectors, n_classes, seed)[unseen]
    return {"assigned": score(labels[unseen], assigned), "clustered_again": score(labels[unseen], again)}


def measure_unknown(vectors: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Assign texts of classes that no cluster is about."""
    rng = np.random.default_rng(seed)
    n_classes = int(labels.max()) + 1
    n_unknown = int(SHARE * n_classes)
    is_unknown = np.isin(labels, rng.permutation(n_classes)[:n_unknown])
    unknown, rest = np.flatnonzero(is_unknown), rng.permutation(np.flatnonzero(~is_unknown))
    unseen, known = np.split(rest, [int(SHARE * len(rest))])
    anchors = make_anchors(vectors[known], n_classes - n_unknown, seed)
    result: dict[str, Any] = {
        "nowhere_of_known_classes": float(assign_vectors(vectors[unseen], anchors).outlier.mean()),
        "nowhere_of_unknown_classes": float(assign_vectors(vectors[unknown], anchors).outlier.mean()),
        "unknown_classes": n_unknown,
        "clusters_added": 0,
    }
    new = NewTexts(vectors[unknown], [""] * len(unknown), Path("unknown classes"))
    added = find_added(new, anchors, FIRST_NEW_ID, len(known), seed)
    if added:
        ids = np.array([one.id for one in added.clusters])
        both = Anchors(
            np.vstack([anchors.centers, added.centers]), np.concatenate([anchors.ids, ids]), anchors.outlier_cosine
        )
        found = assign_vectors(vectors[unknown], both).cluster
        moved = assign_vectors(vectors[unseen], both).cluster
        result |= {
            "clusters_added": len(ids),
            "in_added": float((found >= FIRST_NEW_ID).mean()),
            "known_in_added": float((moved >= FIRST_NEW_ID).mean()),
            "NMI_in_added": score(labels[unknown][found >= FIRST_NEW_ID], found[found >= FIRST_NEW_ID])["NMI"],
        }
    return result


def make_anchors(vectors: np.ndarray, n_clusters: int, seed: int) -> Anchors:
    """Cluster and return the centres."""
    found = find_clusters(vectors, ClusterSettings(n_clusters=n_clusters), seed)
    return build_clustering(vectors, list(map(str, range(len(vectors)))), found, "kmeans", Edits())[1]


def score(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Return ACC and NMI in percent."""
    from sklearn.metrics import normalized_mutual_info_score

    return {
        "ACC": round(100 * clustering_accuracy(labels, clusters), 2),
        "NMI": round(100 * float(normalized_mutual_info_score(labels, clusters)), 2),
    }


if __name__ == "__main__":
    main()
