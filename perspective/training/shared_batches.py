"""Training in which several processes share each batch, which sentence-transformers lacks.

The result is that of one process: the batch is split, each process computes the loss of the whole
batch from the vectors of all, and DistributedDataParallel, set up by the trainer, averages the
gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.losses import MSELoss
from sentence_transformers.util import all_gather, all_gather_with_grad
from torch import Tensor
from torch.utils.data import BatchSampler
from transformers import TrainerCallback

from perspective.runtime.distributed import is_main, n_processes
from perspective.training.losses.base import find_fillers


class SharedBatchSampler(BatchSampler):
    """Split each batch of a sampler into equal parts, one for each process.

    accelerate gives every n-th part to the same process. Its own splitting loses short batches that
    are not the last, and gives the last batch to some processes only.

    Args:
        sampler: Yields the batches that one process would train on.
        n_parts: The number of processes.
        filler: The row that pads a batch that cannot be split evenly.

    Example:
        >>> list(SharedBatchSampler(BatchSampler(range(7), 4, drop_last=False), n_parts=2, filler=7))
        [[0, 1], [2, 3], [4, 5], [6, 7]]
    """

    batch_size = None  # parts may be short: accelerate must not change them
    drop_last = False

    def __init__(self, sampler: BatchSampler, n_parts: int, filler: int) -> None:
        self.sampler = sampler
        self.n_parts = n_parts
        self.filler = filler

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the parts of each batch in turn."""
        for batch in self.sampler:
            size = -(-len(batch) // self.n_parts)
            filled = batch + [self.filler] * (size * self.n_parts - len(batch))
            for start in range(0, len(filled), size):
                yield filled[start : start + size]

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.sampler) * self.n_parts

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the sampler."""
        self.sampler.set_epoch(epoch)


class SharedTrainer(SentenceTransformerTrainer):
    """A trainer whose processes share each batch; only the main process writes."""

    def __init__(self, train_dataset: Dataset, **options: Any) -> None:  # noqa: ANN401  of the trainer
        super().__init__(train_dataset=add_filler(train_dataset), **options)
        self.add_callback(_EpochSetter())

    def get_batch_sampler(self, dataset: Dataset, batch_size: int, **options: Any) -> BatchSampler:  # noqa: ANN401
        """Return a sampler of parts, each of `batch_size` rows."""
        filler = len(dataset) - 1
        batches = super().get_batch_sampler(dataset.select(range(filler)), batch_size * n_processes(), **options)
        return SharedBatchSampler(batches, n_processes(), filler)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Do nothing: our own card is written at the end."""

    def _save(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        # transformers 5 calls it in every process, sentence-transformers 6 expects it in the main one only.
        if is_main():
            super()._save(*arguments, **options)


class SharedMSELoss(MSELoss):
    """The mean squared error over the vectors of all processes."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], teacher_embeddings: list[Tensor]) -> Tensor:
        """Return the loss of the whole batch without fillers; both lists hold one `(n, dim)`."""
        vectors, teacher = all_gather_with_grad(embeddings[0]), all_gather(teacher_embeddings[0].contiguous())
        kept = ~find_fillers(teacher)
        return super().compute_loss_from_embeddings([vectors[kept]], [teacher[kept]])


def add_filler(dataset: Dataset) -> Dataset:
    """Add a padding row, whose label (a weight or a teacher's vector) is NaN.

    A data set without labels gets the weight 1 in all rows.
    """
    if "label" not in dataset.column_names:
        dataset = dataset.add_column("label", [1.0] * len(dataset))
    row = dataset[0]
    return dataset.add_item({**row, "label": np.full_like(row["label"], np.nan).tolist()})


class _EpochSetter(TrainerCallback):
    """Sets the sampler's epoch; the trainer does not when a run resumes within an epoch."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ANN401
        parts["train_dataloader"].batch_sampler.batch_sampler.set_epoch(int(state.epoch))
