"""Keywords of clusters by class-based TF-IDF, without a list of words of any language.

Each cluster is one document: its texts together. A term counts by the share of the cluster's texts that
hold it, times the logarithm of how much more often they do than all texts. Words that all clusters use
alike, such as "the", get a weight near zero, so no list of stop words is needed. Class-based TF-IDF is by
Grootendorst (2022, "BERTopic", arXiv:2203.05794); his weight has the term's total in place of its share
and needs such a list.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from perspective.llm.chat import make_harmless
from perspective.vectors import sample_rows

N_KEYWORDS = 8
MAX_PHRASES = 5
MAX_CHARS = 2000  # of a text
MAX_COUNTED, MIN_COUNTED = 100_000, 200  # texts whose terms are counted: of all, and of each cluster at least
MAX_TERM_CHARS = 40  # longer ones are addresses, hashes and the like
MIN_LIFT = 1.3  # of the share of a cluster's texts that hold a term, over the share of all texts
MAX_SPREAD = 0.25  # of the clusters that a term may be spread over
MIN_PHRASE_SHARE = 0.06  # of a cluster's texts that must hold a phrase
PAIR_SHARE = 0.5  # a pair of words replaces a word if it has this share of its weight

# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
_UNSPACED += "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = re.compile(f"([{_UNSPACED}]+)")
_GRAMS = range(2, 5)  # characters of a term of such a script
_HANGUL = re.compile("[\uac00-\ud7a3]{3,10}")
_MIN_STEM = 2  # syllables of a Korean word without its particles


class _Separators(dict[int, str]):
    """Table for `str.translate`: keeps letters, marks, digits and apostrophes, and separates at the rest."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kept = "'" if char in "'\u2019" else char if unicodedata.category(char)[0] in "LMN" else " "
        self[code] = kept
        return kept


_SEPARATORS = _Separators()


def split_words(text: str) -> list[str]:
    """Split a text at spaces and punctuation; runs of a script without spaces stay whole.

    >>> split_words("Why won't my top-up work?! Ça va, 카드를 분실")
    ['why', "won't", 'my', 'top', 'up', 'work', 'ça', 'va', '카드를', '분실']
    """
    plain = unicodedata.normalize("NFKC", text[:MAX_CHARS]).casefold().translate(_SEPARATORS)
    words = (word.strip("'") for word in _RUNS.sub(r" \1 ", plain).split())
    # A run of a script without spaces is a whole sentence; pieces of it are the terms.
    return [word for word in words if word and (len(word) <= MAX_TERM_CHARS or _RUNS.match(word))]


def is_shown(term: str) -> bool:
    """Tell whether a term can stand in a name by itself: short endings after an apostrophe cannot.

    >>> is_shown("won't"), is_shown("card's"), is_shown("l'eau"), is_shown("top up")
    (False, False, True, True)
    """
    return not any(re.search(r"'\w{0,2}$", word) for word in term.split())


def list_terms(text: str) -> Iterator[str]:
    """Yield the terms of a text: words and pairs of them.

    Where there are no spaces, pieces of two to four characters; of a Korean word also its beginnings,
    which are the word without its particles.

    >>> list(list_terms("lost card")), list(list_terms("卡丢失")), list(list_terms("카드를"))
    (['lost', 'card', 'lost card'], ['卡丢', '丢失', '卡丢失'], ['카드를', '카드'])
    """
    words = split_words(text)
    for word in words:
        if _RUNS.match(word):
            yield from (word[start : start + n] for n in _GRAMS for start in range(len(word) - n + 1))
        elif len(word) > 1:
            yield word
            if _HANGUL.fullmatch(word):
                yield from (word[:n] for n in range(_MIN_STEM, len(word)))
    for one, other in zip(words, words[1:], strict=False):
        # Not with a single letter, which is "a", "I" or the remains of an abbreviation.
        if not any(_RUNS.match(word) or (len(word) == 1 and word.isalpha()) for word in (one, other)):
            yield f"{one} {other}"


