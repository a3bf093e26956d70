"""What the page shows, as JSON: texts, places, clusters, names, tree, verdict."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perspective.description.files import Clustering
from perspective.description.records import GIVEN, NOWHERE, Branch, Count, Name, Names
from perspective.page.assembly import dump_for_html
from perspective.page.map import TextMap
from perspective.page.verdict import Verdict

MAX_TEXT_BYTES = 17_000_000  # of all texts together, escaped: the page stays below 25 MB
LENGTHS = (2000, 1000, 500, 300, 200, 140, 100, 70, 50, 30, 15)  # at which texts are cut, the first that fits
N_EXAMPLES = 5
NEAR_HEIGHT = 0.9  # a branch that joins at nearly its parent's height is shown as one with it
METRICS = ("ACC", "NMI", "ARI")
CRITERIA = {
    "views": "embedder and LLM agree most",
    "words": "embedder and words agree most",
    "llm": "LLM asked which clusters are one",
    "silhouette": "silhouette",
    "stability": "stability",
    "eigengap": "eigengap",
    "hdbscan": "HDBSCAN",
}


@dataclass(frozen=True)
class Description:
    """Everything that the page shows.

    Attributes:
        title: Name of the data set.
        clustering: The clusters, and all texts that were clustered.
        all_texts: The texts that the clusters' representatives point to.
        names: Names of clusters and branches; None before `name_clusters.sh`.
        count: The number of clusters with its estimates; None if a person gave it.
        text_map: Where the texts are.
        origins: `(n_texts,)` place of the cluster that each text was nearest to before.
        again: `(n_clusters,)` how well each cluster is found again; NaN where unknown.
        verdict: What is known without labels.
        measures: Measures before and after against labels; None without labels.
        run: What was run, as rows of name and value.
        unchanged: Whether the embedder was left unchanged.
    """

    title: str
    clustering: Clustering
    all_texts: Sequence[str]
    names: Names | None
    count: Count | None
    text_map: TextMap
    origins: np.ndarray
    again: np.ndarray
    verdict: Verdict
    measures: tuple[Mapping[str, Any], Mapping[str, Any]] | None
    run: Sequence[tuple[str, str]]
    unchanged: bool


def build_content(description: Description) -> dict[str, Any]:
    """Return what the page's scripts read."""
    record, texts = description.clustering.record, description.clustering.texts
    rows = description.text_map.rows
    places = place_clusters(description.clustering)
    outlier = description.clustering.assignment.outlier
    names = {name.id: name for name in description.names.names} if description.names else {}
    shown, length = cut_texts([texts[row] for row in rows])
    clusters = [
        {
            "id": cluster.id,
            "size": cluster.size,
            "cohesion": round(cluster.cohesion, 4),
            "again": None if np.isnan(again) else round(float(again), 4),
            "examples": [_cut(description.all_texts[row], 300) for row in cluster.representatives[:N_EXAMPLES]],
            **_describe_name(cluster.id, names.get(cluster.id)),
        }
        for cluster, again in zip(record.clusters, description.again, strict=True)
    ]
    index = {cluster.id: place for place, cluster in enumerate(record.clusters)}
    for cluster in clusters:
        cluster["merge_with"] = [index[other] for other in cluster["merge_with"] if other in index]
    tree = _build_tree(record.tree, index, clusters, names)
    n_outliers = int(outlier.sum())
    facts = [f"{len(texts):,} texts", _plural(len(clusters), "cluster"), _plural(n_outliers, "outlier")]
    if description.names and description.names.perspective:
        facts.append(f"by {description.names.perspective}")
    before, after = quantise(description.text_map)
    return {
        "title": description.title,
        "facts": " · ".join(facts),
        "texts": shown,
        "cluster": _encode(places[rows], np.int32),
        "origin": _encode(description.origins[rows], np.int32),
        "confidence": _encode(np.round(100 * description.clustering.assignment.confidence[rows]), np.uint8),
        "outlier": _encode(outlier[rows], np.uint8),
        "kept": _encode(np.round(100 * description.text_map.kept), np.uint8),
        "before": before,
        "after": after,
        "has_before": not description.unchanged,
        "clusters": clusters,
        "tree": tree,
        "order": tree["leaves"] if tree else list(range(len(clusters))),
        "names_note": _note_names(description.names, clusters),
        "sample_note": _note_sample(len(texts), len(rows), length),
        "verdict": asdict(description.verdict),
        "measures": _tabulate_measures(description.measures),
        "measures_note": _note_measures(description.measures),
        "count": _describe_count(description.count, len(clusters), record.method),
        "run": [list(row) for row in description.run],
    }


