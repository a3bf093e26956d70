"""Combine several weak judges of a triplet without labels.

Each source gives every triplet a score: positive for choice 1, negative for choice 2, 0 for an
abstention. Scales may differ. The reliability of a source is estimated from its agreement with the
others.

The model is that of Dawid and Skene (1979, "Maximum likelihood estimation of observer error-rates
using the EM algorithm") with scores instead of votes: the right answer is z = +1 or -1, and a
source's score, scaled to a mean square of 1, is drawn from N(mu z, 1 - mu^2). For two sources with
independent errors, E[x_i x_j] = mu_i mu_j, so three of them determine their mu in closed form: the
triplet method of FlyingSquid (Fu et al., 2020, "Fast and three-rious", section 3). Agreement does
not distinguish a source from its opposite: most sources are assumed to be better than chance.

Sources with correlated errors agree too often. If the correlation is known (embedder and answer
states both depend on the wording of single texts), their agreement is left out of the estimate and
shared errors count once. Unknown correlations make the evidence overconfident.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perspective.artifacts import LABELS, JudgeRecord, Judgment
from perspective.errors import DataError
from perspective.trust.reliability import assess_reliability
from perspective.vectors import half_whiten, score_margins

logger = logging.getLogger(__name__)

LLM, EMBEDDER, STATES = "llm", "embedder", "states"
DEPENDENT = (EMBEDDER, STATES)  # correlated errors: each reads one text at a time

# mu: 0 is chance; for normally distributed scores 0.3 is right in 62%, 0.45 in 69%, 0.9 in 98%
DEFAULT_RELIABILITY = 0.3  # if no other source agrees
TYPICAL_RELIABILITY = 0.45  # MiniLM's margin on its uncertain triplets: 0.49 on banking77, 0.37 on stackexchange
PRIOR_SPREAD = 0.2  # standard deviation of the prior on mu
MAX_RELIABILITY = 0.9  # agreement alone is no evidence for more
SIGNIFICANCE = 2.0  # standard errors by which the agreement of two sources must exceed 0
MIN_SHARED = 30  # triplets that both sources must answer
MAX_SCORE = 3.0  # scores are clipped at this many robust standard deviations
MAX_LOGIT = 10.0  # limit of a judge's log-odds: probabilities 0 and 1 are not certain
MIN_ERROR = 0.01  # smallest variance of the errors in any direction
N_ROUNDS = 1000  # maximum number of iterations


@dataclass(frozen=True)
class Evidence:
    """Combined evidence for n triplets.

    Attributes:
        probability: `(n,)`, probability that choice 1 is closer, from all sources.
        log_odds: `(n,)` by source: its contribution to the logit of the probability.
        reliability: mu by source, 0 (not trusted) to `MAX_RELIABILITY`: the correlation between a
            source's scores and the right answers.
    """

    probability: np.ndarray
    log_odds: dict[str, np.ndarray]
    reliability: dict[str, float]

    @property
    def confidence(self) -> np.ndarray:
        """Weight of each triplet, `(n,)`: |2p - 1|, 0 to 1."""
        return np.abs(2 * self.probability - 1)


def gather_evidence(
    judgments: Sequence[Judgment], vectors: np.ndarray, states: np.ndarray | None = None, judge: str | None = LLM
) -> Evidence:
    """Combine a judge's answers with the margins of the embedder and, if given, of answer states.

    Args:
        judgments: Judgments of n triplets.
        vectors: Embeddings `(n_texts, dim)`.
        states: Answer states `(n_texts, hidden)`, not whitened.
        judge: Source name of the answers, see `name_source`; None leaves them out, for an
            unreliable judge.

    Returns:
        Evidence from the available sources of "llm", "embedder" and "states".
    """
    triplets = [judgment.triplet for judgment in judgments]
    sources = {judge: score_judgments(judgments)} if judge is not None else {}
    sources[EMBEDDER] = score_margins(vectors, triplets)
    if states is not None:  # replaces answers inferred from states, if any
        sources[STATES] = score_margins(half_whiten(states), triplets)
    return combine_sources(sources)


def is_noise(judgments: Sequence[Judgment], vectors: np.ndarray) -> bool:
    """Return whether a judge's answers correlate with the embedder's margins by no more than noise does.

    The embedder is weak on the triplets it is uncertain about, but its errors differ from an LLM's:
    answers based on the texts correlate with its margins (Starling's by 0.29 on banking77, 0.19 on
    mtop_domain). The correlation must exceed 0 by `SIGNIFICANCE` standard errors, so few judgments
    must correlate more.

    Args:
        judgments: Judgments of triplets of n texts.
        vectors: Vectors of the embedder before fine-tuning, `(n_texts, dim)`.
    """
    triplets = [judgment.triplet for judgment in judgments]
    scores = _standardise_all({LLM: score_judgments(judgments), EMBEDDER: score_margins(vectors, triplets)})
    shared = int((scores != 0).all(axis=0).sum())
    return bool(scores[0] @ scores[1] / max(shared, 1) ** 0.5 <= SIGNIFICANCE)


def is_trusted(judgments: Sequence[Judgment], vectors: np.ndarray | None, in_two_orders: bool = False) -> bool:
    """Return, without labels, whether a judge's answers can be used for training; log the reason if not.

    Args:
        judgments: Judgments of triplets of n texts.
        vectors: Vectors of the embedder before fine-tuning, `(n_texts, dim)`, to check answers that
            cannot be compared in two orders; None for no check.
        in_two_orders: Whether each triplet was asked in both orders, and answered only where these agree.
    """
    reliability = assess_reliability(judgments)
    if not reliability.is_reliable:
        logger.warning("judge unreliable, its answers are not used: %s", reliability.describe())
        return False
    agrees = reliability.order_kappa is not None or (in_two_orders and reliability.agrees_beyond_guessing)
    if not agrees and vectors is not None and is_noise(judgments, vectors):
        logger.warning(
            "judge unreliable, its answers are not used: they agree with the embedder, the only thing to compare them "
            "with, no more than noise would; use --orders 2 or judge more triplets"
        )
        return False
    return True


def name_source(judge: JudgeRecord | None) -> str:
    """Return the source name of a judge's answers, from its record.

    >>> name_source(JudgeRecord(name="smollm2", kind="answer")), name_source(None)
    ('states', 'llm')
    """
    return STATES if judge and judge.reads_states else LLM


def score_judgments(judgments: Sequence[Judgment]) -> np.ndarray:
    """Return a judge's scores: log-odds, or +1 and -1 for answers without a probability.

    If only some judgments have a probability, answers without one get the median of their log-odds.

    Returns:
        `(n,)`; 0 for an abstention without a probability.
    """
    from scipy.special import logit

    # (n,) +1, -1 or 0
    answers = np.array([_sign(judgment.prediction) for judgment in judgments], dtype=np.float64)
    known = np.array([judgment.probability is not None for judgment in judgments], dtype=bool)
    if not known.any():
        return answers
    probabilities = np.array([judgment.probability for judgment in judgments if judgment.probability is not None])
    logits = np.clip(logit(probabilities), -MAX_LOGIT, MAX_LOGIT)
    scores = answers * np.median(np.abs(logits))
    scores[known] = logits
    return scores


def combine_sources(sources: Mapping[str, np.ndarray], dependent: Collection[str] = DEPENDENT) -> Evidence:
    """Estimate the reliability of each source and add up their log-odds.

    A source with independent errors adds 2 mu x / (1 - mu^2), a vote without a strength
    ln((1 + mu) / (1 - mu)): a product of experts. Sources that agree with no other beyond chance
    are not trusted. If none is left, the source "embedder", or a single source, gets
    `DEFAULT_RELIABILITY`.

    Args:
        sources: Scores `(n,)` by name, of the same n triplets.
        dependent: Names of sources with correlated errors; their agreement is not used to
            estimate reliability.

    Raises:
        DataError: There is no source, or one has another shape or holds NaN or infinity.

    >>> evidence = combine_sources({"embedder": np.array([0.2, 0.0, -0.1])})
    >>> evidence.probability.round(2).tolist(), evidence.reliability
    ([0.7, 0.5, 0.4], {'embedder': 0.3})
    """
    from scipy.special import expit

    names, scores = list(sources), _standardise_all(sources)
    answered = (scores != 0).astype(np.float64)  # (n_sources, n)
    shared = answered @ answered.T  # (n_sources, n_sources)
    agreement = scores @ scores.T / np.maximum(shared, 1)
    is_dependent = np.array([name in dependent for name in names])
    mu = _estimate_reliability(agreement, shared, ~np.outer(is_dependent, is_dependent))
    if not mu.any():
        fallback = names[0] if len(names) == 1 else EMBEDDER
        mu = np.array([DEFAULT_RELIABILITY if name == fallback else 0.0 for name in names]) * (np.diag(shared) > 0)
    log_odds = _weigh(scores, mu, agreement)
    return Evidence(
        probability=expit(log_odds.sum(axis=0)),
        log_odds=dict(zip(names, log_odds, strict=True)),
        reliability=dict(zip(names, mu.tolist(), strict=True)),
    )


def _sign(prediction: tuple[str, ...]) -> int:
    if len(prediction) != 1:
        return 0
    return 1 if prediction[0] == LABELS[0] else -1


def _standardise_all(sources: Mapping[str, np.ndarray]) -> np.ndarray:
    """Check and standardise the scores, `(n_sources, n)`."""
    if not sources:
        raise DataError("no source of evidence")
    rows = []
    n_triplets = len(np.atleast_1d(next(iter(sources.values()))))
    for name, values in sources.items():
        score = np.asarray(values, dtype=np.float64)
        if score.shape != (n_triplets,):
            raise DataError(f'source "{name}": scores must have shape ({n_triplets},), got {score.shape}')
        if not np.isfinite(score).all():
            raise DataError(f'source "{name}": score {int((~np.isfinite(score)).argmax())} is NaN or infinite')
        rows.append(_standardise(score))
    return np.stack(rows)


def _standardise(score: np.ndarray) -> np.ndarray:
    """Scale the nonzero scores to a mean square of 1, robustly against outliers."""
    answered = score != 0
    if not answered.any():
        return np.zeros_like(score)
    median = np.percentile(np.abs(score[answered]), 50, method="lower")
    with np.errstate(over="ignore"):  # overflows are clipped
        # 1.48 median absolute values are one standard deviation of a normal distribution around 0.
        score = np.clip(score / median / 1.4826, -MAX_SCORE, MAX_SCORE)
    return score / np.sqrt((score[answered] ** 2).mean())


def _estimate_reliability(agreement: np.ndarray, shared: np.ndarray, independent: np.ndarray) -> np.ndarray:
    """Fit mu_i mu_j to the agreement of each pair of sources.

    Least squares over the independent pairs, each weighted by the number of triplets that both
    sources answered; with three sources this is the triplet method. A normal prior with mean
    `TYPICAL_RELIABILITY` and standard deviation `PRIOR_SPREAD` makes the solution unique: two
    sources get the same mu, the square root of their agreement, and no source gets a mu near 1
    only because two others hardly agree.

    Args:
        agreement: Mean products of standardised scores, `(n_sources, n_sources)`.
        shared: Number of triplets that both sources answered, `(n_sources, n_sources)`.
        independent: Pairs with independent errors, `(n_sources, n_sources)` bool.

    Returns:
        `(n_sources,)`, all 0 if no two sources agree.
    """
    others = ~np.eye(len(agreement), dtype=bool) & (shared >= MIN_SHARED)
    # Independent scores have a mean product of 0 +- 1 / sqrt(shared).
    trusted = (others & (agreement * np.sqrt(shared) > SIGNIFICANCE)).any(axis=1)
    weights = shared * (others & independent & np.outer(trusted, trusted))
    mu = np.where(trusted, TYPICAL_RELIABILITY, 0.0)
    precision = PRIOR_SPREAD**-2
    for _ in range(N_ROUNDS):
        before = mu.copy()
        for i in np.flatnonzero(trusted):
            target = (weights[i] * agreement[i]) @ mu + precision * TYPICAL_RELIABILITY
            mu[i] = np.clip(target / (weights[i] @ mu**2 + precision), 0.0, MAX_RELIABILITY)
        if np.abs(mu - before).max() < 1e-9:
            break
    return mu


def _weigh(scores: np.ndarray, mu: np.ndarray, agreement: np.ndarray) -> np.ndarray:
    """Return each source's log-odds `(n_sources, n)`: 2 mu' S^-1 x, S the covariance of the errors.

    Agreement of two sources beyond mu_i mu_j comes from shared errors, which count once. Without
    them S is diagonal and the log-odds are 2 mu x / (1 - mu^2).
    """
    trusted = np.flatnonzero(mu)
    log_odds = np.zeros_like(scores)
    if not trusted.size:
        return log_odds
    mu_mu = np.outer(mu, mu)[np.ix_(trusted, trusted)]
    errors = np.maximum(agreement[np.ix_(trusted, trusted)] - mu_mu, 0)
    np.fill_diagonal(errors, 1 - mu[trusted] ** 2)
    # Not always positive definite, since pairs are estimated on different triplets.
    values, directions = np.linalg.eigh(errors)
    errors = (directions * np.maximum(values, MIN_ERROR)) @ directions.T
    answered = scores[trusted] != 0
    for pattern in np.unique(answered, axis=1).T:  # each set of sources that answered
        columns = (answered == pattern[:, None]).all(axis=0)
        weights = _solve_positive(errors, mu[trusted], pattern)
        log_odds[np.ix_(trusted, columns)] = weights[:, None] * scores[np.ix_(trusted, columns)]
    for i in trusted:
        if _has_one_strength(scores[i]):  # votes, not normal: right with probability (1 + mu) / 2
            log_odds[i] *= np.arctanh(mu[i]) * (1 - mu[i] ** 2) / mu[i]
    return log_odds


def _solve_positive(errors: np.ndarray, mu: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """Return 2 S^-1 mu over the sources that answered, without those whose weight would be negative."""
    weights = np.zeros(len(mu))
    used = np.flatnonzero(answered)
    while used.size:
        solved = 2 * np.linalg.solve(errors[np.ix_(used, used)], mu[used])
        if (solved >= 0).all():
            weights[used] = solved
            break
        used = np.delete(used, solved.argmin())
    return weights


def _has_one_strength(score: np.ndarray) -> bool:
    strengths = np.abs(score[score != 0])
    return bool(strengths.size) and float(np.ptp(strengths)) < 1e-9
