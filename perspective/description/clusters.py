"""Build the clusters of stage 3 from the clustering, a person's edits and clusters that were added later."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from perspective.artifacts import Output, display_path, hash_file, hash_texts, read_facts, read_sidecar, read_vectors
from perspective.description.added import AddedClusters, join_added
from perspective.description.assignment import assign_vectors, find_outlier_cosine
from perspective.description.edits import Edits, apply_edits, list_unknown_names, load_edits
from perspective.description.files import (
    Anchors,
    Clustering,
    check_embeddings,
    find_embeddings,
    finish_writing,
    make_table,
    read_anchors,
    read_clustering,
    read_rows,
    write_clustering,
)
from perspective.description.finding import find_clusters, keep_ids
from perspective.description.records import NOWHERE, Branch, Cluster, Clusters
from perspective.description.settings import ClusterSettings
from perspective.errors import DataError
from perspective.layout import ClusterFiles
from perspective.options import Scale
from perspective.vectors import average_by_cluster, normalize_rows

logger = logging.getLogger(__name__)

Method = Literal["kmeans", "hdbscan"]

N_REPRESENTATIVES = 10
N_NEAR_CLUSTERS, N_CONTRASTS = 3, 2  # contrasts: two central texts of each of the three nearest clusters
FIRST_BRANCH = 100_000  # ids of branches: far above those of clusters, which grow


def write_found(
    output: Output,
    files: ClusterFiles,
    vectors: np.ndarray,
    texts: list[str],
    settings: ClusterSettings,
    seed: int,
    scale: Scale,
) -> None:
    """Find clusters and write the id of each text; clusters of an earlier run keep their ids.

    Args:
        output: Of `files.found`.
        files: Where an earlier run is looked for.
        vectors: Array `(n_texts, dim)`.
        texts: The texts.
        settings: How clusters are found.
        seed: Random seed.
        scale: As in `cluster_vectors`.
    """
    found, free = find_clusters(normalize_rows(vectors), settings, seed, scale), find_free_id(files)
    if earlier := _read_earlier(files):
        found = keep_ids(found, texts, *earlier, free)
    output.facts |= {
        "method": settings.method,
        "highest_id": max(free - 1, int(found.max())),
        "n_texts": len(texts),
        "n_clusters": len(set(found.tolist()) - {NOWHERE}),
    }
    with output.open() as temporary, temporary.open("wb") as file:
        np.save(file, found, allow_pickle=False)


def write_clusters(
    files: ClusterFiles,
    embeddings: Path,
    texts: Sequence[str],
    added: AddedClusters | None = None,
    source: str = "",
) -> None:
    """Write the clusters and all that belongs to them, unless they are there and made from the same.

    A person's changed edits are applied to what was found; nothing is clustered again.

    Args:
        files: Where `found` and the edits are, and where the clusters are written.
        embeddings: Vectors of the texts.
        texts: The texts.
        added: Clusters to add to those that were added before.
        source: sha256 of the vectors in which they were found.
    """
    finish_writing(files)
    edits = load_edits(files.edits)
    inputs = {"found": files.found, "embeddings": embeddings, "edits": files.edits}
    output = Output(files.clusters, "clusters", {"texts": hash_texts(texts)}, inputs)
    if added is None and _is_current(output, files):
        output.log_finished()
        return
    vectors, found = read_vectors(embeddings, len(texts)), np.load(files.found, allow_pickle=False)
    earlier = _read_added(files, output.fingerprint.inputs["embeddings"])
    sources = [*(read_sources(files) if earlier else []), *([source] if source else [])]
    everything = join_added(earlier, added)
    method = read_facts(files.found)["method"]
    clustering, anchors, remarks = build_clustering(vectors, texts, found, method, edits, everything)
    for remark in remarks:
        logger.warning("%s: %s (the edit is kept, but has no effect here)", display_path(files.edits), remark)
    output.facts |= {"n_texts": len(texts), "edits_without_effect": remarks, "updated_from": sources}
    # Parts that a person's edits made keep their ids for themselves, also when the edits are taken back.
    output.facts["highest_id"] = max(_read_highest_id(files.clusters), *(one.id for one in clustering.record.clusters))
    table = make_table(everything.texts, everything.assignment, len(texts)) if everything else None
    write_clustering(output, files, clustering, anchors, table)


def build_clustering(
    vectors: np.ndarray,
    texts: Sequence[str],
    found: np.ndarray,
    method: Method,
    edits: Edits,
    added: AddedClusters | None = None,
) -> tuple[Clustering, Anchors, list[str]]:
    """Apply edits, then compute centres, outliers, confidence and the tree.

    Args:
        vectors: Array `(n_texts, dim)`, of any length.
        texts: The texts.
        found: `(n_texts,)` ids as they were found.
        method: How they were found; with "hdbscan" a text may have none.
        edits: A person's edits.
        added: Clusters that were added later.

    Returns:
        The clusters, the centres by which texts are assigned, and a line for each edit that does not fit.
    """
    unit = normalize_rows(np.asarray(vectors, dtype=np.float32))
    edited = apply_edits(edits, unit, texts, found, 0, {one.id for one in added.clusters} if added else ())
    cluster, remarks = edited.cluster, edited.remarks
    ids = np.unique(cluster[cluster != NOWHERE])
    if not len(ids):
        raise DataError("no text has a cluster; take back some of the pins to -1")
    centers = _average(unit, cluster, ids, edited.pinned)
    anchor_centers, anchor_ids, place = _make_anchors(unit, found, cluster, edited.pinned, ids, centers)
    cosine = find_outlier_cosine(unit, anchor_centers, place)
    if added:
        anchor_centers = np.vstack([anchor_centers, added.centers])
        anchor_ids = np.concatenate([anchor_ids, [one.id for one in added.clusters]])
    anchors = Anchors(anchor_centers, anchor_ids, cosine)
    assignment = assign_vectors(unit, anchors, cluster)
    assignment.outlier[cluster == NOWHERE] = True
    assignment.outlier[edited.pinned] = cluster[edited.pinned] == NOWHERE
    assignment.confidence[edited.pinned] = 1
    if method == "hdbscan":  # its own verdict
        assignment = replace(assignment, outlier=cluster == NOWHERE)
    clusters = _describe(unit, texts, cluster, ids, centers)
    if added:
        clusters, centers = clusters + added.clusters, np.vstack([centers, added.centers])
        order = np.argsort([one.id for one in clusters])
        clusters, centers = [clusters[place] for place in order], centers[order]
    tree = build_tree(clusters, centers)
    remarks += list_unknown_names(edits, {*(one.id for one in clusters), *(branch.id for branch in tree)})
    record = Clusters(method=method, clusters=clusters, tree=tree, outlier_cosine=cosine)
    return Clustering(record, centers, texts, assignment), anchors, remarks


def build_tree(clusters: Sequence[Cluster], centers: np.ndarray) -> list[Branch]:
    """Return the merges of Ward's criterion over the centres, from the leaves up.

    The clusters of a branch decide its id: a person's name for it is never that of another branch.
    """
    if len(clusters) < 2:
        return []
    from scipy.cluster.hierarchy import linkage

    sizes = [one.size for one in clusters]
    ids = [one.id for one in clusters]
    leaves = [[one.id] for one in clusters]
    first = max(FIRST_BRANCH, 10 ** len(str(max(ids) + 1)))
    tree = []
    for left, right, height, _ in linkage(centers.astype(np.float64), "ward"):
        one, other = int(left), int(right)
        sizes.append(sizes[one] + sizes[other])
        leaves.append(sorted(leaves[one] + leaves[other]))
        branch = first + zlib.crc32(repr(leaves[-1]).encode()) % (9 * first)
        while branch in ids:  # one tree in a hundred of 150 clusters
            branch += 1
        ids.append(branch)
        tree.append(Branch(id=branch, children=(ids[one], ids[other]), height=float(height), size=sizes[-1]))
    return tree


def find_free_id(files: ClusterFiles) -> int:
    """Return the first id that no cluster has or had, and that no edit mentions."""
    # Not those of branches, which a person may have renamed.
    used = {NOWHERE, *(one for one in load_edits(files.edits).list_ids() if one < FIRST_BRANCH)}
    used |= {_read_highest_id(files.found), _read_highest_id(files.clusters)}
    if earlier := _read_earlier(files):
        used.add(int(earlier[0].max()))
    if old := _read_if_whole(files):
        used.update(one.id for one in old.record.clusters)
    return max(used) + 1


def _read_highest_id(path: Path) -> int:
    try:
        return int(read_facts(path).get("highest_id", NOWHERE))
    except DataError as error:  # a damaged sidecar
        logger.warning("%s", error)
        return NOWHERE


def _read_earlier(files: ClusterFiles) -> tuple[np.ndarray, list[str]] | None:
    """Return the clusters that were found before, and their texts; None where these are missing or damaged."""
    if not files.found.exists() or not files.texts.exists():
        return None
    try:
        ids, (texts, _) = np.load(files.found, allow_pickle=False), read_rows(files.texts)
    except (DataError, ValueError, EOFError) as error:
        logger.warning("%s: damaged, so that clusters get new ids (%s)", display_path(files.found), error)
        return None
    return (ids, list(texts)) if len(ids) == len(texts) and len(ids) else None


def read_sources(files: ClusterFiles) -> list[str]:
    """Return the sha256 of the new vectors from which clusters were added."""
    return list(read_facts(files.clusters).get("updated_from", []))


def apply_changed_edits(files: ClusterFiles) -> None:
    """Make the clusters again if the edits were changed since.

    Raises:
        DataError: The clusters are damaged, or their vectors were made again since or are not there any more.
    """
    finish_writing(files)
    embeddings, made = find_embeddings(files), read_sidecar(files.clusters)
    if not files.edits.exists():
        raise DataError(f"{files.edits}: no such file; run cluster.sh first, it writes an empty one")
    check_embeddings(files)
    if made and made.inputs.get("edits") != hash_file(files.edits):
        write_clusters(files, embeddings, read_rows(files.texts)[0])


def _is_current(output: Output, files: ClusterFiles) -> bool:
    """Tell whether the clusters are whole and made from the same; those that are not are made again."""
    if not output.is_current() or not files.table.exists():
        return False
    try:
        read_clustering(files)
        read_anchors(files)
    except DataError:
        return False
    return True


def _read_if_whole(files: ClusterFiles) -> Clustering | None:
    """Return the clusters; None if there are none, or if they are damaged and will be made again."""
    if not files.clusters.exists():
        return None
    try:
        return read_clustering(files)
    except DataError as error:
        logger.warning("%s", error)
        return None


def _average(unit: np.ndarray, cluster: np.ndarray, ids: np.ndarray, pinned: np.ndarray) -> np.ndarray:
    """Return the mean of each cluster's rows; pinned texts count only where there are no others."""
    only_pinned = np.setdiff1d(ids, cluster[~pinned])
    counted = (cluster != NOWHERE) & (~pinned | np.isin(cluster, only_pinned))
    return average_by_cluster(unit[counted], np.searchsorted(ids, cluster[counted]), len(ids))


