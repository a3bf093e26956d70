"""One stage in several processes, started by torchrun or `accelerate launch`.

The launcher numbers the processes in environment variables. Without a launcher there is a single
process, and the functions here do nothing. Process 0 is the main process: it decides, logs and
writes. All processes see the same files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from perspective.errors import DataError

GROUP_TIMEOUT = timedelta(days=1)  # long: others wait for the main process, and the launcher ends them if it fails
BLOCK_ROWS = 1 << 16  # rows per message


@dataclass(frozen=True)
class _Connection:
    """Connection to the other processes.

    Attributes:
        group: Process group for the small messages of this module; on the CPU (gloo), whatever
            training uses.
        store: Key-value store shared by all processes.
    """

    group: Any
    store: Any


_connection: _Connection | None = None


def n_processes() -> int:
    """Return the number of processes of this run."""
    return int(os.environ["WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1


def process_index() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if n_processes() > 1 else 0


def is_main() -> bool:
    """Return whether this process decides, logs and writes."""
    return process_index() == 0


def init_process_group() -> None:
    """Initialise the process group."""
    if n_processes() > 1:
        _connect()


def end_process_group() -> None:
    """Wait for all processes and destroy the process group; only the main process has work left."""
    if "LOCAL_RANK" not in os.environ:
        return
    from torch import distributed

    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()


def wait() -> None:
    """Wait until all processes have reached this call."""
    if n_processes() > 1:
        from torch import distributed

        distributed.barrier(group=_connect().group)


@contextmanager
def main_first() -> Iterator[None]:
    """Run a block in the main process first, then in the others, which see the files it wrote."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def broadcast_from_main(compute: Callable[[], bool]) -> bool:
    """Compute a value in the main process only and return it in all processes."""
    if n_processes() == 1:
        return compute()
    import torch
    from torch import distributed

    value = torch.tensor([int(compute())] if is_main() else [0])
    distributed.broadcast(value, src=0, group=_connect().group)
    return bool(value.item())


def share_texts(compute: Callable[[list[str]], np.ndarray], texts: Sequence[str]) -> np.ndarray | None:
    """Compute vectors in all processes, each for its share of the texts; the main process collects them.

    Args:
        compute: Maps texts to float32 `(n, dim)`.
        texts: All texts, the same in all processes.

    Returns:
        In the main process float32 `(n_texts, dim)`, row i for text i; None in the others.

    Raises:
        DataError: `compute` raised it; the process is added to the message.
    """
    n_shares = n_processes()
    if n_shares == 1:
        return compute(list(texts))
    # Every n-th text by length, so that all shares cost about the same.
    order = np.argsort([len(text) for text in texts], kind="stable")
    shares = [order[index::n_shares] for index in range(n_shares)]
    share = shares[process_index()]
    try:
        part = compute([texts[row] for row in share]) if len(share) else np.empty((0, 0), dtype=np.float32)
    except DataError as error:
        raise DataError(f"process {process_index()}, of its {len(share)} texts: {error}") from None
    if not is_main():
        _send(part)
        return None
    joined = np.empty((len(texts), part.shape[1]), dtype=np.float32)
    joined[share] = part
    for index in range(1, n_shares):
        _receive(joined, shares[index], index)
    align_copies(joined, texts)
    return joined


def align_copies(vectors: np.ndarray, texts: Sequence[str]) -> None:
    """Give copies of a text the vector of the first, bit for bit: batches of other shapes round differently.

    Args:
        vectors: `(n_texts, dim)`; changed in place.
        texts: The texts.
    """
    first: dict[str, int] = {}
    origin = np.fromiter((first.setdefault(text, row) for row, text in enumerate(texts)), dtype=np.int64)
    copies = np.flatnonzero(origin != np.arange(len(texts)))
    vectors[copies] = vectors[origin[copies]]


def claim_error() -> bool:
    """Return whether this process is the first of its run to fail.

    Later errors in other processes, such as a lost connection, are only consequences.
    """
    if _connection is None:
        return is_main()
    # A launcher that restarts all processes keeps the store.
    key = f"perspective/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        return bool(_connection.store.add(key, 1) == 1)
    except RuntimeError:  # the store is gone: the process that hosted it failed first
        return False


def _connect() -> _Connection:
    """Connect to the other processes, once.

    Raises:
        DataError: There are more processes on this machine than GPUs.
    """
    global _connection
    if _connection is None:
        import torch
        from torch import distributed

        on_gpu = torch.cuda.is_available()
        if on_gpu:
            local = int(os.environ["LOCAL_RANK"])
            # Of all processes, so that the main one, which alone speaks before they are connected, raises it too.
            if int(os.environ.get("LOCAL_WORLD_SIZE", local + 1)) > torch.cuda.device_count():
                raise DataError(f"more processes than the {torch.cuda.device_count()} GPUs of this machine")
            torch.cuda.set_device(local)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_gpu else "gloo")
        group = distributed.new_group(backend="gloo", timeout=GROUP_TIMEOUT)
        # A separate connection, because the group's store is not public.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(address, port, is_master=False, wait_for_workers=False)
        _connection = _Connection(group, store)
    return _connection


def _send(part: np.ndarray) -> None:
    import torch
    from torch import distributed

    for start in range(0, len(part), BLOCK_ROWS):
        block = np.ascontiguousarray(part[start : start + BLOCK_ROWS], dtype=np.float32)
        distributed.send(torch.from_numpy(block), dst=0, group=_connect().group)


def _receive(joined: np.ndarray, rows: np.ndarray, index: int) -> None:
    """Receive another process's rows into `joined`."""
    import torch
    from torch import distributed

    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        buffer = torch.empty(len(block), joined.shape[1])
        distributed.recv(buffer, src=index, group=_connect().group)
        joined[block] = buffer.numpy()
