"""Make the teacher: the vectors that the embedder learns. No labels are used.

All evidence is combined here. Where a judge answered triplets, the embedder has learned them before; answer states are
appended to its vectors with the weight that they earn. Both choose the neighbours over which the vectors are diffused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perspective.errors import DataError
from perspective.options import option
from perspective.teacher.graph import connect_neighbors, diffuse
from perspective.trust.specificity import Trust, decide_trust, sample_control_rows
from perspective.vectors import (
    MIN_DISTINCT,
    ROWS_AT_A_TIME,
    blend,
    blend_directions,
    center_rows,
    find_distinct,
    half_whiten,
    keep_directions,
    normalize_rows,
)

GATE_WEIGHT = 0.5  # least weight of the LLM in the graph, where it only chooses among the embedder's neighbours


@dataclass(frozen=True)
class TeachSettings:
    """How the teacher is made.

    Attributes:
        weight: Weight of the answer states against the embedder's 1; None to decide it without labels.
        diffused: Whether vectors are diffused over the graph of neighbours.
    """

    weight: float | None = option(
        "weight of the answer states against the embedder's 1; default: decided without labels", default=None
    )
    diffused: bool = option("diffuse the teacher over the graph of neighbours", default=True)

    def __post_init__(self) -> None:
        """Check values."""
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise DataError(f"--weight {self.weight}: must be a number of at least 0")


@dataclass(frozen=True)
class TeacherEvidence:
    """What LLMs say about the texts; everything may be missing.

    Attributes:
        states: Answer states `(n_texts, state_dim)`, not whitened.
        control: Answer states of a sample, by question, from `gather_control`: the same question, the same in
            another wording, other questions; `(n_sample, state_dim)` each.
        judged: Vectors of the embedder after training on judged triplets, `(n_texts, dim)`.
    """

    states: np.ndarray | None = None
    control: Sequence[np.ndarray] = ()
    judged: np.ndarray | None = None


@dataclass(frozen=True)
class Teacher:
    """A teacher and how much of it comes from which evidence.

    Attributes:
        vectors: In the embedder's space, float32 `(n_texts, dim)`.
        trust: Weight of the answer states.
    """

    vectors: np.ndarray
    trust: Trust

    def describe(self, evidence: TeacherEvidence) -> str:
        """Return in one line what the teacher is made of."""
        parts = [self.trust.describe()] if evidence.states is not None else []
        if evidence.judged is not None:
            parts.append("beside an embedder that learned judged triplets")
        return "; ".join(parts) or "the embedder alone"


def make_teacher(vectors: np.ndarray, evidence: TeacherEvidence, settings: TeachSettings) -> Teacher:
    """Make the vectors that the embedder learns.

    Args:
        vectors: Vectors of the embedder before fine-tuning, `(n_texts, dim)`.
        evidence: Of LLMs; without any, the teacher is that of the self-training control.
        settings: Weight and diffusion.

    Raises:
        DataError: There are too few texts.
    """
    distinct: set[bytes] = set()
    for row in vectors:
        distinct.add(row.tobytes())
        if len(distinct) == MIN_DISTINCT:
            break
    else:
        raise DataError(f"{len(distinct)} different texts: too few for a teacher; give at least {MIN_DISTINCT}")
    first, position = find_distinct(vectors)  # copies of a text would be one another's only neighbours
    rows = center_rows((vectors if evidence.judged is None else evidence.judged)[first])
    states, trust = None, Trust(0.0)
    if evidence.states is not None:
        places = np.arange(len(vectors))[position]
        states, trust = half_whiten(evidence.states[first]), _decide_trust(rows, places, evidence, settings)
    blended = rows if states is None else blend_views(rows, states, trust.weight)
    if settings.diffused:
        graph = connect_neighbors(blended, rows, states, max(trust.weight, GATE_WEIGHT * trust.relation))
        del rows, states  # gigabytes of a million texts
        blended = diffuse(blended, graph)
    return Teacher(fit_to_embedder(blended, vectors[first])[position], trust)


def blend_views(rows: np.ndarray, states: np.ndarray, weight: float) -> np.ndarray:
    """Put the LLM's view beside the embedder's, in as many dimensions as the embedder has.

    Args:
        rows: Unit rows of the embedder, `(n_texts, dim)`.
        states: Unit rows of the LLM, `(n_texts, state_dim)`.
        weight: Of the LLM against the embedder's 1; at 0 the rows are returned.

    Returns:
        Unit rows `(n_texts, dim)`.
    """
    return normalize_rows(blend_directions(rows, states, weight, rows.shape[1])) if weight else rows


def _decide_trust(rows: np.ndarray, places: np.ndarray, evidence: TeacherEvidence, settings: TeachSettings) -> Trust:
    if settings.weight is not None:
        return Trust(settings.weight)
    if not evidence.control:
        return Trust(0.0)
    asked, reworded, *others = evidence.control
    return decide_trust(rows[places[sample_control_rows(len(places))]], asked, reworded, others)


def fit_to_embedder(teacher: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Rotate a teacher of any dimension into the embedder's space, as close to its vectors as possible.

    The teacher is reduced to its principal directions and rotated (orthogonal Procrustes,
    Schönemann, 1966), so that the embedder has to learn the differences, not a new coordinate
    system. Then it is shifted and scaled to the mean and the root mean square length of the
    embedder's vectors. Cosines within the teacher are kept, except for the removed directions.

    Args:
        teacher: Array `(n_texts, any)`.
        vectors: Vectors of the embedder, `(n_texts, dim)`.

    Returns:
        float32 array `(n_texts, dim)`.
    """
    mean = vectors.mean(axis=0)
    rows = keep_directions(teacher, vectors.shape[1])
    chunks = [slice(start, start + ROWS_AT_A_TIME) for start in range(0, len(vectors), ROWS_AT_A_TIME)]
    # Not scipy's orthogonal_procrustes: the embedder's vectors may have no variance in a few directions (two of
    # MiniLM's 384). There the rotation is arbitrary and the two differ by more than rounding.
    products = sum(rows[chunk].T @ (vectors[chunk] - mean) for chunk in chunks)
    left, _, right = np.linalg.svd(products, full_matrices=False)
    squares = np.concatenate([((vectors[chunk] - mean) ** 2).sum(axis=1) for chunk in chunks])
    radius = float(np.sqrt(squares.mean()))
    is_unit = all(np.allclose(np.linalg.norm(vectors[chunk], axis=1), 1, atol=1e-3) for chunk in chunks)
    result = np.empty(vectors.shape, dtype=np.float32)
    for chunk in chunks:
        fitted = mean + radius * normalize_rows(rows[chunk] @ (left @ right))
        result[chunk] = normalize_rows(fitted) if is_unit else fitted
    return result


def blend_for_inference(finetuned: np.ndarray, states: np.ndarray, weight: float) -> np.ndarray:
    """Concatenate fine-tuned vectors and answer states, for running the LLM at inference too.

    Args:
        finetuned: Vectors of the fine-tuned embedder `(n_texts, dim)`.
        states: Answer states `(n_texts, state_dim)`, not whitened.
        weight: Weight of the answer states, as for the teacher.
    """
    return blend(center_rows(finetuned), half_whiten(states), weight)
