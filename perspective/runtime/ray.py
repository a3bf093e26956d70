"""Compute vectors on a Ray cluster, in shards of texts.

Ray Data distributes the shards to workers, which load their model once and are replaced if they
die. Results return through Ray's object store to this process, the only one that writes, so the
machines need no shared file system. (Ray Data's own checkpoints need one, and cover only what
workers write.) A finished shard is in `<file>.partial/`, named by the hash of its texts; when all
are finished they are joined in order. A killed run resumes with the missing shards.
"""

from __future__ import annotations

import gc
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
from perspective.errors import DataError, ModelError, PerspectiveError, require_least
from perspective.options import option
from perspective.runtime.devices import reading_precision
from perspective.runtime.distributed import align_copies

MAX_SHARD_RETRIES = 3  # if a shard kills its worker more often, the shard is the cause
MAX_START_FAILURES = 3  # consecutive workers that die while starting

Compute = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class EngineSettings:
    """Where vectors are computed; these settings change results by rounding only."""

    engine: Literal["local", "ray"] = option(
        "local, or ray: the Ray cluster at RAY_ADDRESS, else a local one started for this run",
        default="local",
        group="scale",
    )
    workers: int | None = option(
        "number of Ray workers, each with its own model; default: one per GPU, without GPUs one per CPU",
        default=None,
        group="scale",
    )
    shard_texts: int = option(
        "texts per shard: what a Ray worker computes at a time, and loses when it dies", default=1024, group="scale"
    )

    def __post_init__(self) -> None:
        """Check ranges."""
        require_least(self, workers=1, shard_texts=1)


def write_vectors_on_ray(
    output: Output, texts: Sequence[str], load: Callable[[], Compute], settings: EngineSettings
) -> None:
    """Compute the vectors of all texts on Ray and write them in order; a killed run resumes.

    This process holds the texts and one shard of vectors in memory.

    Args:
        output: The file of vectors; its fingerprint and the hashes of the texts identify the shards.
        texts: All texts.
        load: Called once in each worker; returns a function from texts to vectors `(n, dim)`. It is
            pickled: it must be importable in the worker, or a `functools.partial` of such a function.
        settings: Number of workers and size of a shard.

    Raises:
        DataError: Existing shards have other inputs or settings, or the cluster cannot be reached.
        ModelError: The model cannot be loaded in a worker, or workers die repeatedly.
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
    """Shards of consecutive texts; iterating yields the tables for Ray, created on demand.

    Attributes:
        texts: All texts, also those of other shards.
        size: Texts per shard; the last may have fewer.
        names: File name of each shard, by its first row.
    """

    texts: Sequence[str]
    size: int
    names: Mapping[int, str]

    @classmethod
    def split(cls, texts: Sequence[str], size: int) -> _Shards:
        names = {}
        for start in range(0, len(texts), size):
            # Hashed as JSON, so that the boundaries between texts count too.
            content = json.dumps(texts[start : start + size]).encode()
            names[start] = f"ray-{start:010d}-{hashlib.sha256(content).hexdigest()[:16]}.npy"
        return cls(texts, size, names)

    def missing(self, folder: Path) -> _Shards:
        finished = {path.name for path in folder.glob("ray-*.npy")}
        return _Shards(self.texts, self.size, {row: name for row, name in self.names.items() if name not in finished})

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

        # One row per shard: Ray Data may merge and split blocks, but never within a row.
        return pa.table({"start": [start], "texts": [list(self.texts[start : start + self.size])]})


class _Worker:
    """A Ray worker; it loads its model with the first shard, so that errors reach the main process."""

    def __init__(self, load: Callable[[], Compute]) -> None:
        self._load = load
        self._compute: Compute | None = None

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401  a pyarrow table with one row
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
    """Yield the first row and the `.npy` bytes of each shard, in order of completion."""
    n_workers, resources = _share_out([node["Resources"] for node in ray.nodes() if node["Alive"]], n_workers)
    n_workers = min(n_workers, len(shards))
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = MAX_START_FAILURES
    context.execution_no_progress_timeout_s = -1  # a shard of a large LLM on a CPU may take hours
    failure: PerspectiveError | None = None
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        # Ray deprecates `max_task_retries` here, but without it a failing shard is retried forever.
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
            if not isinstance(error.cause, PerspectiveError):
                raise
            # Our messages have one line; Ray adds more.
            failure = type(error.cause)(str(error.cause).partition("\n")[0])
        except ray.exceptions.RayError as error:
            failure = ModelError(
                f"Ray gave up a shard after {MAX_SHARD_RETRIES + 1} tries ({_shorten(error)}); if workers ran out "
                "of memory, use fewer --workers or a smaller batch; run the same command again to resume"
            )
    if failure:
        # Ray ends workers when the last reference to them is gone. Until then they keep their CPUs, and the next run of
        # this process waits for these; so nothing keeps a traceback of Ray: no context of this error, no log record.
        del results
        gc.collect()
        raise failure


def _share_out(nodes: Sequence[Mapping[str, float]], n_workers: int | None) -> tuple[int, dict[str, float]]:
    """Return the number of workers and the resources of each, which must fit on one node.

    Args:
        nodes: Resources of each node.
        n_workers: Requested number; None for one per GPU, or one per CPU without GPUs.

    >>> _share_out([{"CPU": 16, "GPU": 2}], None)
    (2, {'num_gpus': 1})
    >>> _share_out([{"CPU": 16}], 3), _share_out([{"CPU": 8}, {"CPU": 8}], 3)
    ((3, {'num_cpus': 5}), (3, {'num_cpus': 4}))
    """
    kind = "GPU" if any(node.get("GPU", 0) >= 1 for node in nodes) else "CPU"
    available = [int(node.get(kind, 0)) for node in nodes]
    n_workers = n_workers or sum(available)
    if not 1 <= n_workers <= sum(available):
        raise DataError(f"--workers {n_workers}: the Ray cluster has {sum(available)} {kind}s")
    if kind == "GPU":
        return n_workers, {"num_gpus": 1}
    shares = range(sum(available) // n_workers, 0, -1)
    return n_workers, {"num_cpus": next(n for n in shares if sum(cpus // n for cpus in available) >= n_workers)}


@contextmanager
def _connect(n_workers: int | None) -> Iterator[Any]:
    """Connect to the cluster at RAY_ADDRESS, or start a local one; yield the module `ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise DataError("--engine ray: Ray is not installed; run: bash scripts/setup.sh --ray") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures are raised as errors
    if ray.is_initialized():  # by a notebook, which continues to use it
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    if n_workers is not None:
        options["num_cpus"] = max(n_workers, os.cpu_count() or 1)
    if address:
        # Workers on other machines have no copy of this package; send its code, not results and checkpoints.
        code: dict[str, Any] = {"py_modules": [str(ROOT / "perspective")], "excludes": ["?*.*", "!*.py"]}
        # The precision that the sidecar records, whatever the workers' devices would choose.
        code["env_vars"] = {"COMPUTE_DTYPE": reading_precision()}
        options = {"address": address, "runtime_env": code}
    try:
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise DataError(f"Ray cannot start on this machine ({_shorten(error)})") from None
        hint = "start one with: ray start --head; if it needs a token, set RAY_AUTH_MODE=token"
        raise DataError(f"RAY_ADDRESS {address}: no Ray cluster answers ({_shorten(error)}); {hint}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _join(output: Output, folder: Path, shards: _Shards) -> None:
    """Join the shards in the output file, with the same bytes as `np.save` of the whole array."""
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
        align_copies(joined, shards.texts)
        joined.flush()


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
