"""What several sources together say about each triplet, told without labels.

A source gives every triplet a score: positive for choice 1, negative for choice 2, 0 for no opinion,
on a scale of its own. How far each is believed follows from how the sources agree with one another.

The model is that of Dawid and Skene (1979, "Maximum likelihood estimation of observer error-rates
using the EM algorithm") with scores in place of votes: the right answer is z = +1 or -1, and a
source's score, scaled to a mean square of 1, is drawn from N(mu z, 1 - mu^2). Where two sources err
independently, E[x_i x_j] = mu_i mu_j, so that three of them determine their mu in closed form: the
triplet method of FlyingSquid (Fu et al., 2020, "Fast and three-rious", section 3). Agreement cannot
tell a source from its opposite: most sources are taken to be better than chance.

Sources that share their errors agree for the wrong reason. Where that is known beforehand (an
embedder and answer states are both swayed by how a single text is worded), their agreement is kept
out of the estimate, and what they share counts once. Unknown, it makes the evidence overconfident.
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
DEPENDENT = (EMBEDDER, STATES)  # share errors: each reads one text at a time

# mu: 0 is chance; for scores of normal distribution 0.3 is right in 62%, 0.45 in 69%, 0.9 in 98%
DEFAULT_RELIABILITY = 0.3  # of a source that no other confirms
TYPICAL_RELIABILITY = 0.45  # MiniLM's margin where it is uncertain: 0.49 on banking77, 0.37 on stackexchange
PRIOR_SPREAD = 0.2  # standard deviation of mu around the typical one
MAX_RELIABILITY = 0.9  # agreement alone never shows more
SIGNIFICANCE = 2.0  # standard errors by which two sources must agree
MIN_SHARED = 30  # triplets on which both must speak
NOISE = 0.1  # agreement below which answers may be a coin's; Starling's: 0.29 on banking77, 0.19 on mtop_domain
MAX_SCORE = 3.0  # robust standard deviations at which scores are clipped
MAX_LOGIT = 10.0  # of a judge's probability: 0 and 1 are no certainty
MIN_ERROR = 0.01  # least variance of the errors in any direction
N_ROUNDS = 1000


@dataclass(frozen=True)
class Evidence:
    """What the sources say about n triplets.

    Attributes:
        probability: `(n,)`, that choice 1 is closer, by all sources together.
        log_odds: `(n,)` by source: what each adds to the logit of the probability.
        reliability: mu by source, 0 (not believed) to `MAX_RELIABILITY`: the correlation between a
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
    """Combine a judge's answers with the embedder's margin and, where given, that of answer states.

    Args:
        judgments: Of n triplets.
        vectors: Embeddings `(n_texts, dim)`.
        states: Answer states `(n_texts, hidden)` as the LLM gave them.
        judge: What the answers count as, see `name_source`; None leaves them out, as those of a
            judge known to be unreliable.

    Returns:
        Evidence of the sources "llm", "embedder" and "states", as far as they are there.
    """
    triplets = [judgment.triplet for judgment in judgments]
    sources = {judge: score_judgments(judgments)} if judge is not None else {}
    sources[EMBEDDER] = score_margins(vectors, triplets)
    if states is not None:  # in place of answers that were told from states
        sources[STATES] = score_margins(half_whiten(states), triplets)
    return combine_sources(sources)


def is_noise(judgments: Sequence[Judgment], vectors: np.ndarray) -> bool:
    """Tell whether a judge's answers have too little in common with the embedder's margins to be more than noise.

    The embedder is weak where it was uncertain, but it errs in other ways than an LLM does: what is
    told of the texts agrees with it. Few judgments get the benefit of the doubt: the agreement, a
    correlation, must lie below `NOISE` by `SIGNIFICANCE` standard errors.

    Args:
        judgments: Of triplets of n texts.
        vectors: The untouched embedder's `(n_texts, dim)`.
    """
    triplets = [judgment.triplet for judgment in judgments]
    scores = _standardise_all({LLM: score_judgments(judgments), EMBEDDER: score_margins(vectors, triplets)})
    shared = int((scores != 0).all(axis=0).sum())
    return bool(scores[0] @ scores[1] / max(shared, 1) + SIGNIFICANCE / max(shared, 1) ** 0.5 < NOISE)


