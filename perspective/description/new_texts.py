"""Assign new texts to the clusters, in bounded memory, and add clusters that form among those that fit none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from perspective.artifacts import Output, atomic_path, hash_file, hash_texts, keep_block, read_vectors
from perspective.artifacts.reading import forget_pages
from perspective.clustering.distances import square_lengths
from perspective.description.added import AddedClusters
from perspective.description.assignment import ROWS_AT_A_TIME, assign_vectors
from perspective.description.clusters import (
    N_REPRESENTATIVES,
    apply_changed_edits,
    find_free_id,
    read_sources,
    write_clusters,
)
from perspective.description.edits import Edits, load_edits
from perspective.description.files import (
    Anchors,
    Assignment,
    find_embeddings,
    read_all_texts,
    read_anchors,
    read_clusters,
    read_names,
    read_rows,
)
from perspective.description.records import NOWHERE, Cluster
from perspective.errors import DataError
from perspective.layout import ClusterFiles
from perspective.vectors import average_by_cluster, normalize_rows, sample_rows

logger = logging.getLogger(__name__)

BLOCK_TEXTS = 2**15  # texts embedded at a time, and kept when a run is killed
N_OUTLIERS = 5_000  # among more outliers, clusters are looked for in a random sample
MIN_ADDED = 5  # texts of a cluster that is added, at least
LOOSEST = 0.1
N_EXAMPLES = 50  # texts of an added cluster that are kept for naming


@dataclass(frozen=True)
class NewTexts:
    """New texts with their vectors.

    Attributes:
        vectors: `(n_texts, dim)`, of `read_vectors`, which refuses NaN and infinity; mapped into memory.
        texts: The texts; None where only vectors are given.
        path: File of the vectors, for messages.
    """

    vectors: np.ndarray
    texts: Sequence[str] | None
    path: Path

    def blocks(self, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the row numbers and the vectors of a block of rows after another."""
        n_rows = len(self.vectors) if rows is None else len(rows)
        for start in range(0, n_rows, ROWS_AT_A_TIME):
            stop = min(start + ROWS_AT_A_TIME, n_rows)
            chosen = np.arange(start, stop) if rows is None else rows[start:stop]
            yield chosen, np.asarray(self.vectors[start:stop] if rows is None else self.vectors[chosen], np.float32)
            forget_pages(self.vectors)


def write_vectors_of(output: Output, texts: Sequence[str], load: Callable[[], Callable[..., np.ndarray]]) -> None:
    """Embed new texts block by block and write their vectors; a killed run resumes.

    Args:
        output: The file to write.
        texts: The texts.
        load: Loads the function that embeds a list of texts.
    """
    folder = output.open_partial()
    load_once = cache(load)  # not at all if every block is there

    def embed(block: Sequence[str]) -> np.ndarray:
        return load_once()(block)

    blocks = []
    for start in range(0, len(texts), BLOCK_TEXTS):
        block = texts[start : start + BLOCK_TEXTS]
        path = folder / f"{start:09d}.npy"
        keep_block(path, len(block), partial(embed, block))
        blocks.append(path)
    dim = read_vectors(blocks[0]).shape[1]
    with output.open() as temporary:
        # A name without ending, which numpy keeps only in an open file.
        whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=(len(texts), dim))
        for path in blocks:
            start = int(path.stem)
            block_vectors = read_vectors(path)
            whole[start : start + len(block_vectors)] = block_vectors
        whole.flush()
    output.discard_partial()