def place_clusters(clustering: Clustering) -> np.ndarray:
    """Return the place of each text's cluster in the list of clusters, `(n_texts,)`; `NOWHERE` for none."""
    ids = np.array([cluster.id for cluster in clustering.record.clusters])
    of_texts = clustering.assignment.cluster
    order = np.argsort(ids)
    at = np.minimum(np.searchsorted(ids[order], of_texts), len(ids) - 1)
    return np.where(ids[order][at] == of_texts, order[at], NOWHERE)


def cut_texts(texts: Sequence[str]) -> tuple[list[str], int | None]:
    """Cut texts so that all of them fit into the page.

    Returns:
        The texts, and the number of characters at which they were cut; None if none was.

    >>> cut_texts(["short"])
    (['short'], None)
    """
    longest = max(map(len, texts))
    for length in LENGTHS:
        estimate = sum(min(len(text), length) for text in texts)
        if estimate > MAX_TEXT_BYTES and length != LENGTHS[-1]:
            continue
        cut = [_cut(text, length) for text in texts]
        if length == LENGTHS[-1] or len(dump_for_html(cut).encode()) <= MAX_TEXT_BYTES:
            break
    return cut, length if longest > length else None


def quantise(text_map: TextMap) -> tuple[str, str]:
    """Return the places before and after as base64 of 16-bit numbers, in one frame: 0 to 65535 is the whole map."""
    both = [positions - positions.mean(axis=0) for positions in (text_map.before, text_map.after)]
    reach = [max(float(np.abs(positions).max()), 1e-9) for positions in both]
    scaled = [np.clip(positions / (2 * size) + 0.5, 0, 1) for positions, size in zip(both, reach, strict=True)]
    before, after = (_encode(np.round(65535 * positions), np.uint16) for positions in scaled)
    return before, after


def _encode(values: np.ndarray, kind: type[np.generic]) -> str:
    """Return an array as base64, little-endian as all machines with a browser are."""
    return base64.b64encode(np.ascontiguousarray(values.astype(np.dtype(kind).newbyteorder("<"))).tobytes()).decode()


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _describe_name(number: int, name: Name | None) -> dict[str, Any]:
    if name is None:
        empty = {"sentence": "", "keywords": [], "n_checked": 0, "n_nearest": 0, "merge_with": []}
        return {"name": f"cluster {number}", "source": "none", "check": None, **empty}
    check = round(name.n_nearest / name.n_checked, 4) if name.n_checked else None
    return {**name.model_dump(exclude={"id"}), "name": name.name or f"cluster {number}", "check": check}


def _note_names(names: Names | None, clusters: Sequence[Mapping[str, Any]]) -> str:
    if names is None:
        return "The clusters have no names yet: name_clusters.sh asks the LLM for them."
    if names.llm == "none":
        return "The names are keywords: no LLM was asked."
    n_by_llm = sum(cluster["source"] == "llm" for cluster in clusters)
    n_by_keywords = sum(cluster["source"] == "keywords" for cluster in clusters)
    note = f"{n_by_llm} of {len(clusters)} names are by the LLM ({names.llm})"
    if n_by_keywords:
        note += f", {n_by_keywords} are keywords, where it gave none that fits"
    checked = [cluster for cluster in clusters if cluster["n_checked"]]
    if checked:
        fits = sum(cluster["n_nearest"] for cluster in checked) / sum(cluster["n_checked"] for cluster in checked)
        note += f". A name is nearer to its own texts than to others' in {fits:.0%} of the texts checked"
    return note + "."


