"""A linear map of the embedder's space, fitted to judged triplets.

The map is I + W, with W between the first principal directions of the vectors. W is ridge regularised, so
that directions without judgments stay as they are. How strongly is decided by the judgments themselves:
the candidate is used that predicts held-out judgments best, and none if none predicts them better than the
unchanged embedder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Judgment, stack_rows
from perspective.vectors import find_directions, normalize_rows

N_DIRECTIONS = 128  # a few hundred judgments say nothing about more; all 384 of MiniLM's give the same
SCALE = 10.0  # of cosine margins in the logistic loss
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # candidates when losses are compared
MIN_STANDARD_ERRORS = 1.64  # of the gain on held-out judgments; 5% of judges that guess are used
RIDGES = (0.03, 0.1, 0.3)  # candidates
N_FOLDS = 4
MAX_STEPS = 40  # of L-BFGS; it ends earlier
MIN_JUDGMENTS = 40  # fewer cannot be divided into folds


@dataclass(frozen=True)
class TripletMap:
    """A fitted map and how well it predicts judgments that it was not fitted to.

    Attributes:
        matrix: W, float32 `(n_directions, n_directions)`; None if no candidate predicts better than the embedder.
        directions: The principal directions, float32 `(dim, n_directions)`.
        ridge: The chosen regularisation; None if there is no map.
        loss: Logistic loss of held-out judgments, per judgment; None if there are too few.
        loss_before: The same of the unchanged embedder.
        n_judgments: Number of judgments used.
    """

    matrix: np.ndarray | None
    directions: np.ndarray
    ridge: float | None
    loss: float | None
    loss_before: float | None
    n_judgments: int

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Map unit rows `(n, dim)` to unit rows."""
        if self.matrix is None:
            return vectors
        return normalize_rows(vectors + vectors @ self.directions @ self.matrix @ self.directions.T)

    def describe(self) -> dict[str, Any]:
        """Return the figures of the sidecar."""
        return {
            "n_judgments": self.n_judgments,
            "used": self.matrix is not None,
            "ridge": self.ridge,
            "held_out_loss": self.loss,
            "held_out_loss_before": self.loss_before,
        }


def fit_triplet_map(vectors: np.ndarray, judgments: Sequence[Judgment], seed: int = 0) -> TripletMap:
    """Fit I + W to judged triplets; no labels are used.

    Minimises the mean of log(1 + exp(-s y m)) + ridge ||W||^2 over the answered triplets, with m the
    cosine of query and choice 1 minus that of query and choice 2 after the map, y = +1 where choice 1
    was judged closer and -1 otherwise, and s = `SCALE`. Judgments with a probability are weighted by its
    distance from 1/2.

    Args:
        vectors: Centred unit rows of the embedder, `(n_texts, dim)`.
        judgments: Answers of any judge; abstentions are left out.
        seed: Seed of the folds.
    """
    answered = [one for one in judgments if len(one.prediction) == 1]
    directions = find_directions(vectors, N_DIRECTIONS)
    if len(answered) < MIN_JUDGMENTS:
        return TripletMap(None, directions, None, None, None, len(answered))
    problem = _Problem.make(normalize_rows(vectors @ directions), answered)
    folds = np.random.default_rng(seed).permutation(len(answered)) % N_FOLDS
    unchanged = np.zeros((directions.shape[1],) * 2, dtype=np.float32)
    before = problem.calibrated_losses(problem.margins(unchanged))
    held_out = {ridge: problem.calibrated_losses(_predict_held_out(problem, folds, ridge)) for ridge in RIDGES}
    ridge = min(held_out, key=lambda one: held_out[one].mean())
    gains = before - held_out[ridge]
    is_used = gains.mean() > max(1e-6, MIN_STANDARD_ERRORS * gains.std() / len(gains) ** 0.5)
    losses = float(held_out[ridge].mean()), float(before.mean())
    return TripletMap(
        problem.solve(ridge) if is_used else None, directions, ridge if is_used else None, *losses, len(answered)
    )


