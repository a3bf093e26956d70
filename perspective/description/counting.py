"""How many clusters: all criteria beside one another, and the one that is taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np

from perspective.clustering.granularity import Granularities, find_peak, make_grid, rule_of_thumb
from perspective.clustering.n_clusters import (
    N_MEASURED,
    count_dense_groups,
    find_eigengap,
    find_silhouette_peak,
    score_agreement,
    score_granularity,
    score_silhouette,
    score_stability,
)
from perspective.description.records import GIVEN, Count, Estimate
from perspective.description.settings import CRITERIA, DEFAULTS, FALLBACK, CountSettings, Criterion
from perspective.errors import DataError
from perspective.vectors import center_rows, half_whiten, normalize_rows, sample_rows

logger = logging.getLogger(__name__)

NEED_STATES: tuple[Criterion, ...] = ("views", "llm")
WORD_DIM = 96
N_SHUFFLES, ABOVE_CHANCE = 5, 2  # views agree if at least twice as much as with the states of other texts
ROUNDING = 1e-4  # between unit rows of one text; centred and scaled to length 1, it would look like clusters


def count_clusters(
    vectors: np.ndarray, texts: Sequence[str], states: np.ndarray | None, settings: CountSettings, seed: int = 0
) -> Count:
    """Estimate the number of clusters by all criteria and choose one.

    Args:
        vectors: Array `(n_texts, dim)`.
        texts: The texts.
        states: Answer states `(n_texts, state_dim)`, not whitened; None where no LLM read the texts.
        settings: What is chosen.
        seed: Random seed.

    Raises:
        DataError: The criterion needs answer states, and there are none.
    """
    if settings.criterion in NEED_STATES and states is None:
        raise DataError(f"--criterion {settings.criterion}: needs answer states; run read_states.sh first")
    rows = sample_rows(len(vectors), N_MEASURED, seed)
    if len(rows) < len(vectors):
        logger.info("%d texts: the number is measured on a random sample of %d", len(vectors), len(rows))
    if np.ptp(normalize_rows(vectors[rows]), axis=0).max() < ROUNDING:
        return Count(n_clusters=1, criterion="all texts are equal")
    unit = center_rows(vectors[rows])
    measures = _Measures(unit, [texts[row] for row in rows], None if states is None else states[rows], seed)
    wanted = [name for name in CRITERIA if states is not None or name not in NEED_STATES]
    if not settings.all_criteria:
        wanted = [name for name in wanted if name in (*DEFAULTS, settings.criterion)]
    estimates = {name: measures.estimate(name) for name in wanted}
    is_open = settings.n_clusters is None and not any(one.n_clusters for one in estimates.values())
    if is_open and FALLBACK not in estimates:
        estimates[FALLBACK] = measures.estimate(FALLBACK)
    for name, estimate in estimates.items():
        logger.info("%-10s %s clusters (%.1f s)", name, estimate.n_clusters or "no number of", estimate.seconds)
    return choose(estimates, settings, len(vectors))


def choose(estimates: Mapping[Criterion, Estimate], settings: CountSettings, n_texts: int) -> Count:
    """Choose the number: the given one, that of the given criterion, or that of the first of `DEFAULTS` with one."""
    found: dict[str, Estimate] = {str(name): one for name, one in estimates.items()}
    if settings.n_clusters is not None:
        return Count(n_clusters=settings.n_clusters, criterion=GIVEN, estimates=found)
    order: list[Criterion] = [*([settings.criterion] if settings.criterion else []), *DEFAULTS, FALLBACK]
    for name in order:
        if name in found and (n_clusters := found[name].n_clusters):
            if settings.criterion not in (None, name):
                logger.warning("--criterion %s gives no number: taking that of %s", settings.criterion, name)
            return Count(n_clusters=n_clusters, criterion=name, estimates=found)
    logger.warning("no criterion gives a number of clusters for %d texts; taking a rule of thumb", n_texts)
    return Count(n_clusters=rule_of_thumb(n_texts), criterion="rule of thumb: root of half the texts", estimates=found)


class _Measures:
    """The criteria on one set of texts; what several of them need is computed once.

    Args:
        unit: Centred unit rows `(n_texts, dim)`.
        texts: The texts.
        states: Answer states, or None.
        seed: Random seed.
    """

    def __init__(self, unit: np.ndarray, texts: Sequence[str], states: np.ndarray | None, seed: int) -> None:
        self._texts, self._seed = texts, seed
        self._grid = make_grid(len(unit))
        self._whitened = None if states is None else half_whiten(states)
        self._view = Granularities.of(unit)
        self._clusterings: dict[int, np.ndarray] = {}

    def estimate(self, name: Criterion) -> Estimate:
        """Return the estimate of a criterion; the first call also pays for what they share."""
        started = time.process_time()
        if not self._grid:
            return Estimate(n_clusters=None, seconds=0)
        if not self._clusterings:
            self._clusterings = self._view.cluster_all(self._grid)
        found = getattr(self, f"_by_{name}")()
        scores: dict[int, float] = found if isinstance(found, dict) else {}
        number = (
            (find_silhouette_peak if name == "silhouette" else find_peak)(scores) if isinstance(found, dict) else found
        )
        scores = {size: scores[size] for size in scores if size in self._clusterings}
        return Estimate(n_clusters=number, seconds=round(time.process_time() - started, 2), scores=scores)

    def _by_views(self) -> dict[int, float] | None:
        assert self._whitened is not None
        other = Granularities.of(self._whitened).cluster_all(self._grid)
        scores = score_agreement(self._clusterings, other)
        # An LLM that sees nothing in the texts agrees by chance, and chance has a peak too.
        rng, chance = np.random.default_rng(self._seed), 0.0
        for _ in range(N_SHUFFLES):
            order = rng.permutation(len(self._texts))
            shuffled = score_agreement(self._clusterings, {size: found[order] for size, found in other.items()})
            chance = max([chance, *shuffled.values()])
        return scores if max(scores.values(), default=0) > ABOVE_CHANCE * chance else None

    def _by_words(self) -> dict[int, float] | None:
        rows = weigh_words(self._texts, self._seed)
        if rows is None:
            return None
        return score_agreement(self._clusterings, Granularities.of(rows).cluster_all(self._grid), True)

    def _by_llm(self) -> dict[int, float]:
        assert self._whitened is not None
        return score_granularity(self._view, self._whitened, self._grid[-1], self._seed)

    def _by_silhouette(self) -> dict[int, float]:
        return score_silhouette(self._view, self._clusterings)

    def _by_stability(self) -> dict[int, float]:
        return score_stability(self._view, self._grid, self._seed)

    def _by_eigengap(self) -> int | None:
        return find_eigengap(self._view)

    def _by_hdbscan(self) -> int | None:
        return count_dense_groups(self._view)


def weigh_words(texts: Sequence[str], seed: int) -> np.ndarray | None:
    """Return the TF-IDF of the texts, reduced to unit rows `(n_texts, WORD_DIM)`; None where they share few words."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        weights = TfidfVectorizer(
            sublinear_tf=True, min_df=2, max_df=0.2, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"
        ).fit_transform(texts)
    except ValueError:  # no word is in two texts
        return None
    if weights.shape[1] <= WORD_DIM:
        return None
    reduced = TruncatedSVD(WORD_DIM, random_state=seed).fit_transform(weights)
    return normalize_rows(reduced.astype(np.float32))