def _note_sample(n_texts: int, n_shown: int, length: int | None) -> str:
    notes = []
    if n_shown < n_texts:
        notes.append(
            f"a random sample of {n_shown:,} of {n_texts:,} texts is shown; sizes and figures of clusters are of all"
        )
    if length is not None:
        notes.append(f"texts are cut at {length} characters")
    return "; ".join(notes)


def _build_tree(
    branches: Sequence[Branch],
    index: Mapping[int, int],
    clusters: Sequence[Mapping[str, Any]],
    names: Mapping[int, Name],
) -> dict[str, Any] | None:
    """Return the tree as nested nodes; branches that join at nearly the same height are one node."""
    if not branches:
        return None
    nodes: dict[int, dict[str, Any]] = {
        id_: {"id": id_, "name": clusters[place]["name"], "size": clusters[place]["size"], "leaves": [place]}
        for id_, place in index.items()
    }
    heights: dict[int, float] = {}
    for branch in branches:  # from the leaves up
        children: list[dict[str, Any]] = []
        for child in branch.children:
            is_near = heights.get(child, 0) > NEAR_HEIGHT * branch.height
            children += nodes[child]["children"] if is_near and "children" in nodes[child] else [nodes[child]]
        leaves = [place for child in branch.children for place in nodes[child]["leaves"]]
        largest = max(leaves, key=lambda place: clusters[place]["size"])
        found = names.get(branch.id)
        name = found.name if found and found.name else f"{clusters[largest]['name']} and others"
        nodes[branch.id] = {"id": branch.id, "name": name, "size": branch.size, "leaves": leaves, "children": children}
        heights[branch.id] = branch.height
    root = nodes[branches[-1].id]
    root["name"] = "all clusters"
    return root


def _tabulate_measures(measures: tuple[Mapping[str, Any], Mapping[str, Any]] | None) -> list[list[str]]:
    if measures is None:
        return []
    rows = []
    for metric in METRICS:
        (before, after), (low, high) = (
            [float(found[f"{metric}_{part}"]) for found in measures] for part in ("mean", "std")
        )
        rows.append([metric, f"{before:.1f} ± {low:.1f}", f"{after:.1f} ± {high:.1f}", f"{after - before:+.1f}"])
    return rows


def _note_measures(measures: tuple[Mapping[str, Any], Mapping[str, Any]] | None) -> str:
    if measures is None:
        return ""
    n_classes, n_seeds = measures[1].get("n_clusters"), len(measures[1].get("seeds", []))
    return (
        f"k-means with the number of classes ({n_classes}), mean ± standard deviation over {n_seeds} starts. Labels "
        "are read only to measure: neither the number of clusters shown here nor the clusters come from them."
    )


def _describe_count(count: Count | None, n_clusters: int, method: str) -> dict[str, Any]:
    if method == "hdbscan":
        summary = f"HDBSCAN found {_plural(n_clusters, 'cluster')}; it takes no number."
    elif count is None:
        summary = f"{_plural(n_clusters, 'cluster')}: the number was given."
    else:
        found = CRITERIA.get(count.criterion, count.criterion)
        how = "the number was given" if count.criterion == GIVEN else f"the number by the criterion “{found}”"
        summary = f"{_plural(count.n_clusters, 'cluster')}: {how}."
        if count.n_clusters != n_clusters:
            summary += f" There are {n_clusters} now, after edits, updates or another --n_clusters."
        summary += " No criterion without labels is right on every data set: compare them, and set --n_clusters."
    estimates = (
        []
        if count is None
        else [
            [CRITERIA.get(name, name), "–" if estimate.n_clusters is None else str(estimate.n_clusters)]
            for name, estimate in count.estimates.items()
        ]
    )
    return {"summary": summary, "estimates": estimates}