def _predict_held_out(problem: _Problem, folds: np.ndarray, ridge: float) -> np.ndarray:
    """Return the margin of each triplet by the map that was fitted to the other folds, `(n,)`."""
    margins = np.empty(len(folds))
    for fold in range(N_FOLDS):
        margins[folds == fold] = problem.at(folds == fold).margins(problem.at(folds != fold).solve(ridge))
    return margins


@dataclass(frozen=True)
class _Problem:
    """Vectors of the triplets, `(n, dim)` each, with the judged sign `(n,)` and weight `(n,)`."""

    query: np.ndarray
    choice1: np.ndarray
    choice2: np.ndarray
    sign: np.ndarray
    weight: np.ndarray

    @classmethod
    def make(cls, vectors: np.ndarray, judgments: Sequence[Judgment]) -> _Problem:
        rows = stack_rows([one.triplet for one in judgments])
        sign = np.array([1.0 if one.prediction[0] == LABELS[0] else -1.0 for one in judgments], dtype=np.float32)
        certainty = [1.0 if one.probability is None else abs(2 * one.probability - 1) for one in judgments]
        weight = np.array(certainty, dtype=np.float32)
        weight /= max(float(weight.mean()), 1e-6)
        query, choice1, choice2 = (np.asarray(vectors, dtype=np.float32)[rows[:, i]] for i in range(3))
        return cls(query, choice1, choice2, sign, weight)

    def at(self, rows: np.ndarray) -> _Problem:
        return _Problem(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def margins(self, matrix: np.ndarray) -> np.ndarray:
        """Return how much nearer the judged choice is than the other after the map, `(n,)`."""
        query, choice1, choice2 = (
            normalize_rows(rows + rows @ matrix) for rows in (self.query, self.choice1, self.choice2)
        )
        return self.sign * (query * (choice1 - choice2)).sum(axis=1)

    def calibrated_losses(self, margins: np.ndarray) -> np.ndarray:
        """Return the logistic loss of each triplet, `(n,)`, at the scale that suits the margins best.

        At a fixed scale a map that only shrinks all margins would look better for a judge that guesses.
        """
        losses = [self.weight * np.logaddexp(0, -scale * margins) for scale in SCALES]
        return min(losses, key=np.mean)

    def solve(self, ridge: float) -> np.ndarray:
        """Return the best W for these triplets, `(dim, dim)`."""
        from scipy.optimize import minimize

        dim = self.query.shape[1]

        def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = self._evaluate(flat.reshape(dim, dim).astype(np.float32), ridge)
            return value, gradient.ravel().astype(np.float64)

        found = minimize(
            evaluate, np.zeros(dim * dim), jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS, "maxcor": 10}
        )
        return found.x.reshape(dim, dim).astype(np.float32)

    def _evaluate(self, matrix: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
        from scipy.special import expit

        raw = [self.query, self.choice1, self.choice2]
        mapped = [rows + rows @ matrix for rows in raw]
        lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in mapped]
        query, choice1, choice2 = (rows / length for rows, length in zip(mapped, lengths, strict=True))
        to_choice1, to_choice2 = (query * choice1).sum(axis=1), (query * choice2).sum(axis=1)
        margin = SCALE * self.sign * (to_choice1 - to_choice2)
        value = float((self.weight * np.logaddexp(0, -margin)).mean()) + ridge * float((matrix**2).sum())
        # Derivative of the loss by each cosine, then through the normalisation of each vector.
        by_cosine = (-SCALE * self.weight * self.sign * expit(-margin) / len(margin))[:, None]
        gradients = (
            (choice1 - choice2 - query * (to_choice1 - to_choice2)[:, None]) / lengths[0],
            (query - choice1 * to_choice1[:, None]) / lengths[1],
            (choice2 * to_choice2[:, None] - query) / lengths[2],
        )
        gradient = sum(rows.T @ (by_cosine * part) for rows, part in zip(raw, gradients, strict=True))
        return value, gradient + 2 * ridge * matrix
