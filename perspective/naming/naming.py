"""Name clusters and the branches of their tree: two to four words and a sentence each.

An LLM writes several names from the texts in the middle of a cluster. The embedder chooses among them: the name
that is nearest to its own cluster, compared with the nearest other one. Where it is not as near to its texts as
the cluster's keywords are, the keywords stand in. Clusters with equal names are asked again with each other's
texts. No label takes part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from perspective.description.records import Clusters, Name
from perspective.naming.check import NameCheck
from perspective.naming.groups import N_CONTRASTS, N_TEXTS, UNCLEAR, Group, make_groups
from perspective.naming.keywords import TermCounts
from perspective.naming.prompts import (
    EXAMPLE_NAMES,
    EXAMPLE_SENTENCES,
    Ask,
    clean_name,
    clean_sentence,
    normalize_name,
    read_reply,
)

N_FEW = 4  # representative texts in a prompt of a small LLM
N_SINGLE = 3  # texts that a small LLM names one by one
N_ASKED_KEYWORDS = 3
TOLERANCE = 0.07  # of the share of checked texts by which an LLM's name may be worse than the keywords
MAX_SHARING = 4  # clusters with one name that may be one
SLACK = 0.05  # in cosine, by which a shorter name, or an LLM's name of a branch, may be worse
WORDS_BONUS = 0.03  # in cosine, for names of two words and more: a single word says less than its nearness

Embed = Callable[[Sequence[str]], np.ndarray]
AskLLM = Callable[[Sequence[Ask]], Sequence[str | None]]  # the LLM's reply to each, None or empty where there is none


def name_clusters(
    record: Clusters,
    texts: Sequence[str],
    clusters: np.ndarray,
    vectors: np.ndarray,
    embed: Embed,
    ask: AskLLM | None,
    is_chat: bool = False,
    renamed: Mapping[int, str] | None = None,
) -> list[Name]:
    """Name all clusters and branches.

    Args:
        record: The clusters and their tree.
        texts: The texts that its rows point to.
        clusters: `(n_texts,)` id of each text's cluster.
        vectors: `(n_texts, dim)` vectors of the texts by the embedder.
        embed: Embeds names in the same space.
        ask: Asks the LLM; None to use keywords alone.
        is_chat: Whether the replies hold name and sentence.
        renamed: A person's names by id; they are not asked for.

    Returns:
        Names in the order of clusters and branches.
    """
    renamed = renamed or {}
    places = {cluster.id: place for place, cluster in enumerate(record.clusters)}
    positions = np.array([places.get(int(cluster), -1) for cluster in clusters], dtype=int)
    counts = TermCounts(texts, positions, len(places))
    groups = make_groups(record, texts, positions, counts)
    check = NameCheck(vectors, positions, len(places))
    asked = [group for group in groups if group.id not in renamed]
    chooser = _Chooser(check, counts, embed)
    if ask is not None:
        _collect(asked, [_plan(group, is_chat) for group in asked], ask, is_chat, chooser)
    chooser.choose(asked)
    if ask is not None:
        _ask_equal_again(asked, ask, is_chat, chooser)
    merge_with = _make_distinct(asked, list(renamed.values()))
    sentences = {} if ask is None else _write_sentences(asked, ask, is_chat, chooser)
    for group in groups:
        if group.id in renamed:
            group.name = renamed[group.id].strip()
    chooser.check(groups)
    return [_make_name(group, renamed, sentences, merge_with) for group in groups]


class _Chooser:
    """Chooses among the names of a group by the check."""

    def __init__(self, check: NameCheck, counts: TermCounts, embed: Embed) -> None:
        self._check = check
        self._counts = counts
        self._embed = embed
        self._vectors: dict[str, np.ndarray] = {}

    def add_written(self, group: Group, name: str, sentence: str) -> None:
        """Add a name that the LLM wrote."""
        if name and name.casefold() not in EXAMPLE_NAMES:
            group.written.setdefault(name, sentence)

    def choose(self, groups: Sequence[Group], taken: Mapping[int, set[str]] | None = None) -> None:
        """Choose the name of each group, other than those that are taken, as normalised, by id of the group."""
        names = [name for group in groups for name in (*group.written, *group.stand_ins)]
        self._embed_new([*names, *map(self._counts.trim, names)])
        best: dict[int, tuple[str, str]] = {}
        sharing: dict[tuple[bool, str], list[int]] = defaultdict(list)
        for group in groups:
            avoided = (taken or {}).get(group.id, set())
            written, stand_ins = (
                [name for name in names if normalize_name(name) not in avoided]
                for names in (group.written, group.stand_ins)
            )
            stand_in = self._find_best(group, stand_ins) or (group.stand_ins or [UNCLEAR])[0]
            best[group.id] = (self._find_best(group, written), stand_in)
            sharing[group.is_branch, normalize_name(best[group.id][0])] += group.clusters
        for group in groups:
            name, stand_in = best[group.id]
            # Clusters that got one name may be one: the name is compared with the texts of all others.
            together = sharing[group.is_branch, normalize_name(name)]
            may_be_one = len(together) <= MAX_SHARING and self._check.has_others(together) and not group.is_branch
            own = together if may_be_one else group.clusters
            group.is_written = bool(name) and self._holds(group, name, stand_in, own)
            group.name = name if group.is_written else stand_in

    def check(self, groups: Sequence[Group]) -> None:
        """Record the check of the names that are shown."""
        self._embed_new([group.name for group in groups])
        for group in groups:
            group.n_checked, nearest = self._check.count(group.clusters, self._vectors[group.name][None])
            group.n_nearest = int(nearest[0])

    def _find_best(self, group: Group, names: Sequence[str]) -> str:
        if not names:
            return ""
        scores = self._score(group, names)
        bonus = [WORDS_BONUS * (" " in name or not name.isascii()) for name in names]
        best = names[int(np.argmax(scores + bonus))]
        shorter = clean_name(self._counts.trim(best))
        if " " in shorter and self._score(group, [shorter])[0] >= scores.max() - SLACK:
            if best in group.written:
                group.written.setdefault(shorter, group.written[best])
            return shorter
        return best

    def _holds(self, group: Group, name: str, stand_in: str, own: Sequence[int]) -> bool:
        """Tell whether the LLM's name is nearly as near to the texts of its clusters as the keywords are."""
        worst = self._score(group, [stand_in])[0] - SLACK
        score = self._check.score(own, self._vectors[name][None])[0]
        n_checked, nearest = self._check.count(own, self._vectors[name][None])
        if not n_checked:  # there is nothing else
            return not group.is_branch and bool(score >= worst)
        n_others, others = self._check.count(group.clusters, self._vectors[stand_in][None])
        is_own = score >= (worst if group.is_branch else min(0.0, worst))
        return bool(is_own and nearest[0] / n_checked >= others[0] / max(n_others, 1) - TOLERANCE)

    def _score(self, group: Group, names: Sequence[str]) -> np.ndarray:
        self._embed_new(names)
        return self._check.score(group.clusters, np.array([self._vectors[name] for name in names]))

    def holds_sentence(self, group: Group, sentence: str) -> bool:
        """Tell whether a sentence is nearer to its own cluster than to any other."""
        return not self._check.has_others(group.clusters) or bool(self._score(group, [sentence])[0] > 0)

    def _embed_new(self, names: Sequence[str]) -> None:
        new = [name for name in dict.fromkeys(names) if name not in self._vectors]
        if new:
            self._vectors |= dict(zip(new, self._embed(new), strict=True))


