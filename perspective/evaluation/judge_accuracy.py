"""Accuracy of judgments, by the labels. For analysis only: no training code may call this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Judgment
from perspective.errors import DataError
from perspective.evaluation.calibration import bin_confidence, measure_calibration_error, measure_confidence
from perspective.trust.evidence import EMBEDDER, LLM, Evidence, gather_evidence
from perspective.trust.reliability import assess_reliability
from perspective.vectors import find_nearer_choices

N_QUARTERS = 4


def analyse_judgments(
    judgments: Sequence[Judgment], vectors: np.ndarray, states: np.ndarray | None = None, judge: str = LLM
) -> dict[str, Any]:
    """Compare a judge, the embedder and their combined evidence with the labels.

    Args:
        judgments: With gold answers in their triplets.
        vectors: Embeddings `(n_texts, dim)`; the embedder's choice is the nearer one (Euclidean).
        states: Answer states `(n_texts, hidden)`, another source of evidence.
        judge: Name of the answers as a source of evidence, see `name_source`.

    Returns:
        Percentages over the "decidable" triplets, in which exactly one choice has the query's class:
        accuracy of the judge on the triplets it answered, accuracy of the embedder on those and on
        all, agreement of the two (consensus), position bias, and accuracy by quarter of confidence,
        lowest first. Abstention on all triplets, on the decidable ones, and on those in which
        neither choice has the class. Accuracy of the combined evidence, the trust in each source
        (mu, 0 to 1), its reliability curve, and the expected calibration errors. None if there is
        nothing to count.

    Raises:
        DataError: No triplet has a gold answer.
    """
    decidable = [judgment for judgment in judgments if _gold(judgment) is not None]
    if not decidable:
        raise DataError("no triplet has a gold answer: accuracy needs labels, and one choice of the query's class")
    gold = np.array([_gold(judgment) for judgment in decidable])
    nearer = find_nearer_choices(vectors, [judgment.triplet for judgment in decidable])
    embedder = np.where(nearer, *LABELS)
    answers = np.array([judgment.prediction[0] if judgment.prediction else "" for judgment in decidable])
    answered = answers != ""
    reliability = assess_reliability(judgments)
    given = [judgment.prediction[0] for judgment in judgments if judgment.prediction]
    return {
        "n_judgments": len(judgments),
        "n_decidable": len(decidable),
        "llm_accuracy": _percent(answers[answered] == gold[answered]),
        "llm_n_answered": int(answered.sum()),
        "llm_leaning_accuracy": _leaning_accuracy(decidable, gold),
        "embedder_accuracy_where_llm_answered": _percent(embedder[answered] == gold[answered]),
        "embedder_accuracy": _percent(embedder == gold),
        "consensus": _percent(answers[answered] == embedder[answered]),
        "abstention": _percent(np.array([not judgment.prediction for judgment in judgments])),
        "abstention_where_decidable": _percent(~answered),
        "abstention_where_neither_is_right": _percent(
            np.array([not judgment.prediction for judgment in judgments if judgment.triplet.gold is None])
        ),
        "answers_naming_choice_1": _percent(np.array([answer == LABELS[0] for answer in given])),
        "answers_naming_first_position": _as_percent(reliability.position1_fraction),
        "order_kappa": reliability.order_kappa,
        "llm_accuracy_by_confidence_quarter": _accuracy_by_quarter(decidable, gold),
        **_analyse_evidence(judgments, gather_evidence(judgments, vectors, states, judge)),
    }


def format_analysis(analysis: dict[str, Any]) -> str:
    """Format the analysis as a table, one line a figure."""
    lines = []
    for name, value in analysis.items():
        if name.endswith("_curve"):
            value = "  ".join(f"{part['confidence']:.0f}:{part['accuracy']:.0f} ({part['n']})" for part in value)
        elif isinstance(value, list):
            value = "  ".join("-" if part is None else f"{part:.1f}" for part in value)
        elif isinstance(value, float):
            value = f"{value:.2f}" if name == "order_kappa" or name.endswith("_reliability") else f"{value:.1f}"
        lines.append(f"{name.replace('_', ' '):40s} {'-' if value is None else value}")
    return "\n".join(lines)


def _analyse_evidence(judgments: Sequence[Judgment], evidence: Evidence) -> dict[str, Any]:
    """Compare the evidence with the labels of the decidable triplets."""
    from scipy.special import expit as sigmoid

    rows = np.array([i for i, judgment in enumerate(judgments) if _gold(judgment) is not None])
    is_choice1 = np.array([_gold(judgments[i]) == LABELS[0] for i in rows])
    answers = [(judgments[i].probability, right) for i, right in zip(rows, is_choice1, strict=True)]
    known = np.array([pair for pair in answers if pair[0] is not None], dtype=np.float64).reshape(-1, 2)
    probability = evidence.probability[rows]
    confidence, right = measure_confidence(probability, is_choice1)
    quarters = np.array_split(right[np.argsort(confidence, kind="stable")], N_QUARTERS)
    curve = [asdict(one) for one in bin_confidence(probability, is_choice1)]
    embedder_probability = sigmoid(evidence.log_odds[EMBEDDER][rows])
    return {
        "evidence_accuracy": _percent(right),
        "evidence_accuracy_by_confidence_quarter": [_percent(quarter) for quarter in quarters],
        **{f"{name}_reliability": mu for name, mu in evidence.reliability.items()},
        "evidence_curve": [
            {**one, "confidence": 100 * one["confidence"], "accuracy": 100 * one["accuracy"]} for one in curve
        ],
        "llm_calibration_error": _as_percent(measure_calibration_error(known[:, 0], known[:, 1] == 1)),
        "embedder_calibration_error": _as_percent(measure_calibration_error(embedder_probability, is_choice1)),
        "evidence_calibration_error": _as_percent(measure_calibration_error(probability, is_choice1)),
    }


def _gold(judgment: Judgment) -> str | None:
    gold = (judgment.triplet.gold or "").strip()
    return gold if gold in LABELS else None


def _leaning_accuracy(decidable: Sequence[Judgment], gold: np.ndarray) -> float | None:
    """Return the accuracy of the likelier choice, including judgments whose two orders disagree."""
    choices = [(judgment.leaning, label) for judgment, label in zip(decidable, gold, strict=True)]
    return _percent(np.array([leaning == label for leaning, label in choices if leaning is not None]))


def _accuracy_by_quarter(decidable: Sequence[Judgment], gold: np.ndarray) -> list[float | None] | None:
    rated = [
        (judgment.confidence, judgment.prediction[0] == label)
        for judgment, label in zip(decidable, gold, strict=True)
        if judgment.prediction and judgment.confidence is not None
    ]
    if not rated:
        return None
    right = np.array([right for _, right in sorted(rated, key=lambda pair: pair[0])])
    return [_percent(quarter) for quarter in np.array_split(right, N_QUARTERS)]


def _percent(hits: np.ndarray) -> float | None:
    return _as_percent(float(hits.mean())) if hits.size else None


def _as_percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