def assign_new_texts(
    files: ClusterFiles, new: NewTexts, source: Path, update: bool = False, seed: int = 0, overwrite: bool = False
) -> None:
    """Assign new texts and write the result, unless it is there; clusters made with other edits are made again.

    Args:
        files: The clusters.
        new: The new texts.
        source: Their file, which names the result.
        update: Whether clusters that form among texts that belong nowhere are added, once for each file of vectors.
        seed: Random seed of the sample in which they are looked for.
        overwrite: Whether an existing result is replaced in any case.

    Raises:
        DataError: There are no clusters, or they or the new vectors are of another model.
    """
    apply_changed_edits(files)
    anchors = read_anchors(files)
    if new.vectors.shape[1] != anchors.centers.shape[1]:
        raise DataError(
            f"{new.path}: vectors of {new.vectors.shape[1]} dimensions, the clusters' have {anchors.centers.shape[1]}; "
            "embed with the model of the clusters"
        )
    inputs = {"vectors": new.path, "edits": files.edits}
    if update and (digest := hash_file(new.path)) not in read_sources(files):
        n_known = len(read_all_texts(files))
        added = find_added(new, anchors, find_free_id(files), n_known, seed)
        logger.info("%d clusters added", len(added.clusters) if added else 0)
        if added:
            write_clusters(files, find_embeddings(files), read_rows(files.texts)[0], added, digest)
            anchors = read_anchors(files)
    inputs |= {"clusters": files.clusters, **({"names": files.names} if files.names.exists() else {})}
    texts = hash_texts(new.texts) if new.texts else None
    output = Output(files.assigned(source), "assigned texts", {"texts": texts}, inputs)
    if not overwrite and output.is_current() and output.path.with_suffix(".csv").exists():
        output.log_finished()
        return
    edits = load_edits(files.edits)
    write_assignment(
        output, new, anchors, read_names(files) | edits.rename, edits, read_clusters(files).method == "hdbscan"
    )


