"""Judgments to training triplets, and the self-training control.

Reads judgments and texts; labels and the gold answers in the records are not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perspective.artifacts import LABELS, Judgment, TrainingTriplet, stack_rows
from perspective.errors import DataError
from perspective.options import JudgedOptions, option
from perspective.trust.evidence import Evidence

logger = logging.getLogger(__name__)

MIN_EVIDENCE = 0.1  # |2p - 1| below which combined evidence is no answer: p between 0.45 and 0.55


@dataclass(frozen=True)
class ConvertSettings(JudgedOptions):
    """Which judgments are converted, and how."""

    check: bool = option(
        "make nothing of answers given in one order that agree with the embedder's margins no more than "
        "noise does; --no_check where the perspective has nothing to do with what the embedder holds",
        default=True,
    )
    evidence: bool = option("answer and weigh by judge, embedder and states together, not by the judge", default=False)
    instruction: bool = option(
        "put the data set's instruction of prompts.json before each text, as published", default=False
    )

    def __post_init__(self) -> None:
        """Refuse states that nothing would read."""
        if self.states_path and not self.evidence:
            raise DataError("--states_path: answer states are a source of --evidence; add it")


def convert_judgments(
    judgments: Sequence[Judgment], texts: Sequence[str], instruction: str = ""
) -> list[TrainingTriplet]:
    """Make the chosen text the positive and the other the negative; abstentions are left out.

    Args:
        judgments: Ours or published.
        texts: The texts that the triplets point to.
        instruction: Stands before each text when training.

    Returns:
        Triplets weighted by how sure the judge was, 0 to 1: |2p - 1|, or 1 where it gave no
        probability.
    """
    return [
        _make_triplet(judgment, judgment.prediction[0], texts, instruction, _weigh(judgment))
        for judgment in judgments
        if len(judgment.prediction) == 1
    ]


def convert_by_evidence(
    judgments: Sequence[Judgment], texts: Sequence[str], evidence: Evidence, instruction: str = ""
) -> list[TrainingTriplet]:
    """Make the choice that all sources together call closer the positive.

    Args:
        judgments: Only their n triplets count; what was judged is in the evidence.
        texts: The texts that the triplets point to.
        evidence: Of these triplets, in this order.
        instruction: Stands before each text when training.

    Returns:
        Triplets weighted by |2p - 1|; those below `MIN_EVIDENCE` are left out.

    Raises:
        DataError: The evidence is of another number of triplets.
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
    """Make the embedder's nearer choice the positive: the self-training control.

    Args:
        judgments: Only their triplets count.
        texts: The texts that the triplets point to.
        vectors: Embeddings `(n_texts, dim)` of the untouched embedder.
        instruction: Stands before each text when training.
    """
    rows = stack_rows(judgment.triplet for judgment in judgments)
    to_choice1, to_choice2 = (((vectors[rows[:, 0]] - vectors[rows[:, i]]) ** 2).sum(axis=1) for i in (1, 2))
    return [
        _make_triplet(judgment, LABELS[0] if first_is_nearer else LABELS[1], texts, instruction, weight=1.0)
        for judgment, first_is_nearer in zip(judgments, to_choice1 < to_choice2, strict=True)
    ]


def _weigh(judgment: Judgment) -> float:
    return 1.0 if judgment.probability is None else abs(2 * judgment.probability - 1)


def _make_triplet(
    judgment: Judgment, label: str, texts: Sequence[str], instruction: str, weight: float
) -> TrainingTriplet:
    query, choice1, choice2 = (texts[row] for row in judgment.triplet.key)
    positive, negative = (choice1, choice2) if label == LABELS[0] else (choice2, choice1)
    return TrainingTriplet(instruction, query, positive, negative, judgment.triplet, weight)
