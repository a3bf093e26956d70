"""A person's edits of the clusters: a YAML file beside them, which every rerun respects."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, StrictInt, StrictStr, ValidationError, field_validator

from perspective.artifacts import write_text
from perspective.artifacts.writing import replace_surrogates
from perspective.artifacts.yaml_files import explain_yaml
from perspective.description.records import NOWHERE
from perspective.errors import DataError, suggest_name

TEMPLATE = """\
# Your edits of the clusters. Change this file and run the same command again: cluster.sh and assign.sh apply it,
# name_clusters.sh takes the names. Ids are those in -clusters.json and -texts.csv. Lines that begin with # do nothing.

# Names of your own, by id:
rename:
#  3: lost or stolen card

# Clusters that are one; the first id is kept, the others disappear:
merge:
#  - [3, 17, 21]

# Clusters that are several: id, and the ids of its parts, largest part first. New ids must be free, {free} and above:
split:
#  5: [5, {free}]

# Texts that belong elsewhere, by row or by the text itself; -1 is nowhere:
pin:
#  120: 7
#  "where is my card?": 7
"""
MAX_ID = 2**31
LATER = "this cluster was added later; cluster all texts together"
HINT = 'the comments of a new file show how it is written: move this one away and run cluster.sh, or write "key: value"'


def _need_two(ids: list[int]) -> list[int]:
    if len(set(ids)) < 2 or len(set(ids)) < len(ids):
        raise ValueError(f"{ids} must be two or more different ids")
    if not all(0 <= one < MAX_ID for one in ids):
        raise ValueError(f"{ids} must be ids of clusters, from 0 on")
    return ids


Ids = Annotated[list[int], AfterValidator(_need_two)]


class Edits(BaseModel):
    """A person's edits, in the order in which they are applied: split, merge, pin, rename.

    Attributes:
        rename: Name by id of a cluster or branch.
        merge: Groups of clusters that are one; the first id is kept.
        split: Ids of a cluster's parts, by its id; the largest part gets the first.
        pin: Cluster by row, or by text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rename: dict[int, str] = {}
    merge: list[Ids] = []
    split: dict[int, Ids] = {}
    pin: dict[StrictInt | StrictStr, int] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _take_empty(cls, value: Any, info: Any) -> Any:  # noqa: ANN401  whatever YAML holds
        """A heading with nothing below it is no edit."""
        return ([] if info.field_name == "merge" else {}) if value is None else value

    def list_ids(self) -> set[int]:
        """Return all ids that the edits mention; none of them is given to another cluster."""
        ids = {*self.rename, *self.split, *self.pin.values()}
        return ids.union(*self.merge, *self.split.values()) - {NOWHERE}


@dataclass(frozen=True)
class EditedClusters:
    """Clusters after a person's edits.

    Attributes:
        cluster: `(n_texts,)` ids.
        pinned: `(n_texts,)` booleans: the text's cluster was given by a person.
        remarks: A line for each edit that does not fit these clusters.
    """

    cluster: np.ndarray
    pinned: np.ndarray
    remarks: list[str]


def load_edits(path: Path) -> Edits:
    """Read a person's edits; none if there is no file.

    Raises:
        DataError: The file is not such YAML; the message names the line and the remedy.
    """
    if not path.exists():
        return Edits()
    with explain_yaml(path, HINT):
        text = path.read_text(encoding="utf-8-sig")
        root = yaml.compose(text, yaml.SafeLoader)
        found = yaml.safe_load(text)
    if found is None:
        return Edits()
    if not isinstance(found, dict):
        raise DataError(f"{path}:1: expected rename, merge, split or pin, found {type(found).__name__}; {HINT}")
    _refuse_repeated_keys(root, path)
    try:
        return Edits.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        line = _find_line(root, first["loc"])
        place = ".".join(str(part) for part in first["loc"] if part != "[key]")
        if first["type"] == "extra_forbidden":
            message = f'unknown edit "{place}": {suggest_name(place, Edits.model_fields)}'
        elif first["loc"][0] == "pin" and "[key]" in first["loc"]:
            message = f"pin: {first['loc'][1]}: rows are whole numbers, and a text like this needs quotes"
        else:
            message = f"{place}: {first['msg'].removeprefix('Value error, ').lower()}; {_advise(first)}"
        raise DataError(replace_surrogates(f"{path}:{line}: {message}")) from None


def write_template(path: Path, first_free: int) -> None:
    """Write a file of comments that shows how to edit, unless there is one."""
    if not path.exists():
        write_text(path, TEMPLATE.format(free=first_free))


