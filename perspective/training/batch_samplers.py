"""Batch samplers that sentence-transformers lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler
from torch.utils.data import SequentialSampler

LENGTH_JITTER = 0.25  # times the standard deviation of the lengths: enough to change the batches every epoch
MAX_LEFT = 0.05  # share of the rows: batches of a handful of rows at the end of an epoch are not worth their steps


class DistinctBatchSampler(NoDuplicatesBatchSampler):
    """Batches in which no text occurs twice; an epoch goes on until hardly a row is left.

    sentence-transformers ends it after as many batches as full ones would be. Where many rows share texts, such
    as queries of a few documents, batches are smaller, and most rows would not be seen.
    """

    def __init__(self, dataset: Dataset, **options: Any) -> None:  # noqa: ANN401  of the trainer
        super().__init__(dataset, **options)
        self._n_batches = 0
        reached = np.cumsum([len(batch) for batch in self])  # of the first epoch; the others differ little
        self._n_batches = int(np.searchsorted(reached, (1 - MAX_LEFT) * len(dataset))) + 1

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return max(super().__len__(), self._n_batches)


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of texts of similar length, in random order, which saves padding.

    Only for losses that look at one text at a time: with in-batch negatives, the length would be a cue.
    """

    column = "sentence"

    def __init__(self, dataset: Dataset, **options: Any) -> None:  # noqa: ANN401  of the trainer
        super().__init__(dataset, **options)
        self.lengths = np.array([len(text) for text in dataset[self.column]], dtype=float)
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of each batch; deterministic for a seed and epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        jitter = rng.normal(scale=LENGTH_JITTER * self.lengths.std() + 1e-9, size=len(self.lengths))
        batches = self.split(np.argsort(self.lengths + jitter))
        for place in rng.permutation(len(batches)):
            yield batches[place]

    def split(self, order: np.ndarray) -> list[list[int]]:
        """Return rows `(n_rows,)` as batches, in their order."""
        return [order[start : start + self.batch_size].tolist() for start in range(0, len(order), self.batch_size)]


class PairLengthBatchSampler(LengthBatchSampler):
    """Batches of pairs whose documents are of similar length, in which no text occurs twice.

    A query's document that is also another's negative would be both right and wrong. A row that
    shares a text with the batch in hand waits for the next one. M3 groups by length for speed; the
    documents that a query is compared with are then as long as its own, so that length is no cue. Where
    many rows share texts there are more batches than `len`, and an epoch leaves some of them out.
    """

    column = "document"

    def __init__(self, dataset: Dataset, **options: Any) -> None:  # noqa: ANN401  of the trainer
        super().__init__(dataset, **options)
        columns = [dataset[name] for name in dataset.column_names if name != "label"]
        self.texts = [frozenset(texts) for texts in zip(*columns, strict=True)]

    def split(self, order: np.ndarray) -> list[list[int]]:
        """Return rows `(n_rows,)` as batches, each as near to its place as its texts allow."""
        batches: list[list[int]] = []
        filling: dict[int, set[str]] = {}  # texts of the batches that are not full, by place
        for row in order.tolist():
            place = next((place for place, taken in filling.items() if not taken & self.texts[row]), len(batches))
            if place == len(batches):
                batches.append([])
                filling[place] = set()
            batches[place].append(row)
            filling[place] |= self.texts[row]
            if len(batches[place]) == self.batch_size:
                del filling[place]
        return batches


def keep_order(dataset: Dataset, **options: Any) -> DefaultBatchSampler:  # noqa: ANN401  of the trainer
    """Batch the rows in file order, as the published loop does."""
    return DefaultBatchSampler(SequentialSampler(dataset), **options)
