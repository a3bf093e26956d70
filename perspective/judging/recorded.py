"""Reuse answers from an earlier file, ours or published, matched by the triplets' indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from perspective.artifacts import JudgeRecord, Judgment, Triplet, mirror_prediction
from perspective.errors import JudgeError
from perspective.judging.protocol import Question


class RecordedJudge:
    """Return recorded answers.

    Args:
        records: The earlier judgments.
        triplets: The triplets to judge; a recorded triplet also answers the same one with swapped choices.
        judge: The judge that gave the answers, if known, so that answers from labels stay marked as such.

    Raises:
        JudgeError: None of the triplets was recorded.
    """

    def __init__(
        self, records: Sequence[Judgment], triplets: Sequence[Triplet], judge: JudgeRecord | None = None
    ) -> None:
        self._by_key = {record.triplet.key: record for record in records}
        self.identity: dict[str, Any] = {"kind": "recorded"}
        if judge:
            self.identity |= {**judge.asked, "orders": judge.orders, "uses_labels": judge.uses_labels}
        n_found = sum(self._find(triplet) is not None for triplet in triplets)
        self.facts: dict[str, Any] = {"n_recorded": len(records), "n_matched": n_found}
        if not n_found:
            raise JudgeError(
                f"none of the {len(triplets)} triplets is among the {len(records)} recorded ones; "
                "judge the recorded file's own triplets: --triplet_path RECORDED_FILE"
            )

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer from the record; abstain on triplets that are not in it."""
        for question in questions:
            found = self._find(question.triplet)
            yield found or Judgment(question.triplet, (), content="not recorded")

    def _find(self, triplet: Triplet) -> Judgment | None:
        if found := self._by_key.get(triplet.key):
            return found
        mirrored = self._by_key.get((triplet.query_idx, triplet.choice2_idx, triplet.choice1_idx))
        return _mirror(mirrored, triplet) if mirrored else None


def _mirror(judgment: Judgment, triplet: Triplet) -> Judgment:
    """Return the judgment for the same triplet with its choices swapped."""
    probability, forward = judgment.probability, judgment.forward_probability
    return Judgment(
        triplet,
        mirror_prediction(judgment.prediction),
        judgment.prepared,
        judgment.content,
        None if probability is None else 1 - probability,
        # The swapped order of the mirrored triplet is the file's order of the original.
        None if forward is None else 1 - forward,
    )
