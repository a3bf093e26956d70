"""The work of a stage spread over a Ray cluster: shards of texts out, shards of vectors back.

Ray Data hands the shards to workers, which load their model once and are replaced when they die.
Each shard comes back through Ray's object store to this process, the only one that writes: the
machines need no file system in common. (Ray Data's own checkpoints do, and cover what workers
write.) A finished shard lies in `<file>.partial/`, named by the hash of its texts, until all are
there and are joined in order; a killed run goes on with the shards that are missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from perspective.artifacts import ROOT, Output, atomic_path
from perspective.errors import DataError, ModelError, PerspectiveError
from perspective.options import option

logger = logging.getLogger(__name__)

MAX_SHARD_RETRIES = 3  # a shard that kills its worker more often is at fault itself
MAX_FIRST_DEATHS = 3  # workers that die in a row before they are up

Compute = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class EngineSettings:
    """Where the work is done; nothing here changes a result beyond rounding."""

    engine: Literal["local", "ray"] = option(
        "local, or ray: on the Ray cluster that RAY_ADDRESS names, else on one of this machine",
        default="local",
        group="scale",
    )
    workers: int | None = option(
        "models at work on Ray at a time; default one a GPU, without GPUs one a CPU", default=None, group="scale"
    )
    shard_texts: int = option(
        "texts that a worker of Ray takes at a time, and loses when it dies", default=1024, group="scale"
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot."""
        if self.workers is not None and self.workers < 1:
            raise DataError(f"--workers {self.workers}: must be at least 1")
        if self.shard_texts < 1:
            raise DataError(f"--shard_texts {self.shard_texts}: must be at least 1")


def write_vectors_on_ray(
    output: Output, texts: Sequence[str], load: Callable[[], Compute], settings: EngineSettings
) -> None:
    """Compute a vector of every text on Ray and write them in order; a killed run goes on.

    This process holds the texts and one shard of vectors at a time.

    Args:
        output: The file of vectors; its fingerprint and the texts' own hashes guard the shards.
        texts: All texts.
        load: Called once in each worker; returns what turns texts into vectors `(n, dim)`. It is
            pickled, so that it must be importable there or a `functools.partial` of such a function.
        settings: How many workers, and how large a shard is.

    Raises:
        DataError: The shards belong to other inputs or settings, or the cluster cannot be reached.
        ModelError: The model cannot be loaded in a worker, or its workers die again and again.
    """
    folder = output.open_partial()
    shards = _Shards.split(texts, settings.shard_texts)
    missing = shards.missing(folder)
    with tqdm(total=len(texts), desc="on Ray", unit="text") as progress:
        progress.update(len(texts) - missing.n_texts)
        if len(missing):
            with _connect(settings.workers) as ray:
                for start, shard in _compute(ray, missing, load, settings.workers):
                    with atomic_path(folder / shards.names[start]) as temporary:
                        temporary.write_bytes(shard)
                    progress.update(shards.count(start))
    _join(output, folder, shards)


@dataclass(frozen=True)
class _Shards:
    """Runs of neighbouring texts; iterated over, the tables that Ray takes, each made when asked for.

    Attributes:
        texts: All texts, of these shards and others.
        size: Texts of a shard; the last may hold fewer.
        names: File name by first row.
    """

    texts: Sequence[str]
    size: int
    names: Mapping[int, str]

    @classmethod
    def split(cls, texts: Sequence[str], size: int) -> _Shards:
        names = {}
        for start in range(0, len(texts), size):
            # Through JSON: where one text ends and the next begins counts too.
            content = json.dumps(texts[start : start + size]).encode()
            names[start] = f"ray-{start:010d}-{hashlib.sha256(content).hexdigest()[:16]}.npy"
        return cls(texts, size, names)

    def missing(self, folder: Path) -> _Shards:
        there = {path.name for path in folder.glob("ray-*.npy")}
        return _Shards(self.texts, self.size, {row: name for row, name in self.names.items() if name not in there})

    def count(self, start: int) -> int:
        return min(self.size, len(self.texts) - start)

    @property
    def n_texts(self) -> int:
        return sum(map(self.count, self.names))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Any]:
        return map(self._table, self.names)

    def _table(self, start: int) -> Any:  # noqa: ANN401
        import pyarrow as pa

        # One row a shard: Ray Data may join and cut blocks, but never within a row.
        return pa.table({"start": [start], "texts": [list(self.texts[start : start + self.size])]})


class _Worker:
    """What runs on the cluster: loads its model with the first shard, so that its errors come back."""

    def __init__(self, load: Callable[[], Compute]) -> None:
        self._load = load
        self._compute: Compute | None = None

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401  a table of pyarrow with one row
        import pyarrow as pa

        if self._compute is None:
            self._compute = self._load()
        (start,), (texts,) = batch["start"].to_pylist(), batch["texts"].to_pylist()
        file = io.BytesIO()
        np.save(file, np.asarray(self._compute(texts), dtype=np.float32), allow_pickle=False)
        return pa.table({"start": [start], "file": pa.array([file.getvalue()], pa.large_binary())})


