"""What is named, and what a name is made from: texts, contrasting texts, keywords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from perspective.description.records import Clusters
from perspective.naming.keywords import TermCounts, is_shown
from perspective.naming.prompts import MAX_NAME_WORDS, clean_name

N_TEXTS = 6  # representative texts in a prompt
N_CONTRASTS = 4
N_PHRASE_TEXTS = 200  # of a cluster, in which phrases are looked for
UNCLEAR = "unclear"  # name of a cluster whose texts have no words in common that can be shown


@dataclass
class Group:
    """A cluster or branch that is named.

    Attributes:
        id: Of the cluster or branch.
        clusters: Positions of its clusters.
        texts: Representative texts, the most central first.
        contrasts: Texts of other clusters.
        keywords: Its keywords.
        stand_ins: Names made of its keywords.
        written: Names that the LLM wrote, with their sentences.
        name: The chosen name.
        is_written: Whether the LLM wrote it.
        n_checked: Number of texts by which it was checked.
        n_nearest: How many of them are nearer to it than a text of another cluster is.
    """

    id: int
    clusters: list[int]
    texts: list[str]
    contrasts: list[str]
    keywords: list[str]
    stand_ins: list[str]
    written: dict[str, str] = field(default_factory=dict)
    name: str = ""
    is_written: bool = False
    n_checked: int = 0
    n_nearest: int = 0

    @property
    def is_branch(self) -> bool:
        """Whether it is a branch."""
        return len(self.clusters) > 1


def make_groups(record: Clusters, texts: Sequence[str], positions: np.ndarray, counts: TermCounts) -> list[Group]:
    """Return the clusters and the branches of their tree, in this order, with what a name is made from.

    Args:
        record: The clusters and their tree.
        texts: The texts that its rows point to.
        positions: `(n_texts,)` position of each text's cluster in `record`; -1 for none.
        counts: Terms of each cluster.
    """
    groups: dict[int, Group] = {}
    for place, cluster in enumerate(record.clusters):
        rows = np.flatnonzero(positions == place).tolist()
        near = [texts[row] for row in cluster.representatives] or [texts[row] for row in rows[:N_TEXTS]]
        contrasts = [texts[row] for row in cluster.contrasts]
        groups[cluster.id] = _make_group(cluster.id, [place], near, contrasts, [texts[row] for row in rows], counts)
    for branch in record.tree:
        one, other = (groups[child] for child in branch.children)
        near = [text for pair in zip(one.texts, other.texts, strict=False) for text in pair]
        own = [*one.clusters, *other.clusters]
        outside = [group for group in groups.values() if not group.is_branch and not set(group.clusters) & set(own)]
        contrasts = [group.texts[0] for group in outside if group.texts][:N_CONTRASTS]
        groups[branch.id] = _make_group(branch.id, own, near, contrasts, near, counts)
    return list(groups.values())


def _make_group(
    id: int, clusters: list[int], texts: list[str], contrasts: list[str], members: Sequence[str], counts: TermCounts
) -> Group:
    texts = list(dict.fromkeys(texts))  # duplicates say nothing more
    keywords = counts.rank(clusters)
    joined: list[str] = []
    for keyword in keywords:
        if len(" ".join([*joined, keyword]).split()) <= MAX_NAME_WORDS and len(joined) < 3 and is_shown(keyword):
            joined.append(keyword)
    stand_ins = [", ".join(joined)] if joined else []
    stand_ins += counts.find_phrases([*texts, *members[:N_PHRASE_TEXTS]], keywords[:N_TEXTS])
    if not stand_ins:
        shown = clean_name(" ".join(texts[0].split()[:MAX_NAME_WORDS])) if texts else ""
        stand_ins = [shown or UNCLEAR]
    return Group(id, clusters, texts, contrasts, keywords, stand_ins)
