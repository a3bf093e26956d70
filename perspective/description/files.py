"""Read and write the files of stage 3 that belong together: clusters, centres, one row for each text.

They are replaced together: all are written under other names first, `-clusters.json` is renamed into place, then
the others. A kill in between is finished by whoever reads or writes them next.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.artifacts import ROOT, Output, hash_file, read_facts, read_json, read_sidecar, read_vectors
from perspective.artifacts.provenance import require_unchanged
from perspective.artifacts.sidecar import Sidecar, validate_record
from perspective.artifacts.writing import atomic_path
from perspective.description.records import Clusters, Count, Names
from perspective.errors import DataError
from perspective.layout import ClusterFiles

if TYPE_CHECKING:
    import pyarrow as pa

REMEDY = "run cluster.sh with --overwrite"


@dataclass(frozen=True)
class Assignment:
    """The cluster of each text.

    Attributes:
        cluster: `(n_texts,)` ids; `records.NOWHERE` for a text that belongs to none.
        confidence: `(n_texts,)`, 0 to 1: how much nearer the text is to its cluster than to the next one.
        outlier: `(n_texts,)` booleans: the text is unlike all clusters.
    """

    cluster: np.ndarray
    confidence: np.ndarray
    outlier: np.ndarray


@dataclass(frozen=True)
class Anchors:
    """Centres by which texts are assigned.

    Attributes:
        centers: float32 `(n_anchors, dim)`: means of unit rows.
        ids: `(n_anchors,)` cluster of each; a merged cluster has several.
        outlier_cosine: Cosine to the nearest of them below which a text belongs nowhere.
    """

    centers: np.ndarray
    ids: np.ndarray
    outlier_cosine: float


@dataclass(frozen=True)
class Clustering:
    """Clusters with their vectors and texts.

    Attributes:
        record: The clusters and their tree.
        centers: float32 `(n_clusters, dim)`: mean of each cluster's unit rows, in the order of the record.
        texts: The texts that were clustered.
        assignment: The cluster of each text.
    """

    record: Clusters
    centers: np.ndarray
    texts: Sequence[str]
    assignment: Assignment


def read_count(files: ClusterFiles) -> Count:
    """Read the number of clusters.

    Raises:
        DataError: There is none, or the file is damaged.
    """
    if not files.count.exists():
        raise DataError(f"{files.count}: no such file; run count_clusters.sh first, or give --n_clusters N")
    return validate_record(Count, read_json(files.count), files.count)


def read_clusters(files: ClusterFiles) -> Clusters:
    """Read the clusters and their tree.

    Raises:
        DataError: There are none, or the file is damaged.
    """
    finish_writing(files)
    if not files.clusters.exists():
        raise DataError(f"{files.clusters}: no such file; run cluster.sh first")
    return validate_record(Clusters, read_json(files.clusters), files.clusters)


def read_clustering(files: ClusterFiles) -> Clustering:
    """Read the clusters, their centres and the row of each text.

    Raises:
        DataError: A file is missing, damaged, or of another clustering.
    """
    record = read_clusters(files)
    _check_companions(files)
    centers = read_vectors(files.centers, len(record.clusters))
    texts, assignment = read_rows(files.texts)
    return Clustering(record, centers, texts, assignment)


def read_rows(path: Path) -> tuple[list[str], Assignment]:
    """Read texts and their clusters from `-texts.parquet` or `-added.parquet`.

    Raises:
        DataError: The file is missing or is not such a table.
    """
    import pyarrow.parquet as pq

    if not path.exists():
        raise DataError(f"{path}: no such file; {REMEDY}")
    try:
        table = pq.read_table(path, columns=["cluster", "confidence", "outlier", "text"])
    except Exception as error:  # pyarrow raises a different type for each kind of damage
        raise DataError(f"{path}: cannot be read ({str(error):.160}); {REMEDY}") from None
    columns = (table[name].to_numpy() for name in ("cluster", "confidence", "outlier"))
    return table["text"].to_pylist(), Assignment(*columns)


def read_all_texts(files: ClusterFiles) -> list[str]:
    """Return the texts that `representatives` and `contrasts` point to.

    They are the texts that were clustered, then examples of clusters that `assign.sh --update` added.
    """
    texts, _ = read_rows(files.texts)
    return texts + (read_rows(files.added)[0] if files.added.exists() else [])


def read_anchors(files: ClusterFiles) -> Anchors:
    """Read the centres by which new texts are assigned.

    Raises:
        DataError: The file is missing, damaged, or of another clustering.
    """
    read_clusters(files)
    _check_companions(files)
    try:
        with np.load(files.anchors, allow_pickle=False) as found:
            return Anchors(found["centers"], found["ids"], float(found["outlier_cosine"]))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{files.anchors}: damaged ({str(error):.160}); {REMEDY}") from None


def read_names(files: ClusterFiles) -> dict[int, str]:
    """Return the name of each cluster and branch that has one; empty before `name_clusters.sh`."""
    if not files.names.exists():
        return {}
    found = validate_record(Names, read_json(files.names), files.names)
    return {name.id: name.name for name in found.names}


def make_table(texts: Sequence[str], assignment: Assignment, first_row: int = 0) -> pa.Table:
    """Return the rows of texts, as they are written."""
    import pyarrow as pa

    return pa.table(
        {
            "row": pa.array(np.arange(first_row, first_row + len(texts))),
            "cluster": pa.array(assignment.cluster.astype(np.int64)),
            "confidence": pa.array(assignment.confidence.astype(np.float32)),
            "outlier": pa.array(assignment.outlier.astype(bool)),
            "text": pa.array(texts, pa.string()),
        }
    )


def write_clustering(
    output: Output, files: ClusterFiles, clustering: Clustering, anchors: Anchors, added: pa.Table | None = None
) -> None:
    """Replace the clusters with all that belongs to them.

    Args:
        output: Of `files.clusters`.
        files: Where they are written.
        clustering: Clusters, centres and texts.
        anchors: Centres by which new texts are assigned.
        added: Examples of texts of clusters that were added later; None where there are none.
    """
    import pyarrow.csv
    import pyarrow.parquet

    finish_writing(files)
    table = make_table(clustering.texts, clustering.assignment)
    writers: dict[Path, Callable[[Path], None]] = {
        files.centers: lambda path: _save(path, clustering.centers),
        files.anchors: lambda path: _save(
            path, centers=anchors.centers, ids=anchors.ids, outlier_cosine=anchors.outlier_cosine
        ),
        files.texts: lambda path: pyarrow.parquet.write_table(table, path),
        files.table: lambda path: pyarrow.csv.write_csv(table, path),
    }
    if added is not None:
        writers[files.added] = lambda path: pyarrow.parquet.write_table(added, path)
    hashes = {}
    for path, write in writers.items():
        with atomic_path(_waiting(path)) as temporary:
            write(temporary)
        hashes[path.name] = hash_file(_waiting(path))
    output.facts |= {"n_clusters": len(clustering.record.clusters), "files": hashes}
    output.write_json(clustering.record.model_dump())
    finish_writing(files)


def check_embeddings(files: ClusterFiles) -> None:
    """Raise a DataError if the vectors that were clustered were made again since."""
    embeddings, made = find_embeddings(files), read_sidecar(files.clusters)
    if made and embeddings.exists() and made.inputs.get("embeddings") != hash_file(embeddings):
        raise DataError(f"{files.clusters}: of other vectors than are in {embeddings} now; run cluster.sh again")


def find_embeddings(files: ClusterFiles) -> Path:
    """Return the path of the vectors that were clustered.

    Raises:
        DataError: There are no clusters of this stage.
    """
    made = read_sidecar(files.clusters) if files.clusters.exists() else None
    if made is None:
        raise DataError(f"{files.clusters}: no such file, or not made by this stage; run cluster.sh first")
    return ROOT / made.input_paths["embeddings"]


def require_same_model(clustered: Sidecar | None, model_hash: str, checkpoint: str) -> None:
    """Refuse another model than that of the clustered vectors, where these have a sidecar.

    Args:
        clustered: The vectors' sidecar.
        model_hash: sha256 of the model.
        checkpoint: The model, for the message.

    Raises:
        DataError: It is another one.
    """
    if clustered and clustered.inputs.get("checkpoint") != model_hash:
        raise DataError(f"{checkpoint}: not the model of the clustered vectors; give that one by --checkpoint")


def require_same_texts(files: ClusterFiles, path: Path) -> None:
    """Refuse another file of texts than that of the clusters.

    Raises:
        DataError: It is another one.
    """
    made = read_sidecar(files.found)
    if made and made.inputs.get("texts") not in (None, hash_file(path)):
        raise DataError(f"{path}: other texts than those of the clusters; run cluster.sh on them first")


def require_same_space(files: ClusterFiles, vectors: Path) -> None:
    """Refuse vectors of another model than the clustered ones, where both sidecars know it; and damaged ones.

    Args:
        files: Of the clusters.
        vectors: Of new texts.

    Raises:
        DataError: Another model made them, or they changed since they were made.
    """
    made, clustered = read_sidecar(vectors), read_sidecar(find_embeddings(files))
    require_unchanged(vectors, hash_file(vectors))
    models = {one.inputs.get("checkpoint") or one.inputs.get("embedder") for one in (made, clustered) if one} - {None}
    if len(models) > 1:
        raise DataError(f"{vectors}: not of the model of the clustered vectors; embed the texts with that one")


def finish_writing(files: ClusterFiles) -> None:
    """Rename what a killed process had written for the clusters that are in place; remove what it had not finished."""
    waiting = [path for path in _companions(files) if _waiting(path).exists()]
    made = read_sidecar(files.clusters) if waiting else None
    if made and made.sha256 != hash_file(files.clusters):
        return  # killed between the sidecar and the clusters: these are still the earlier ones
    hashes = _recorded_hashes(files) if waiting else {}
    for path in waiting:
        if hash_file(_waiting(path)) == hashes.get(path.name):
            _waiting(path).replace(path)
        else:
            _waiting(path).unlink()


def _companions(files: ClusterFiles) -> tuple[Path, ...]:
    return files.centers, files.anchors, files.texts, files.table, files.added


def _waiting(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _recorded_hashes(files: ClusterFiles) -> Mapping[str, str]:
    found = read_facts(files.clusters).get("files")
    return found if isinstance(found, dict) else {}


def _check_companions(files: ClusterFiles) -> None:
    """Refuse files that were not written with the clusters.

    Raises:
        DataError: One is missing or was changed.
    """
    hashes = _recorded_hashes(files)
    for path in _companions(files):
        if path == files.added and path.name not in hashes:
            continue  # no clusters were added
        if path == files.table:
            continue  # for people: no stage reads it
        if not path.exists():
            raise DataError(f"{path}: no such file; {REMEDY}")
        if hashes.get(path.name) != hash_file(path):
            raise DataError(f"{path}: not of these clusters, or changed since; {REMEDY}")


def _save(path: Path, array: np.ndarray | None = None, **arrays: Any) -> None:  # noqa: ANN401  arrays and numbers
    with path.open("wb") as file:  # given a path, numpy adds an ending
        if array is None:
            np.savez(file, **arrays)
        else:
            np.save(file, array.astype(np.float32), allow_pickle=False)
