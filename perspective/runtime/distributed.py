"""One stage in several processes, as torchrun and `accelerate launch` start them.

The launcher names each process in its environment; without one there is a single process, and
everything here does nothing. Process 0 is the main one: it decides, logs and writes. All processes
see the same files.
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

PATIENCE = timedelta(days=1)  # of those who wait for the main process; the launcher ends them if it fails
BLOCK_ROWS = 1 << 16  # sent at a time


@dataclass(frozen=True)
class _Connection:
    """To the other processes.

    Attributes:
        group: For the few small things said here; always on the CPU, whatever training uses.
        store: A table that all can write to at any time.
    """

    group: Any
    store: Any


_connection: _Connection | None = None


def n_processes() -> int:
    """Return how many processes share this run."""
    return int(os.environ["WORLD_SIZE"]) if "LOCAL_RANK" in os.environ else 1


def process_index() -> int:
    """Return which of them this is, from 0."""
    return int(os.environ["RANK"]) if n_processes() > 1 else 0


def is_main() -> bool:
    """Tell whether this process decides, logs and writes."""
    return process_index() == 0


def join() -> None:
    """Meet the other processes, before anything can go wrong in one of them."""
    if n_processes() > 1:
        _connect()


def leave() -> None:
    """Part from the other processes, once all are here: what follows is the work of the main one."""
    if "LOCAL_RANK" not in os.environ:
        return
    from torch import distributed

    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()


def wait() -> None:
    """Go on when all processes are here."""
    if n_processes() > 1:
        from torch import distributed

        distributed.barrier(group=_connect().group)


@contextmanager
def main_first() -> Iterator[None]:
    """Run a block in the main process, then in the others, who see what it did to the files."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def broadcast_from_main(question: Callable[[], bool]) -> bool:
    """Return the main process's answer in all processes; the others are not asked."""
    if n_processes() == 1:
        return question()
    import torch
    from torch import distributed

    answer = torch.tensor([int(question())] if is_main() else [0])
    distributed.broadcast(answer, src=0, group=_connect().group)
    return bool(answer.item())


def share_texts(compute: Callable[[list[str]], np.ndarray], texts: Sequence[str]) -> np.ndarray | None:
    """Let each process compute the vectors of its share of the texts, and join them in the main one.

    Args:
        compute: Takes texts, gives float32 `(n, dim)`.
        texts: All texts, the same in all processes.

    Returns:
        In the main process float32 `(n_texts, dim)`, row i of text i; None in the others.

    Raises:
        DataError: `compute` raised it; it says of which share.
    """
    n_shares = n_processes()
    if n_shares == 1:
        return compute(list(texts))
    # Dealt out by length, so that all shares cost the same.
    order = np.argsort([len(text) for text in texts], kind="stable")
    shares = [order[index::n_shares] for index in range(n_shares)]
    own = shares[process_index()]
    try:
        part = compute([texts[row] for row in own]) if len(own) else np.empty((0, 0), dtype=np.float32)
    except DataError as error:
        raise DataError(f"process {process_index()}, of its {len(own)} texts: {error}") from None
    if not is_main():
        _send(part)
        return None
    joined = np.empty((len(texts), part.shape[1]), dtype=np.float32)
    joined[own] = part
    for index in range(1, n_shares):
        _receive(joined, shares[index], index)
    return joined


def claim_error() -> bool:
    """Tell whether this process is the first of its run to fail.

    What the others meet afterwards, such as a lost connection, only follows from it.
    """
    if _connection is None:
        return is_main()
    # A launcher that starts all processes anew keeps the table.
    key = f"perspective/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        return bool(_connection.store.add(key, 1) == 1)
    except RuntimeError:  # it went with the process that held it, which failed before
        return False


def _connect() -> _Connection:
    """Meet the other processes where that is not done yet.

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
            if local >= torch.cuda.device_count():
                raise DataError(f"more processes than the {torch.cuda.device_count()} GPUs of this machine")
            torch.cuda.set_device(local)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_gpu else "gloo")
        group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        # A connection of our own: the group's store is not public.
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
    """Fill the rows of `joined` that another process worked on."""
    import torch
    from torch import distributed

    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        buffer = torch.empty(len(block), joined.shape[1])
        distributed.recv(buffer, src=index, group=_connect().group)
        joined[block] = buffer.numpy()