def _plan(group: Group, is_chat: bool) -> list[Ask]:
    keywords = tuple(group.keywords[:N_ASKED_KEYWORDS])
    if is_chat:
        return [Ask(tuple(group.texts[:N_TEXTS]), tuple(group.keywords), tuple(group.contrasts[:N_CONTRASTS]))]
    together = Ask(tuple(group.texts[:N_FEW]), keywords)
    singles = () if group.is_branch else (Ask((text,)) for text in group.texts[:N_SINGLE])
    return [ask for ask in (*singles, together) if ask.texts]


def _collect(
    groups: Sequence[Group],
    plans: Sequence[Sequence[Ask]],
    ask: AskLLM,
    is_chat: bool,
    chooser: _Chooser,
) -> None:
    """Ask for names and add them to their groups."""
    owners = [group for group, plan in zip(groups, plans, strict=True) for _ in plan]
    replies = ask([one for plan in plans for one in plan])
    for group, reply in zip(owners, replies, strict=True):
        chooser.add_written(group, *read_reply(reply or "", is_chat))


def _ask_equal_again(groups: Sequence[Group], ask: AskLLM, is_chat: bool, chooser: _Chooser) -> None:
    """Ask clusters with equal names again, each with the texts of the others."""
    equal = [members for members in _find_equal(groups) if any(group.is_written for group in members)]
    again, plans = [], []
    for members in equal:
        for group in members:
            others = [text for other in members if other is not group for text in other.texts[:N_FEW]][:N_FEW]
            asked = Ask(
                *(tuple(group.texts[: N_TEXTS if is_chat else N_FEW]), tuple(group.keywords[:N_ASKED_KEYWORDS])),
                *(tuple(others), group.name),
            )
            again.append(group)
            plans.append([asked] if asked.texts else [])
    if again:
        taken = {group.id: {normalize_name(group.name)} for group in again}
        _collect(again, plans, ask, is_chat, chooser)
        first = {group.id: (group.name, group.is_written) for group in again}
        chooser.choose(again, taken)
        for group in again:
            if not group.is_written and first[group.id][1]:  # no other name of the LLM holds
                group.name, group.is_written = first[group.id]


