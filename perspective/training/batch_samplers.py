"""Batch samplers that sentence-transformers lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch.utils.data import SequentialSampler

LENGTH_JITTER = 0.25  # times the standard deviation of the lengths: enough to change the batches every epoch


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of texts of similar length, in random order, which saves padding.

    Only for losses that look at one text at a time: with in-batch negatives, the length would be a cue.
    """

    def __init__(self, dataset: Dataset, **options: Any) -> None:  # noqa: ANN401  of the trainer
        super().__init__(dataset, **options)
        self.lengths = np.array([len(text) for text in dataset["sentence"]], dtype=float)
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of each batch; deterministic for a seed and epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        jitter = rng.normal(scale=LENGTH_JITTER * self.lengths.std() + 1e-9, size=len(self.lengths))
        order = np.argsort(self.lengths + jitter)
        starts = np.arange(0, len(order), self.batch_size)
        for start in rng.permutation(starts):
            yield order[start : start + self.batch_size].tolist()


def keep_order(dataset: Dataset, **options: Any) -> DefaultBatchSampler:  # noqa: ANN401  of the trainer
    """Batch the rows in file order, as the published loop does."""
    return DefaultBatchSampler(SequentialSampler(dataset), **options)
