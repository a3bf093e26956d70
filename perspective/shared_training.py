"""What the trainer of sentence-transformers lacks where several processes share each batch.

The processes train as one would: the batch is cut into equal parts, and the gradients are averaged
(DistributedDataParallel, which the trainer sets up by itself).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sentence_transformers import SentenceTransformerTrainer
from torch.utils.data import BatchSampler
from transformers import TrainerCallback

from perspective.distributed import is_main, n_processes


class SharedBatchSampler(BatchSampler):
    """Each batch of one process cut into equal parts, given one after another.

    accelerate hands every n-th part to one process. Its own way to cut batches loses those that are
    short but do not come last, and gives the last one to some processes only.

    A batch that cannot be cut evenly is filled up with its own first rows, so that up to
    `n_parts - 1` rows of an epoch's last batch count twice.

    Args:
        sampler: Gives the batches that one process would train on.
        n_parts: The number of processes.

    Example:
        >>> list(SharedBatchSampler(BatchSampler(range(7), 4, drop_last=False), 2))
        [[0, 1], [2, 3], [4, 5], [6, 4]]
    """

    batch_size = None  # parts may be short: accelerate is to hand out each as it is
    drop_last = False

    def __init__(self, sampler: BatchSampler, n_parts: int) -> None:
        self.sampler = sampler
        self.n_parts = n_parts

    def __iter__(self) -> Iterator[list[int]]:
        """Give the parts of one batch after another."""
        for batch in self.sampler:
            size = -(-len(batch) // self.n_parts)
            filled = [batch[i % len(batch)] for i in range(size * self.n_parts)]
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

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  of the trainer
        super().__init__(**options)
        self.add_callback(_EpochTeller())

    def get_batch_sampler(self, dataset: Any, batch_size: int, **options: Any) -> BatchSampler:  # noqa: ANN401
        """Return a sampler of parts, each of so many rows."""
        whole = super().get_batch_sampler(dataset, batch_size * n_processes(), **options)
        return SharedBatchSampler(whole, n_processes())

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Leave the card out: ours is written at the end."""

    def _save(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        # transformers 5 calls it in every process, sentence-transformers 6 takes that for the main one.
        if is_main():
            super()._save(*arguments, **options)


class _EpochTeller(TrainerCallback):
    """Tells the sampler its epoch also where a killed run goes on within one: the trainer does not."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ANN401
        parts["train_dataloader"].batch_sampler.batch_sampler.set_epoch(int(state.epoch))