def _compute(
    ray: Any,  # noqa: ANN401  the module
    shards: _Shards,
    load: Callable[[], Compute],
    n_workers: int | None,
) -> Iterator[tuple[int, bytes]]:
    """Yield first row and `.npy` file of each shard, in the order in which they are done."""
    n_workers, resources = _share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], n_workers)
    n_workers = min(n_workers, len(shards))
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = MAX_FIRST_DEATHS
    context.execution_no_progress_timeout_s = -1  # a shard of a large LLM on a CPU may take hours
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        # Ray means to give `max_task_retries` another place; without it a deadly shard is tried for ever.
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        results = ray.data.from_blocks(shards).map_batches(
            _Worker,
            fn_constructor_args=(load,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=n_workers),
            max_task_retries=MAX_SHARD_RETRIES,
            **resources,
        )
        try:
            for row in results.iter_rows():
                yield row["start"], row["file"]
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PerspectiveError):
                # Our messages are one line; Ray adds others.
                raise type(error.cause)(str(error.cause).partition("\n")[0]) from None
            raise
        except ray.exceptions.RayError as error:
            raise ModelError(
                f"Ray gave up a shard after {MAX_SHARD_RETRIES + 1} tries ({_shorten(error)}); where workers ran out "
                "of memory, take fewer --workers or a smaller batch; run the same command again, what is done is kept"
            ) from None


def _share_out(nodes: Sequence[Mapping[str, float]], n_workers: int | None) -> tuple[int, dict[str, float]]:
    """Return the number of workers and what Ray reserves for each, which one node must have.

    Args:
        nodes: Resources of each node.
        n_workers: As asked for; None for one a GPU, or a CPU where there is no GPU.

    >>> _share_out([{"CPU": 16, "GPU": 2}], None)
    (2, {'num_gpus': 1})
    >>> _share_out([{"CPU": 16}], 3), _share_out([{"CPU": 8}, {"CPU": 8}], 3)
    ((3, {'num_cpus': 5}), (3, {'num_cpus': 4}))
    """
    kind = "GPU" if any(node.get("GPU", 0) >= 1 for node in nodes) else "CPU"
    there = [int(node.get(kind, 0)) for node in nodes]
    n_workers = n_workers or sum(there)
    if not 1 <= n_workers <= sum(there):
        raise DataError(f"--workers {n_workers}: the Ray cluster has {sum(there)} {kind}s")
    if kind == "GPU":
        return n_workers, {"num_gpus": 1}
    shares = range(sum(there) // n_workers, 0, -1)
    return n_workers, {"num_cpus": next(n for n in shares if sum(cpus // n for cpus in there) >= n_workers)}


@contextmanager
def _connect(n_workers: int | None) -> Iterator[Any]:
    """Connect to the cluster of RAY_ADDRESS, or start one of this machine's; give the module `ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise DataError("--engine ray: Ray is not installed; run: bash scripts/setup.sh --ray") from None
    if ray.is_initialized():  # a notebook's, which goes on using it
        yield ray
        return
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it has to say comes back as an error
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    if n_workers is not None:
        options["num_cpus"] = max(n_workers, os.cpu_count() or 1)
    if address:
        # Workers on other machines have no copy of this code; results and checkpoints stay here.
        code = {"py_modules": [str(ROOT / "perspective")], "excludes": ["?*.*", "!*.py"]}
        options = {"address": address, "runtime_env": code}
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise DataError(f"Ray cannot start on this machine ({_shorten(error)})") from None
        hint = "start one with: ray start --head; where it wants a token, set RAY_AUTH_MODE=token"
        raise DataError(f"RAY_ADDRESS {address}: no Ray cluster answers ({_shorten(error)}); {hint}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _join(output: Output, folder: Path, shards: _Shards) -> None:
    """Write the shards one after another into the output, as `np.save` would write them all."""
    dim = int(np.load(folder / shards.names[0], allow_pickle=False).shape[1])
    shape = (len(shards.texts), dim)
    output.facts |= {"n_texts": len(shards.texts), "dim": dim, "engine": "ray", "n_shards": len(shards)}
    with output.open() as temporary:
        joined = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        for start, name in tqdm(shards.names.items(), desc="joining", unit="shard"):
            shard = np.load(folder / name, allow_pickle=False)
            if shard.shape != (shards.count(start), dim):
                raise DataError(f"{folder / name}: shape {shard.shape}, expected {(shards.count(start), dim)}")
            joined[start : start + len(shard)] = shard
        joined.flush()


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