def _find_equal(groups: Sequence[Group]) -> list[list[Group]]:
    """Return clusters that share a name; branches are compared with branches."""
    by_name: dict[tuple[bool, str], list[Group]] = defaultdict(list)
    for group in groups:
        by_name[group.is_branch, normalize_name(group.name)].append(group)
    return [members for members in by_name.values() if len(members) > 1]


def _make_distinct(groups: Sequence[Group], used: Sequence[str]) -> dict[int, list[int]]:
    """Make equal names distinct by a keyword; return which clusters had equal names, for merging."""
    merge_with = {
        group.id: [other.id for other in members if other is not group]
        for members in _find_equal(groups)
        for group in members
        if not group.is_branch
    }
    taken = {normalize_name(name) for name in used}
    # Clusters come first, so a branch yields to a cluster.
    for group in groups:
        name = group.name
        if normalize_name(name) in taken:
            own = [word for word in group.keywords if normalize_name(word) not in normalize_name(name)]
            others = [*group.stand_ins, *group.written]
            longer = [f"{name}: {word}" for word in own]
            options = [*others, *longer] if group.is_branch else [*longer, *others]
            name = next((one for one in options if normalize_name(one) not in taken), f"{name} ({group.id})")
            group.is_written = group.is_written and name.startswith(group.name)
        group.name = name
        taken.add(normalize_name(name))
    return merge_with


def _write_sentences(groups: Sequence[Group], ask: AskLLM, is_chat: bool, chooser: _Chooser) -> dict[int, str]:
    """Return a sentence by id, where the LLM wrote one that fits.

    A small LLM's sentences hold for a cluster at best, so branches get none of it.
    """
    if is_chat:  # they came with the names
        return {group.id: group.written[group.name] for group in groups if group.name in group.written}
    named = [group for group in groups if group.texts and not group.is_branch]
    asks = [Ask(tuple(g.texts[:N_FEW]), tuple(g.keywords[:N_ASKED_KEYWORDS]), name=g.name) for g in named]
    sentences = [clean_sentence(reply) for reply in ask(asks)]
    return {
        group.id: sentence
        for group, sentence in zip(named, sentences, strict=True)
        if sentence and sentence not in EXAMPLE_SENTENCES and chooser.holds_sentence(group, sentence)
    }


def _make_name(
    group: Group, renamed: Mapping[int, str], sentences: Mapping[int, str], merge_with: Mapping[int, list[int]]
) -> Name:
    return Name(
        id=group.id,
        name=group.name if group.id in renamed else group.name[:1].upper() + group.name[1:],
        sentence=sentences.get(group.id, ""),
        keywords=group.keywords,
        source="edit" if group.id in renamed else "llm" if group.is_written else "keywords",
        n_checked=group.n_checked,
        n_nearest=group.n_nearest,
        merge_with=merge_with.get(group.id, []),
    )
