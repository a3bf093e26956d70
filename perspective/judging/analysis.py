"""How right judgments are, by the labels. For analysis alone: nothing that learns may call this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Judgment
from perspective.errors import DataError
from perspective.judging.reliability import assess_reliability

N_QUARTERS = 4


def analyse_judgments(judgments: Sequence[Judgment], vectors: np.ndarray) -> dict[str, Any]:
    """Compare a judge and the embedder with the labels.

    Args:
        judgments: With gold answers in their triplets.
        vectors: Embeddings `(n_texts, dim)`; the embedder's choice is the nearer one (Euclidean).

    Returns:
        Percentages over the triplets of which exactly one choice shares the query's class
        ("decidable"): accuracy of the judge where it answered, of the embedder there and
        everywhere, agreement of the two (consensus), abstention, position bias, and accuracy by
        quarter of confidence, least confident first. None where nothing could be counted.

    Raises:
        DataError: No triplet has a gold answer.
    """
    decidable = [judgment for judgment in judgments if _gold(judgment) is not None]
    if not decidable:
        raise DataError("no triplet has a gold answer: accuracy needs labels, and one choice of the query's class")
    gold = np.array([_gold(judgment) for judgment in decidable])
    embedder = np.array([nearer_choice(vectors, judgment) for judgment in decidable])
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
        "answers_naming_choice_1": _percent(np.array([answer == LABELS[0] for answer in given])),
        "answers_naming_first_position": _as_percent(reliability.position1_fraction),
        "order_kappa": reliability.order_kappa,
        "llm_accuracy_by_confidence_quarter": _accuracy_by_quarter(decidable, gold),
    }


def nearer_choice(vectors: np.ndarray, judgment: Judgment) -> str:
    """Return the label of the choice that lies nearer to the query; a tie goes to choice 2, as published."""
    query, choice1, choice2 = (vectors[row] for row in judgment.triplet.key)
    return LABELS[0] if ((query - choice1) ** 2).sum() < ((query - choice2) ** 2).sum() else LABELS[1]


def format_analysis(analysis: dict[str, Any]) -> str:
    """Return the analysis as lines of a table."""
    lines = []
    for name, value in analysis.items():
        if isinstance(value, list):
            value = "  ".join("-" if part is None else f"{part:.1f}" for part in value)
        elif isinstance(value, float):
            value = f"{value:.2f}" if name == "order_kappa" else f"{value:.1f}"
        lines.append(f"{name.replace('_', ' '):40s} {'-' if value is None else value}")
    return "\n".join(lines)


def _gold(judgment: Judgment) -> str | None:
    gold = (judgment.triplet.gold or "").strip()
    return gold if gold in LABELS else None


def _leaning_accuracy(decidable: Sequence[Judgment], gold: np.ndarray) -> float | None:
    """Accuracy of the likelier choice, also where the two orders disagree."""
    known = np.array([judgment.probability is not None for judgment in decidable])
    if not known.any():
        return None
    leaning = [LABELS[0] if (judgment.probability or 0.0) > 0.5 else LABELS[1] for judgment in decidable]
    return _percent(np.array(leaning)[known] == gold[known])


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