class TermCounts:
    """How many texts of each cluster hold each term.

    Args:
        texts: The texts.
        clusters: Cluster of each text, as a position from 0; -1 for texts of none, which count as background.
        n_clusters: Number of clusters.
    """

    def __init__(self, texts: Sequence[str], clusters: np.ndarray, n_clusters: int) -> None:
        counted = _choose_counted(clusters, n_clusters)
        texts, clusters = [texts[row] for row in counted], clusters[counted]
        vectorizer = CountVectorizer(analyzer=lambda text: set(list_terms(text)), binary=True, dtype=np.int32)
        try:
            counts = vectorizer.fit_transform(texts)
            self.terms = vectorizer.get_feature_names_out()
        except ValueError:  # no text holds a term
            counts, self.terms = sparse.csr_matrix((len(texts), 0), dtype=np.int32), np.empty(0, dtype=object)
        rows = np.flatnonzero(clusters >= 0)
        members = sparse.csr_matrix((np.ones(len(rows), np.int32), (clusters[rows], rows)), (n_clusters, len(texts)))
        self._by_cluster = (members @ counts).tocsr()
        self._total = np.asarray(counts.sum(axis=0)).ravel()
        self._sizes = np.asarray(members.sum(axis=1)).ravel()
        self._n_texts = len(texts)
        self._is_common = self._find_common()

    def find_phrases(self, texts: Iterable[str], keywords: Sequence[str]) -> list[str]:
        """Return at most five phrases of two or three words that texts of a cluster use and that hold its keywords.

        They begin and end with words that are not common to all clusters. Scripts without spaces have none.

        Args:
            texts: Texts of the cluster.
            keywords: Its keywords.
        """
        weights: dict[str, float] = {}
        for place, keyword in enumerate(keywords):
            for word in keyword.split():
                weights.setdefault(word, 1 / (place + 1))
        counts: Counter[tuple[str, ...]] = Counter()
        texts = list(dict.fromkeys(texts))
        for text in texts:
            words = split_words(text)
            spans = (words[start : start + n] for n in (2, 3) for start in range(len(words) - n + 1))
            counts.update({tuple(span) for span in spans if self._is_phrase(span, weights)})
        scores = {
            span: sum(weights.get(word, 0) for word in set(span)) * np.log1p(count) / np.sqrt(len(span))
            for span, count in counts.items()
            if count >= max(2, MIN_PHRASE_SHARE * len(texts))
        }
        best = sorted(scores, key=lambda span: (-scores[span], span))[:MAX_PHRASES]
        return [make_harmless(" ".join(span)) for span in best]

    def trim(self, name: str) -> str:
        """Return a name without common words at its beginning, such as "to" or "I want", if a word remains."""
        words = name.split()
        while words and self._is_function_word(words[0]):
            words = words[1:]
        return " ".join(words) or name

    def _is_function_word(self, word: str) -> bool:
        parts = split_words(word)
        return not parts or all(part in self._common_words or (len(part) == 1 and part.isalpha()) for part in parts)

    def _is_phrase(self, words: Sequence[str], weights: Mapping[str, float]) -> bool:
        return (
            any(word in weights for word in words)
            and not any(_RUNS.match(word) for word in words)
            and all(is_shown(word) and not self._is_function_word(word) for word in (words[0], words[-1]))
        )

    def _find_common(self) -> np.ndarray:
        """Return which terms are spread over the clusters, or are pairs with a word that is."""
        # The perplexity of a term's distribution over the clusters is the number of clusters that it is spread over.
        shares = self._by_cluster.multiply(1 / np.maximum(self._sizes, 1)[:, None]).tocsc()
        shares = shares.multiply(1 / np.maximum(np.asarray(shares.sum(axis=0)), 1e-12)).tocsc()
        logs = shares.copy()
        logs.data = -shares.data * np.log(shares.data)
        n_spread = np.exp(np.asarray(logs.sum(axis=0)).ravel())
        common = n_spread > 1 + MAX_SPREAD * (len(self._sizes) - 1)
        self._common_words = words = frozenset(str(term) for term in self.terms[common])
        return np.array([not words.isdisjoint((term, *term.split())) for term in self.terms], dtype=bool)

    def rank(self, clusters: Iterable[int], n_keywords: int = N_KEYWORDS) -> list[str]:
        """Return the keywords of one cluster, or of several taken as one, the most typical first."""
        rows = list(clusters)
        size = int(self._sizes[rows].sum())
        found = np.asarray(self._by_cluster[rows].sum(axis=0)).ravel()
        # Once is no pattern, except in clusters of a handful of texts.
        places = np.flatnonzero(found >= (2 if size > 3 else 1))
        share, usual = found[places] / max(size, 1), self._total[places] / self._n_texts
        # One text more without the term, so that a cluster of one text has no preference for its rarest word.
        # A cluster of all texts has no others to differ from: then the most common terms.
        weights = share * np.log(share / usual) if size < self._n_texts else share
        lifted = (share > usual * MIN_LIFT if size < self._n_texts else share > 0) & ~self._is_common[places]
        order = sorted(
            np.flatnonzero(lifted), key=lambda i: (-weights[i], -len(self.terms[places[i]]), self.terms[places[i]])
        )
        ranked = [(str(self.terms[places[i]]), float(weights[i])) for i in order[: 8 * n_keywords]]
        return [make_harmless(term) for term in _drop_contained(ranked)][:n_keywords]


def _choose_counted(clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Return the rows whose terms are counted: of many texts a random sample, and some of each cluster."""
    rows = sample_rows(len(clusters), MAX_COUNTED)
    if len(rows) == len(clusters):
        return rows
    order = np.random.default_rng(0).permutation(len(clusters))
    order = order[np.argsort(clusters[order], kind="stable")]
    _, *members = np.split(order, np.searchsorted(clusters[order], np.arange(n_clusters)))
    return np.unique(np.concatenate([rows, *(one[:MIN_COUNTED] for one in members)]))


def _drop_contained(ranked: Sequence[tuple[str, float]]) -> list[str]:
    """Drop terms that are part of another, or hold one, so that keywords do not repeat each other."""
    kept: list[tuple[str, float]] = []
    for term, weight in ranked:
        overlaps = [one for one in kept if _overlap(term, one[0])]
        if not overlaps:
            kept.append((term, weight))
        elif all(other in term and weight >= _needed_share(term) * found for other, found in overlaps):
            # The longer one says more, if it is nearly as typical.
            kept[kept.index(overlaps[0])] = (term, overlaps[0][1])
            kept = [one for one in kept if one not in overlaps]
    return [term for term, _ in kept]


def _needed_share(term: str) -> float:
    # A longer piece of a script without spaces may begin or end within a word, unless it is as frequent.
    return PAIR_SHARE if " " in term or not _RUNS.match(term) else 1.0


def _overlap(one: str, other: str) -> bool:
    return one in other or other in one or bool(set(one.split()) & set(other.split()))
