"""Make the teacher from answer states: the vectors that the embedder learns. No labels are used.

The teacher concatenates the embedder's vectors with the LLM's answer states and smooths them over
neighbours. A criterion without labels decides for each data set whether the LLM is trusted: its
states are used only if they make the clusters more stable than the embedder's vectors alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perspective.errors import DataError
from perspective.options import option
from perspective.trust.stability import Trust, decide_trust
from perspective.vectors import blend, center_rows, half_whiten, normalize_rows, smooth

N_NEIGHBORS = 10
# With fewer texts, too many neighbours are of other classes: smoothing 360 demo texts cost 3 NMI points.
MIN_TEXTS_TO_SMOOTH = 500


@dataclass(frozen=True)
class TeachSettings:
    """How the teacher is made.

    Attributes:
        weight: Weight of the answer states against the embedder's 1; None to decide by stability.
        smoothed: Whether rows are averaged with their neighbours.
    """

    weight: float | None = option(
        "weight of the answer states against the embedder's 1; default: decided without labels", default=None
    )
    smoothed: bool = option("average the teacher over nearest neighbours", default=True)

    def __post_init__(self) -> None:
        """Check values."""
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise DataError(f"--weight {self.weight}: must be a number of at least 0")


def make_teacher(
    vectors: np.ndarray, states: np.ndarray | None, settings: TeachSettings
) -> tuple[np.ndarray | None, Trust]:
    """Make the vectors that the embedder learns.

    Args:
        vectors: Vectors of the embedder before fine-tuning, `(n_texts, dim)`.
        states: Answer states `(n_texts, state_dim)`, not whitened; None for the embedder alone, the
            self-training control.
        settings: Weight and smoothing.

    Returns:
        The teacher in the embedder's space, float32 `(n_texts, dim)`, or None if there is nothing to
        learn (the states are not trusted and the texts are too few to smooth); and the trust decision.

    Raises:
        DataError: There are too few texts.
    """
    if len(vectors) < 9:
        raise DataError(f"{len(vectors)} texts: too few for a teacher; give at least 9")
    centered = center_rows(vectors)
    if states is None:
        trust, teacher = Trust(0.0, {}), centered
    else:
        whitened = half_whiten(states)
        trust = decide_trust(centered, whitened) if settings.weight is None else Trust(settings.weight, {})
        teacher = blend(centered, whitened, trust.weight) if trust.weight else centered
    smoothed = settings.smoothed and len(vectors) >= MIN_TEXTS_TO_SMOOTH
    if not trust.weight and not smoothed:
        return None, trust
    if smoothed:
        teacher = smooth(teacher, N_NEIGHBORS)
    return fit_to_embedder(teacher, vectors), trust


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
    centered = vectors - mean
    rows = teacher - teacher.mean(axis=0)
    directions = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, : vectors.shape[1]]
    rows = rows @ directions  # (n_texts, at most dim)
    # Not scipy's orthogonal_procrustes: the embedder's vectors may have no variance in a few directions (two of
    # MiniLM's 384). There the rotation is arbitrary and the two differ by more than rounding: the ACC of the
    # teacher itself on stackexchange is 40.00 with scipy, 39.96 here. The published figures were made with this.
    left, _, right = np.linalg.svd(rows.T @ centered, full_matrices=False)
    radius = float(np.sqrt((centered**2).sum(axis=1).mean()))
    fitted = mean + radius * normalize_rows(rows @ (left @ right))
    is_unit = np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    return (normalize_rows(fitted) if is_unit else fitted).astype(np.float32)


def blend_for_inference(finetuned: np.ndarray, states: np.ndarray, weight: float) -> np.ndarray:
    """Concatenate fine-tuned vectors and answer states, for running the LLM at inference too.

    Args:
        finetuned: Vectors of the fine-tuned embedder `(n_texts, dim)`.
        states: Answer states `(n_texts, state_dim)`, not whitened.
        weight: Weight of the answer states, as for the teacher.
    """
    return blend(center_rows(finetuned), half_whiten(states), weight)
