"""Answer states to a teacher: the vectors that the embedder is to learn. No label is ever seen here.

The teacher holds the embedder's own space and the LLM's side by side, smoothed over neighbours.
Whether the LLM is believed is decided for each set of texts by a criterion that needs no labels: its
space is taken in only where both together cluster more stably than the embedder's alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perspective.errors import DataError
from perspective.options import option
from perspective.trust.stability import Trust, decide_trust
from perspective.vectors import blend, center_rows, half_whiten, normalize_rows, smooth

N_NEIGHBORS = 10
# Fewer texts have too few of a kind nearby to average over: on 360 demo texts it cost 3 NMI points.
MIN_TEXTS_TO_SMOOTH = 500


@dataclass(frozen=True)
class TeachSettings:
    """How the teacher is made.

    Attributes:
        weight: Weight of the LLM's space against the embedder's 1; None to decide by stability.
        smoothed: Whether rows move towards their neighbours.
    """

    weight: float | None = option(
        "weight of the answer states against the embedder's 1; left out, decided without labels", default=None
    )
    smoothed: bool = option("average the teacher over nearest neighbours", default=True)

    def __post_init__(self) -> None:
        """Check values."""
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise DataError(f"--weight {self.weight}: must be a number of at least 0")


def make_teacher(
    vectors: np.ndarray, states: np.ndarray | None, settings: TeachSettings
) -> tuple[np.ndarray | None, Trust]:
    """Make the vectors that the embedder is to learn.

    Args:
        vectors: The untouched embedder's `(n_texts, dim)`.
        states: Answer states `(n_texts, state_dim)`, as read; None for the embedder alone, the
            self-training control.
        settings: How.

    Returns:
        float32 array `(n_texts, dim)`, the teacher brought into the embedder's own space, or None
        where there is nothing to learn (no state is believed, and the texts are too few to
        smooth); and the trust behind it.

    Raises:
        DataError: There are too few texts.
    """
    if len(vectors) < 9:
        raise DataError(f"{len(vectors)} texts: too few to teach with; give at least 9")
    own = center_rows(vectors)
    if states is None:
        trust, teacher = Trust(0.0, {}), own
    else:
        told = half_whiten(states)
        trust = decide_trust(own, told) if settings.weight is None else Trust(settings.weight, {})
        teacher = blend(own, told, trust.weight) if trust.weight else own
    smoothed = settings.smoothed and len(vectors) >= MIN_TEXTS_TO_SMOOTH
    if not trust.weight and not smoothed:
        return None, trust
    if smoothed:
        teacher = smooth(teacher, N_NEIGHBORS)
    return fit_to_embedder(teacher, vectors), trust


def fit_to_embedder(teacher: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Bring a teacher of any dimension into the embedder's space, as near to its vectors as a rotation can.

    The teacher is cut to its principal directions and rotated (orthogonal Procrustes, Schönemann,
    1966), so that the embedder need learn only what differs, not a new coordinate system; then it
    gets the mean and the mean length of the embedder's own vectors. Cosines within the teacher are
    kept up to the directions cut.

    Args:
        teacher: Array `(n_texts, any)`.
        vectors: The embedder's `(n_texts, dim)`.

    Returns:
        float32 array `(n_texts, dim)`.
    """
    mean = vectors.mean(axis=0)
    own = vectors - mean
    rows = teacher - teacher.mean(axis=0)
    directions = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, : vectors.shape[1]]
    rows = rows @ directions  # (n_texts, at most dim)
    # Not scipy's orthogonal_procrustes: where the embedder's vectors have no variance in a few directions (two of
    # MiniLM's 384), the rotation there is arbitrary and the two disagree by more than rounding. It moved the ACC of
    # the teacher itself on stackexchange from 39.96 to 40.00; the published figures were made with this one.
    left, _, right = np.linalg.svd(rows.T @ own, full_matrices=False)
    radius = float(np.sqrt((own**2).sum(axis=1).mean()))
    fitted = mean + radius * normalize_rows(rows @ (left @ right))
    is_unit = np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    return (normalize_rows(fitted) if is_unit else fitted).astype(np.float32)


def blend_for_inference(finetuned: np.ndarray, states: np.ndarray, weight: float) -> np.ndarray:
    """Put the fine-tuned embedder and the LLM side by side, for those who run both at inference.

    Args:
        finetuned: Vectors of the fine-tuned embedder `(n_texts, dim)`.
        states: Answer states `(n_texts, state_dim)`, as read.
        weight: As decided for the teacher.
    """
    return blend(center_rows(finetuned), half_whiten(states), weight)
