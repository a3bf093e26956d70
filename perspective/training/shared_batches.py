"""What the trainer of sentence-transformers lacks where several processes share each batch.

The processes train as one would: the batch is cut into parts, each computes the loss of the whole
batch from all their vectors, and the gradients are averaged (DistributedDataParallel, which the
trainer sets up by itself).
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
    """Each batch of one process cut into equal parts, given one after another.

    accelerate hands every n-th part to one process. Its own way to cut batches loses those that are
    short but do not come last, and gives the last one to some processes only.

    Args:
        sampler: Gives the batches that one process would train on.
        n_parts: The number of processes.
        filler: The row that fills up the parts of a batch that cannot be cut evenly.

    Example:
        >>> list(SharedBatchSampler(BatchSampler(range(7), 4, drop_last=False), n_parts=2, filler=7))
        [[0, 1], [2, 3], [4, 5], [6, 7]]
    """

    batch_size = None  # parts may be short: accelerate is to hand out each as it is
    drop_last = False

    def __init__(self, sampler: BatchSampler, n_parts: int, filler: int) -> None:
        self.sampler = sampler
        self.n_parts = n_parts
        self.filler = filler

    def __iter__(self) -> Iterator[list[int]]:
        """Give the parts of one batch after another."""
        for batch in self.sampler:
            size = -(-len(batch) // self.n_parts)
            filled = batch + [self.filler] * (size * self.n_parts - len(batch))
            for start in range(0, len(filled), size):
                yield filled[start : start + size]

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.sampler) * self.n_parts

    def set_epoch(self, epoch: int) -> None:
        """Pass on which epoch it is."""
        self.sampler.set_epoch(epoch)


class SharedTrainer(SentenceTransformerTrainer):
    """A trainer whose processes share each batch, and of which one writes."""

    def __init__(self, train_dataset: Dataset, **options: Any) -> None:  # noqa: ANN401  of the trainer
        super().__init__(train_dataset=add_filler(train_dataset), **options)
        self.add_callback(_EpochTeller())

    def get_batch_sampler(self, dataset: Dataset, batch_size: int, **options: Any) -> BatchSampler:  # noqa: ANN401
        """Return a sampler of parts, each of so many rows."""
        filler = len(dataset) - 1
        whole = super().get_batch_sampler(dataset.select(range(filler)), batch_size * n_processes(), **options)
        return SharedBatchSampler(whole, n_processes(), filler)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave the card out: ours is written at the end."""

    def _save(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        # transformers 5 calls it in every process, sentence-transformers 6 takes that for the main one.
        if is_main():
            super()._save(*arguments, **options)


class SharedMSELoss(MSELoss):
    """The mean squared error over the vectors of all processes."""

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], teacher_embeddings: list[Tensor]) -> Tensor:
        """Return the loss of the whole batch, fillers left out; both lists hold one `(n, dim)`."""
        vectors, teacher = all_gather_with_grad(embeddings[0]), all_gather(teacher_embeddings[0].contiguous())
        kept = ~find_fillers(teacher)
        return super().compute_loss_from_embeddings([vectors[kept]], [teacher[kept]])


def add_filler(dataset: Dataset) -> Dataset:
    """Add a row that counts for nothing: its label, a weight or a teacher's vector, is NaN.

    Rows that have no label get the weight 1.
    """
    if "label" not in dataset.column_names:
        dataset = dataset.add_column("label", [1.0] * len(dataset))
    row = dataset[0]
    return dataset.add_item({**row, "label": np.full_like(row["label"], np.nan).tolist()})


class _EpochTeller(TrainerCallback):
    """Tells the sampler its epoch also where a killed run goes on within one: the trainer does not."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ANN401
        parts["train_dataloader"].batch_sampler.batch_sampler.set_epoch(int(state.epoch))
