"""Calibration of probabilities, measured by the labels. For analysis only: no training code may call this."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perspective.errors import DataError

N_BINS = 10


@dataclass(frozen=True)
class ConfidenceBin:
    """Answers of similar confidence.

    Attributes:
        confidence: Mean confidence, 0.5 to 1.
        accuracy: Fraction of correct answers.
        n: Number of answers.
    """

    confidence: float
    accuracy: float
    n: int


def measure_confidence(probability: np.ndarray, is_choice1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and correctness of answers.

    Args:
        probability: `(n,)`, probability that choice 1 is closer.
        is_choice1: `(n,)` bool, whether choice 1 is closer.

    Returns:
        Confidence `(n,)`, 0.5 to 1, and correctness `(n,)`: 1, 0, or 0.5 if the probability is 0.5.

    Raises:
        DataError: The shapes differ, or a probability is not between 0 and 1.
    """
    probability, is_choice1 = np.asarray(probability, dtype=np.float64), np.asarray(is_choice1, dtype=bool)
    if probability.ndim != 1 or probability.shape != is_choice1.shape:
        raise DataError(f"probabilities of shape {probability.shape} for answers of shape {is_choice1.shape}")
    if not ((probability >= 0) & (probability <= 1)).all():  # NaN, too
        raise DataError("a probability must be between 0 and 1")
    right = np.where(probability == 0.5, 0.5, (probability > 0.5) == is_choice1)
    return np.maximum(probability, 1 - probability), right


def bin_confidence(probability: np.ndarray, is_choice1: np.ndarray, n_bins: int = N_BINS) -> list[ConfidenceBin]:
    """Return the reliability curve: accuracy by confidence, in bins of equal width, without empty ones.

    >>> bin_confidence(np.array([0.9, 0.1, 0.6]), np.array([True, True, True]), n_bins=2)
    [ConfidenceBin(confidence=0.6, accuracy=1.0, n=1), ConfidenceBin(confidence=0.9, accuracy=0.5, n=2)]
    """
    confidence, right = measure_confidence(probability, is_choice1)
    places = np.minimum((2 * confidence - 1) * n_bins, n_bins - 1).astype(int)
    members = [places == place for place in np.unique(places)]
    return [ConfidenceBin(float(confidence[one].mean()), float(right[one].mean()), int(one.sum())) for one in members]


def measure_calibration_error(probability: np.ndarray, is_choice1: np.ndarray, n_bins: int = N_BINS) -> float | None:
    """Return the expected calibration error: mean distance between confidence and accuracy over the bins.

    "Obtaining well calibrated probabilities using Bayesian binning" (Naeini et al., 2015). For
    calibrated probabilities it is not 0 either: about 0.04 at 500 answers.

    Returns:
        0 to 1; None if there are no answers.
    """
    bins = bin_confidence(probability, is_choice1, n_bins)
    n = sum(one.n for one in bins)
    return sum(abs(one.confidence - one.accuracy) * one.n for one in bins) / n if n else None