def _make_anchors(
    unit: np.ndarray, found: np.ndarray, cluster: np.ndarray, pinned: np.ndarray, ids: np.ndarray, centers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the centre of each part of each cluster, its cluster, and the part of each text (-1 for none).

    A part is what was found as one cluster: clusters that a person merged may lie far apart.
    """
    counted = np.flatnonzero((cluster != NOWHERE) & ~pinned)
    place = np.full(len(cluster), -1)
    if not len(counted):
        return centers, ids, place
    pairs, part = np.unique(np.stack([found[counted], cluster[counted]]), axis=1, return_inverse=True)
    part = part.ravel()
    place[counted] = part
    anchor_centers, anchor_ids = average_by_cluster(unit[counted], part, pairs.shape[1]), pairs[1]
    only_pinned = ~np.isin(ids, anchor_ids)
    return np.vstack([anchor_centers, centers[only_pinned]]), np.concatenate([anchor_ids, ids[only_pinned]]), place


def _describe(
    unit: np.ndarray, texts: Sequence[str], cluster: np.ndarray, ids: np.ndarray, centers: np.ndarray
) -> list[Cluster]:
    directions = normalize_rows(centers)
    central, cohesion, sizes = [], [], []
    for number, direction in zip(ids, directions, strict=True):
        rows = np.flatnonzero(cluster == number)
        cosines = unit[rows] @ direction
        order = rows[np.argsort(-cosines, kind="stable")].tolist()
        distinct: dict[str, int] = {}  # one of several equal texts says as much
        for row in order:
            distinct.setdefault(texts[row], row)
            if len(distinct) == N_REPRESENTATIVES:
                break
        central.append(list(distinct.values()))
        cohesion.append(float(np.clip(cosines.mean(), -1, 1)))
        sizes.append(len(rows))
    similarity = directions @ directions.T
    np.fill_diagonal(similarity, -np.inf)
    near = np.argsort(-similarity, axis=1, kind="stable")[:, : min(N_NEAR_CLUSTERS, len(ids) - 1)]
    return [
        Cluster(
            id=int(number),
            size=sizes[place],
            cohesion=cohesion[place],
            representatives=central[place],
            contrasts=[row for other in near[place] for row in central[other][:N_CONTRASTS]],
        )
        for place, number in enumerate(ids)
    ]


def _read_added(files: ClusterFiles, embeddings: str) -> AddedClusters | None:
    """Return the clusters that were added before; None if there are none, or if they are of other vectors.

    Args:
        files: Where they are.
        embeddings: sha256 of the vectors that are clustered now.
    """
    if not files.added.exists() or not (old := _read_if_whole(files)):
        return None
    texts, assignment = read_rows(files.added)
    added = set(assignment.cluster.tolist())
    places = [place for place, one in enumerate(old.record.clusters) if one.id in added]
    made = read_sidecar(files.clusters)
    if made is None or made.inputs.get("embeddings") != embeddings:
        logger.warning("%d clusters that were added later are dropped: they are of other texts or vectors", len(places))
        files.added.unlink()
        return None
    return AddedClusters([old.record.clusters[place] for place in places], old.centers[places], texts, assignment)
