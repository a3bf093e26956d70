"""Check names without labels: a name must be nearer to its own cluster's texts than to those of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perspective.vectors import normalize_rows

MAX_CHECKED = 32  # texts of a cluster by which its name is checked
N_NEAR = 3  # nearest other clusters, from which half of the other texts are
MIN_REST = 8  # texts that must remain for choosing between names, so that others check the choice


class NameCheck:
    """Compares names with texts in the embedder's space.

    Args:
        vectors: Array `(n_texts, dim)` of the texts, by the embedder that embeds the names.
        clusters: `(n_texts,)` position of each text's cluster; negative for texts of none.
        n_clusters: Number of clusters.
    """

    def __init__(self, vectors: np.ndarray, clusters: np.ndarray, n_clusters: int) -> None:
        self._unit = normalize_rows(np.asarray(vectors, dtype=np.float32))
        self._rng = np.random.default_rng(0)
        # Shuffled once: the first rows of a cluster check, the others choose.
        shuffled = self._rng.permutation(np.flatnonzero(clusters >= 0))
        self._rows = [shuffled[clusters[shuffled] == cluster] for cluster in range(n_clusters)]
        self._checked = [rows[: min(MAX_CHECKED, len(rows))] for rows in self._rows]
        self._centers = normalize_rows(
            np.array([self._average(place) for place in range(n_clusters)]).reshape(n_clusters, vectors.shape[1])
        )

    def has_others(self, group: Sequence[int]) -> bool:
        """Tell whether there is another cluster to compare with."""
        return len(set(group)) < len(self._rows)

    def score(self, group: Sequence[int], names: np.ndarray) -> np.ndarray:
        """Return how much nearer each name is to its own cluster than to the nearest other one.

        Args:
            group: Position of the cluster; of all clusters of a branch.
            names: Vectors of the names, `(n_names, dim)`.

        Returns:
            `(n_names,)` differences of cosines; plain cosines if there is no other cluster.
        """
        cosines = normalize_rows(names) @ self._centers.T
        own = cosines[:, list(group)].mean(axis=1)
        others = np.delete(cosines, list(group), axis=1)
        return np.asarray(own - others.max(axis=1) if others.shape[1] else own)

    def count(self, group: Sequence[int], names: np.ndarray) -> tuple[int, np.ndarray]:
        """Return the number of checked texts, and for each name how many of them are nearer than another text.

        Each text of the cluster is compared with a text of another cluster: in turn one of the nearest
        clusters, and any other.

        Args:
            group: As in `score`.
            names: Vectors of the names, `(n_names, dim)`.
        """
        own = np.concatenate([self._checked[place] for place in group])
        rest = np.setdiff1d(np.arange(len(self._rows)), list(group))
        rest = rest[[len(self._rows[place]) > 0 for place in rest]] if len(rest) else rest
        if not len(own) or not len(rest):
            return 0, np.zeros(len(names), dtype=int)
        rng = np.random.default_rng(int(group[0]))
        own = rng.permutation(own)[:MAX_CHECKED] if len(group) > 1 else own
        center = self._centers[list(group)].mean(axis=0)
        near = rest[np.argsort(-(self._centers[rest] @ center))[:N_NEAR]]
        others = [
            int(rng.choice(self._rows[near[i // 2 % len(near)] if i % 2 == 0 else rng.choice(rest)]))
            for i in range(len(own))
        ]
        unit = normalize_rows(names)
        nearer = unit @ self._unit[own].T > unit @ self._unit[others].T
        return len(own), nearer.sum(axis=1)

    def _average(self, place: int) -> np.ndarray:
        rows = self._rows[place]
        rest = rows[MAX_CHECKED:]
        chosen = rest if len(rest) >= MIN_REST else rows
        return self._unit[chosen].mean(axis=0) if len(chosen) else np.zeros(self._unit.shape[1], dtype=np.float32)