def is_trusted(judgments: Sequence[Judgment], vectors: np.ndarray | None) -> bool:
    """Tell without labels whether a judge's answers are fit to train on, and log why not.

    Args:
        judgments: Of triplets of n texts.
        vectors: The untouched embedder's `(n_texts, dim)`, to check answers of one order against;
            None for no check.
    """
    reliability = assess_reliability(judgments)
    if not reliability.is_reliable:
        logger.warning("judge unreliable, its answers are not used: %s", reliability.describe())
        return False
    if vectors is not None and is_noise(judgments, vectors):
        logger.warning(
            "judge unreliable, its answers are not used: given in one order, they agree with the embedder no more than "
            "noise; ask in both (--orders 2), or convert with --no_check"
        )
        return False
    return True


def name_source(judge: JudgeRecord | None) -> str:
    """Return what a judge's answers count as, by what is recorded about it.

    >>> name_source(JudgeRecord(name="smollm2", kind="answer")), name_source(None)
    ('states', 'llm')
    """
    return STATES if judge and judge.reads_states else LLM


def score_judgments(judgments: Sequence[Judgment]) -> np.ndarray:
    """Return a judge's scores: log-odds, or hard answers where it gave no probability.

    Where only some judgments have a probability, a hard answer counts like a typical one of these.

    Returns:
        `(n,)`; 0 for an abstention without a probability.
    """
    from scipy.special import logit

    # (n,) +1, -1 or 0
    answers = np.array([_sign(judgment.prediction) for judgment in judgments], dtype=np.float64)
    known = np.array([judgment.probability is not None for judgment in judgments], dtype=bool)
    if not known.any():
        return answers
    told = np.array([judgment.probability for judgment in judgments if judgment.probability is not None])
    logits = np.clip(logit(told), -MAX_LOGIT, MAX_LOGIT)
    scores = answers * np.median(np.abs(logits))
    scores[known] = logits
    return scores


def combine_sources(sources: Mapping[str, np.ndarray], dependent: Collection[str] = DEPENDENT) -> Evidence:
    """Estimate how far each source is to be believed, and add up their log-odds.

    A source that errs on its own adds 2 mu x / (1 - mu^2), a vote without degrees
    ln((1 + mu) / (1 - mu)): a product of experts. Sources that agree with no other beyond chance
    are not believed; where that leaves none, the one named "embedder", or a single source, counts
    with `DEFAULT_RELIABILITY`.

    Args:
        sources: Scores `(n,)` by name, of the same n triplets.
        dependent: Names of sources that share errors; their agreement says nothing of their
            reliability.

    Raises:
        DataError: There is no source, or one has another shape or holds NaN or infinity.

    >>> evidence = combine_sources({"embedder": np.array([0.2, 0.0, -0.1])})
    >>> evidence.probability.round(2).tolist(), evidence.reliability
    ([0.7, 0.5, 0.4], {'embedder': 0.3})
    """
    from scipy.special import expit

    names, scores = list(sources), _standardise_all(sources)
    speaks = (scores != 0).astype(np.float64)  # (n_sources, n)
    shared = speaks @ speaks.T  # (n_sources, n_sources)
    agreement = scores @ scores.T / np.maximum(shared, 1)
    in_group = np.array([name in dependent for name in names])
    mu = _estimate_reliability(agreement, shared, ~np.outer(in_group, in_group))
    if not mu.any():
        alone = names[0] if len(names) == 1 else EMBEDDER
        mu = np.array([DEFAULT_RELIABILITY if name == alone else 0.0 for name in names]) * (np.diag(shared) > 0)
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
    """Check scores and scale them, `(n_sources, n)`."""
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
    """Scale to a mean square of 1 where the source speaks; a few huge scores do not set the scale."""
    spoken = score != 0
    if not spoken.any():
        return np.zeros_like(score)
    middle = np.percentile(np.abs(score[spoken]), 50, method="lower")
    with np.errstate(over="ignore"):  # what overflows is clipped
        # 1.48 median absolute values are one standard deviation of a normal distribution around 0.
        score = np.clip(score / middle / 1.4826, -MAX_SCORE, MAX_SCORE)
    return score / np.sqrt((score[spoken] ** 2).mean())