def apply_edits(
    edits: Edits, unit: np.ndarray, texts: Sequence[str], found: np.ndarray, seed: int, added: Collection[int] = ()
) -> EditedClusters:
    """Split, merge and pin.

    Args:
        edits: A person's edits.
        unit: Unit rows `(n_texts, dim)`, by which clusters are split.
        texts: The texts, for pins.
        found: `(n_texts,)` ids as they were found.
        seed: Random seed of splitting.
        added: Ids of clusters that were added later, which have none of these texts.
    """
    cluster, remarks = found.copy(), []
    for whole, parts in edits.split.items():
        fault = LATER if whole in added else _split(cluster, unit, whole, parts, seed, {*cluster.tolist(), *added})
        remarks += [f"split {whole}: {parts}: {fault}"] if fault else []
    for group in edits.merge:
        if later := [part for part in group if part in added]:
            remarks.append(f"merge {group}: {', '.join(map(str, later))}: {LATER}")
            continue
        known = set(cluster.tolist())
        missing = [part for part in group if part not in known]
        if missing:
            remarks.append(f"merge {group}: there is no cluster {', '.join(map(str, missing))}")
        if group[0] in known:
            cluster[np.isin(cluster, group)] = group[0]
    pinned = np.zeros(len(cluster), dtype=bool)
    known = {*cluster.tolist(), NOWHERE}
    rows_of = _find_rows(texts, [key for key in edits.pin if isinstance(key, str)])
    for key, wanted in edits.pin.items():
        rows = rows_of[key] if isinstance(key, str) else [key] if 0 <= key < len(texts) else []
        if not rows:
            what = "text" if isinstance(key, str) else "row"
            hint = "; it holds for a new text" if isinstance(key, str) else ""
            remarks.append(
                f"pin {_shorten(key)}: {wanted}: there is no such {what} among those that were clustered{hint}"
            )
        elif wanted in added:
            remarks.append(f"pin {_shorten(key)}: {wanted}: {LATER}")
        elif wanted not in known:
            remarks.append(f"pin {_shorten(key)}: {wanted}: there is no cluster {wanted}")
        else:
            cluster[rows], pinned[rows] = wanted, True
    return EditedClusters(cluster, pinned, remarks)


def list_unknown_names(edits: Edits, ids: Iterable[int]) -> list[str]:
    """Return a line for each new name whose cluster or branch does not exist."""
    known = set(ids)
    unknown = ((key, name) for key, name in edits.rename.items() if key not in known)
    return [f"rename {key}: {name}: there is no cluster or branch {key}" for key, name in unknown]


def _split(cluster: np.ndarray, unit: np.ndarray, whole: int, parts: Sequence[int], seed: int, used: set[int]) -> str:
    """Split a cluster in place; return what does not fit, or nothing."""
    from perspective.clustering.kmeans import cluster_vectors

    rows = np.flatnonzero(cluster == whole)
    taken = sorted((set(parts) - {whole}) & used)
    if not len(rows):
        return f"there is no cluster {whole}"
    if taken:
        return f"id {', '.join(map(str, taken))} is taken; take {max(used) + 1} and above"
    if len(np.unique(unit[rows], axis=0)) < len(parts):
        return f"its {len(rows)} texts do not have {len(parts)} different vectors"
    numbers = cluster_vectors(unit[rows], len(parts), seed)
    order = np.argsort(-np.bincount(numbers, minlength=len(parts)), kind="stable")
    cluster[rows] = np.array(parts)[np.argsort(order)[numbers]]
    return ""


def _find_rows(texts: Sequence[str], wanted: Iterable[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {text: [] for text in wanted}
    if rows:
        for row, text in enumerate(texts):
            if text in rows:
                rows[text].append(row)
    return rows


def _shorten(key: int | str) -> str:
    return str(key) if isinstance(key, int) else f'"{key[:60]}"'


def _advise(fault: Mapping[str, Any]) -> str:
    kind = str(fault["type"])
    if kind.startswith("int"):
        return "ids are whole numbers"
    if kind.startswith("string"):
        return "put the name in quotes"
    return HINT


def _refuse_repeated_keys(node: yaml.Node, path: Path) -> None:
    """Refuse what YAML would silently drop: the first of two lines with the same key.

    Raises:
        DataError: A key is given twice.
    """
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[Hashable] = set()
    for key, value in node.value:
        name = (key.tag, str(key.value))
        if name in seen:
            raise DataError(f'{path}:{key.start_mark.line + 1}: "{key.value}" is given twice; merge the two')
        seen.add(name)
        _refuse_repeated_keys(value, path)


def _find_line(node: yaml.Node, place: Sequence[int | str]) -> int:
    """Return the line of a fault, or of the nearest thing around it."""
    line = node.start_mark.line
    for part in place:
        if isinstance(node, yaml.MappingNode):
            near = [(key, value) for key, value in node.value if str(key.value) == str(part)]
            if not near:
                break
            line, node = near[0][0].start_mark.line, near[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1