def write_assignment(
    output: Output, new: NewTexts, anchors: Anchors, names: dict[int, str], edits: Edits, keep_nowhere: bool
) -> None:
    """Write cluster, name, confidence and outlier flag of each new text, as Parquet and as CSV.

    Args:
        output: The Parquet file; the CSV file gets the same name.
        new: The new texts.
        anchors: Centres by which they are assigned.
        names: Name by id of a cluster.
        edits: A person's edits; a new text that is equal to a pinned one has its cluster.
        keep_nowhere: Whether a text that belongs nowhere has no cluster, as with HDBSCAN; otherwise the nearest.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table_path = output.path.with_suffix(".csv")
    known = {*anchors.ids.tolist(), NOWHERE}
    pins = {text: wanted for text, wanted in edits.pin.items() if wanted in known}
    n_outliers = 0
    with ExitStack() as stack:
        temporary = stack.enter_context(output.open())
        csv = stack.enter_context(atomic_path(table_path))
        writers: list[pa.parquet.ParquetWriter | pa.csv.CSVWriter] = []
        progress = stack.enter_context(tqdm(total=len(new.vectors), desc="assigning", unit="text"))
        closing = stack.enter_context(ExitStack())  # closed before the files are renamed
        for rows, block in new.blocks():
            texts = None if new.texts is None else new.texts[rows[0] : rows[-1] + 1]
            found = assign_vectors(block, anchors)
            if keep_nowhere:
                found.cluster[found.outlier], found.confidence[found.outlier] = NOWHERE, 0
            for place, text in enumerate(texts or ()):
                if text in pins:
                    found.cluster[place], found.confidence[place] = pins[text], 1
                    found.outlier[place] = pins[text] == NOWHERE
            n_outliers += int(found.outlier.sum())
            columns = {
                "row": pa.array(rows),
                "cluster": pa.array(found.cluster),
                "name": pa.array([names.get(one, "") for one in found.cluster.tolist()], pa.string()),
                "confidence": pa.array(found.confidence),
                "outlier": pa.array(found.outlier),
            }
            if texts is not None:
                columns["text"] = pa.array(texts, pa.string())
            table = pa.table(columns)
            if not writers:
                writers += [pa.parquet.ParquetWriter(temporary, table.schema), pa.csv.CSVWriter(csv, table.schema)]
                for writer in writers:
                    closing.enter_context(writer)
            for writer in writers:
                writer.write_table(table)
            progress.update(len(rows))
        output.facts |= {"n_texts": len(new.vectors), "n_outliers": n_outliers}
    logger.info("%d new texts, %d of them belong nowhere", len(new.vectors), n_outliers)


def find_added(new: NewTexts, anchors: Anchors, free: int, n_texts: int, seed: int) -> AddedClusters | None:
    """Look for clusters among the new texts that belong nowhere.

    They are joined into groups that are about as tight as the known clusters: the mean cosine of two texts of
    a cluster is the squared length of its centre, and groups need that of the loosest tenth. A group is added
    if at least `MIN_ADDED` new texts are as near to its centre as texts of the known clusters are to theirs.

    Args:
        new: The new texts.
        anchors: Centres of the known clusters.
        free: Id of the first cluster that is added.
        n_texts: Number of texts that were clustered before: row of the first example.
        seed: Random seed of the sample.

    Returns:
        The clusters, or None where none forms.
    """
    outliers = [rows[assign_vectors(block, anchors).outlier] for rows, block in new.blocks()]
    rows = np.concatenate(outliers)
    if len(rows) < MIN_ADDED:
        return None
    sample = rows[sample_rows(len(rows), N_OUTLIERS, seed)]
    unit = np.concatenate([normalize_rows(block) for _, block in new.blocks(sample)])
    found = _group(unit, float(np.quantile(square_lengths(anchors.centers), LOOSEST)))
    centers = average_by_cluster(unit, found, int(found.max()) + 1)
    centers = centers[np.bincount(found) >= MIN_ADDED]
    if not len(centers):
        return None
    candidates = Anchors(centers, np.arange(len(centers)), anchors.outlier_cosine)
    places = [assign_vectors(block, candidates) for _, block in new.blocks(rows)]
    cluster, confidence, outlier = (
        np.concatenate([getattr(place, name) for place in places]) for name in ("cluster", "confidence", "outlier")
    )
    kept = Assignment(np.where(outlier, NOWHERE, cluster), confidence, outlier)
    return _describe_added(new, rows, kept, centers, free, n_texts)


def _group(unit: np.ndarray, least_cosine: float) -> np.ndarray:
    """Join rows while the mean cosine between two groups is high enough: average linkage; `(n,)` numbers from 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = np.maximum(1 - unit @ unit.T, 0)
    np.fill_diagonal(distances, 0)
    return fcluster(linkage(squareform(distances, checks=False), "average"), 1 - least_cosine, "distance") - 1


def _describe_added(
    new: NewTexts, rows: np.ndarray, found: Assignment, centers: np.ndarray, free: int, n_texts: int
) -> AddedClusters | None:
    assert new.texts is not None  # without texts nothing could be named
    clusters: list[Cluster] = []
    texts: list[str] = []
    chosen_centers, ids, confidence = [], [], []
    for number, center in enumerate(centers):
        members = np.flatnonzero(found.cluster == number)
        if len(members) < MIN_ADDED:
            continue
        direction = center / np.linalg.norm(center)
        cosines = np.concatenate([normalize_rows(block) @ direction for _, block in new.blocks(rows[members])])
        central = members[np.argsort(-cosines, kind="stable")[:N_EXAMPLES]]
        first = n_texts + len(texts)
        examples = [new.texts[row] for row in rows[central]]
        clusters.append(
            Cluster(
                id=free + len(clusters),
                size=len(members),
                cohesion=float(cosines.mean()),
                representatives=list(range(first, first + min(len(examples), N_REPRESENTATIVES))),
            )
        )
        chosen_centers.append(center)
        texts += examples
        ids += [clusters[-1].id] * len(examples)
        confidence += found.confidence[central].tolist()
    if not clusters:
        return None
    assignment = Assignment(np.array(ids, int), np.array(confidence, np.float32), np.zeros(len(ids), bool))
    return AddedClusters(clusters, np.stack(chosen_centers), texts, assignment)