def _estimate_reliability(agreement: np.ndarray, shared: np.ndarray, independent: np.ndarray) -> np.ndarray:
    """Fit mu_i mu_j to the agreement of each pair of sources.

    Least squares over the independent pairs, each weighted by the triplets on which both speak;
    with three sources this is the triplet method. A normal prior, `TYPICAL_RELIABILITY` give or
    take `PRIOR_SPREAD`, settles what agreement leaves open: it gives two sources the same mu, the
    square root of their agreement, and keeps one from being taken for infallible where two others
    hardly agree.

    Args:
        agreement: Mean products of standardised scores, `(n_sources, n_sources)`.
        shared: Triplets on which both speak, `(n_sources, n_sources)`.
        independent: Pairs whose agreement means reliability, `(n_sources, n_sources)` bool.

    Returns:
        `(n_sources,)`, all 0 where no two sources agree.
    """
    others = ~np.eye(len(agreement), dtype=bool) & (shared >= MIN_SHARED)
    # Scores that have nothing to do with one another have a mean product of 0 +- 1 / sqrt(shared).
    believed = (others & (agreement * np.sqrt(shared) > SIGNIFICANCE)).any(axis=1)
    weights = shared * (others & independent & np.outer(believed, believed))
    mu = np.where(believed, TYPICAL_RELIABILITY, 0.0)
    pull = PRIOR_SPREAD**-2
    for _ in range(N_ROUNDS):
        before = mu.copy()
        for i in np.flatnonzero(believed):
            towards = (weights[i] * agreement[i]) @ mu + pull * TYPICAL_RELIABILITY
            mu[i] = np.clip(towards / (weights[i] @ mu**2 + pull), 0.0, MAX_RELIABILITY)
        if np.abs(mu - before).max() < 1e-9:
            break
    return mu


def _weigh(scores: np.ndarray, mu: np.ndarray, agreement: np.ndarray) -> np.ndarray:
    """Return each source's log-odds `(n_sources, n)`: 2 mu' S^-1 x, S the covariance of the errors.

    What two sources agree beyond mu_i mu_j are shared errors, which count once. S is diagonal
    without them, and the log-odds are 2 mu x / (1 - mu^2).
    """
    believed = np.flatnonzero(mu)
    log_odds = np.zeros_like(scores)
    if not believed.size:
        return log_odds
    mu_mu = np.outer(mu, mu)[np.ix_(believed, believed)]
    errors = np.maximum(agreement[np.ix_(believed, believed)] - mu_mu, 0)
    np.fill_diagonal(errors, 1 - mu[believed] ** 2)
    values, directions = np.linalg.eigh(errors)  # pairs counted on different triplets may not fit together
    errors = (directions * np.maximum(values, MIN_ERROR)) @ directions.T
    speaks = scores[believed] != 0
    for pattern in np.unique(speaks, axis=1).T:  # who speaks
        columns = (speaks == pattern[:, None]).all(axis=0)
        weights = _solve_positive(errors, mu[believed], pattern)
        log_odds[np.ix_(believed, columns)] = weights[:, None] * scores[np.ix_(believed, columns)]
    for i in believed:
        if _has_one_strength(scores[i]):  # no normal variable: right with probability (1 + mu) / 2
            log_odds[i] *= np.arctanh(mu[i]) * (1 - mu[i] ** 2) / mu[i]
    return log_odds


def _solve_positive(errors: np.ndarray, mu: np.ndarray, speaks: np.ndarray) -> np.ndarray:
    """Return 2 S^-1 mu over the sources that speak; one whose weight would be negative is left out."""
    weights = np.zeros(len(mu))
    used = np.flatnonzero(speaks)
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
