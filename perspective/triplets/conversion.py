"""Convert judgments to training triplets, and make the triplets of the self-training control.

Uses judgments and texts; labels and the gold answers in the records are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perspective.artifacts import LABELS, Judgment, TrainingTriplet
from perspective.errors import DataError
from perspective.options import JudgedOptions, option
from perspective.trust.evidence import Evidence
from perspective.vectors import find_nearer_choices

MIN_EVIDENCE = 0.1  # smallest |2p - 1| of a training triplet: p between 0.45 and 0.55 is left out


@dataclass(frozen=True)
class SelfConvertSettings(JudgedOptions):
    """Which triplets are converted by the embedder."""

    instruction: bool = option(
        "put the data set's instruction of prompts.json before each text, as published", default=False
    )

    def __post_init__(self) -> None:
        """Refuse states, which the embedder does not use."""
        if self.states_path:
            raise DataError("--states_path: the embedder answers by itself; leave it out")


@dataclass(frozen=True)
class ConvertSettings(SelfConvertSettings):
    """Which judgments are converted, and how."""

    check: bool = option(
        "drop answers given in one order if they agree with the embedder's margins no more than noise; "
        "--no_check if the perspective is unrelated to what the embedder represents",
        default=True,
    )
    evidence: bool = option(
        "choice and weight from judge, embedder and answer states together, not from the judge alone", default=False
    )

    def __post_init__(self) -> None:
        """Refuse states that would not be used."""
        if self.states_path and not self.evidence:
            raise DataError("--states_path: answer states are used only with --evidence; add it")


def convert_judgments(
    judgments: Sequence[Judgment], texts: Sequence[str], instruction: str = ""
) -> list[TrainingTriplet]:
    """Make the chosen text the positive and the other the negative; leave out abstentions.

    Args:
        judgments: Judgments, ours or published.
        texts: Texts of the triplets' rows.
        instruction: Prefix of each text in training.

    Returns:
        Triplets weighted by the judge's certainty, |2p - 1|, 0 to 1; 1 without a probability.
    """
    return [
        _make_triplet(judgment, judgment.prediction[0], texts, instruction, _weigh(judgment))
        for judgment in judgments
        if len(judgment.prediction) == 1
    ]


def convert_by_evidence(
    judgments: Sequence[Judgment], texts: Sequence[str], evidence: Evidence, instruction: str = ""
) -> list[TrainingTriplet]:
    """Make the choice with the higher combined evidence the positive.

    Args:
        judgments: Judgments of n triplets; only the triplets are used, the answers are in the evidence.
        texts: Texts of the triplets' rows.
        evidence: Evidence of these triplets, in the same order.
        instruction: Prefix of each text in training.

    Returns:
        Triplets weighted by |2p - 1|, without those below `MIN_EVIDENCE`.

    Raises:
        DataError: The evidence has another number of triplets.
    """
    if len(evidence.probability) != len(judgments):
        raise DataError(f"evidence of {len(evidence.probability)} triplets for {len(judgments)} judgments")
    return [
        _make_triplet(judgment, LABELS[0] if probability > 0.5 else LABELS[1], texts, instruction, float(weight))
        for judgment, probability, weight in zip(judgments, evidence.probability, evidence.confidence, strict=True)
        if weight >= MIN_EVIDENCE
    ]


def convert_by_embedder(
    judgments: Sequence[Judgment], texts: Sequence[str], vectors: np.ndarray, instruction: str = ""
) -> list[TrainingTriplet]:
    """Make the choice nearer to the query in the embedder's space the positive: the self-training control.

    Args:
        judgments: Judgments; only the triplets are used.
        texts: Texts of the triplets' rows.
        vectors: Embeddings `(n_texts, dim)` before fine-tuning.
        instruction: Prefix of each text in training.
    """
    nearer = find_nearer_choices(vectors, [judgment.triplet for judgment in judgments])
    return [
        _make_triplet(judgment, LABELS[0] if first_is_nearer else LABELS[1], texts, instruction, weight=1.0)
        for judgment, first_is_nearer in zip(judgments, nearer, strict=True)
    ]


def _weigh(judgment: Judgment) -> float:
    return 1.0 if judgment.probability is None else abs(2 * judgment.probability - 1)


def _make_triplet(
    judgment: Judgment, choice: str, texts: Sequence[str], instruction: str, weight: float
) -> TrainingTriplet:
    query, choice1, choice2 = (texts[row] for row in judgment.triplet.key)
    positive, negative = (choice1, choice2) if choice == LABELS[0] else (choice2, choice1)
    return TrainingTriplet(instruction, query, positive, negative, judgment.triplet, weight)
