"""Measure how fast this machine embeds, judges and fine-tunes, with models of real shapes; needs no network.

Reads:  datasets/demo/small.jsonl, whose messages are joined to texts; the models have random weights
Writes: measures/benchmark_gpu.json and .md (benchmark_gpu_tiny with --size tiny)

python -m perspective.benchmarks.gpu --parts encode finetune choice states
"""

from __future__ import annotations

import logging
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from perspective.artifacts import Output, TrainingTriplet, Triplet, write_text
from perspective.artifacts.markdown import format_table
from perspective.benchmarks.random_models import SIZES, Size, count_parameters, make_llm, save_embedder
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import ModelError, require_known
from perspective.judging.choice import ChoiceJudge
from perspective.judging.protocol import Question
from perspective.layout import MEASURES
from perspective.llm.loading import LLM
from perspective.models.embedders import load_embedder
from perspective.models.embedding import count_tokens, embed_texts
from perspective.options import FolderOptions, option
from perspective.runtime.devices import pick_attention, pick_device, pick_reading_dtype
from perspective.runtime.memory import free_cache
from perspective.teacher.states import read_states, write_question
from perspective.training.finetuning import finetune_embedder
from perspective.training.settings import TrainSettings

logger = logging.getLogger(__name__)

INSTRUCTION = "Select the message that better corresponds with the Query in terms of intent."
COUNTING = (
    "A forward pass counts 2 operations a token and weight, embeddings and head left out, training 3 times that; the "
    "attention's own products are not counted. Tokens are those of the texts, without padding. Times include "
    "tokenising and copying. The matrix rate is that of a large square product in the precision that texts are read in."
)

COLUMNS = (
    *("part", "model", "items", "tokens", "seconds", "items/s"),
    *("tokens/s", "TFLOP/s", "of the matrix rate", "peak GiB"),
)


@dataclass(frozen=True)
class GpuSettings(FolderOptions):
    """What is timed."""

    size: str = option("real, or tiny to try the code on any machine", default="real")
    parts: list[str] | None = option("encode, finetune, choice, states; default all", default=None, group="input")

    def __post_init__(self) -> None:
        """Check names, and that the size fits the machine."""
        require_known("size", [self.size], SIZES)
        require_known("parts", self.parts or [], PARTS)
        if self.size == "real" and pick_device() != "cuda":
            raise ModelError("--size real needs a CUDA GPU, and there is none; try the code with --size tiny")


@dataclass(frozen=True)
class Work:
    """Work and duration of a part."""

    model: str
    n_parameters: int
    n_items: int
    n_tokens: int
    seconds: float
    passes: int = 1  # training counts its forward pass three times

    @property
    def flop(self) -> float:
        """Number of operations, see `COUNTING`."""
        return 2.0 * self.n_parameters * self.n_tokens * self.passes


class Bench:
    """Models and texts that the parts share, made on first use."""

    def __init__(self, size: Size, folder: Path) -> None:
        self.size = size
        self.folder = folder
        self.messages = load_texts(CorpusSettings("demo"))

    @cached_property
    def embedder(self) -> Path:
        """A folder for `load_embedder`."""
        return save_embedder(self.folder, self.messages, self.size.embedder)

    @cached_property
    def llm(self) -> LLM:
        """The LLM that judges."""
        return make_llm([*self.messages, INSTRUCTION], self.size.llm)

    def write_texts(self, n: int) -> list[str]:
        """Join one to six messages to a text: 10 to 80 tokens."""
        rng = random.Random(0)
        return [" ".join(rng.choices(self.messages, k=rng.randint(1, 6))) for _ in range(n)]

    def output(self, name: str) -> Output:
        """A file of the temporary folder."""
        return Output(self.folder / name, "benchmark", {})


def run_encode(bench: Bench) -> Work:
    """Embed texts, as `get_embedding` does."""
    encoder = load_embedder(str(bench.embedder), reading=True)
    texts = bench.write_texts(bench.size.n_texts)
    embed_texts(encoder, texts[: len(texts) // 16])  # warm-up: the first pass loads kernels
    seconds = _time(lambda: embed_texts(encoder, texts))
    n_parameters = count_parameters(encoder.transformers_model)
    return Work(bench.size.embedder_name, n_parameters, len(texts), sum(count_tokens(encoder, texts)), seconds)


def run_choice(bench: Bench) -> Work:
    """Judge triplets in both orders by log-probability, as `predict_triplet --judge choice` does."""
    n = bench.size.n_questions
    texts = bench.write_texts(3 * n)
    questions = [Question(Triplet(i, i + 1, i + 2), *texts[i : i + 3]) for i in range(0, 3 * n, 3)]
    list(ChoiceJudge(bench.llm, INSTRUCTION).judge(questions[: n // 8]))
    judge = ChoiceJudge(bench.llm, INSTRUCTION)
    seconds = _time(lambda: list(judge.judge(questions)))
    n_parameters = count_parameters(bench.llm.model)
    return Work(bench.size.llm_name, n_parameters, n, judge.facts["n_tokens"], seconds)


def run_states(bench: Bench) -> Work:
    """Read answer states, as the script `read_states` does."""
    texts = bench.write_texts(bench.size.n_state_texts)
    read_states(bench.llm, texts[: len(texts) // 16], (write_question("intent"),), bench.output("warm.npy"))
    output = bench.output("states.npy")
    seconds = _time(lambda: read_states(bench.llm, texts, (write_question("intent"),), output))
    n_parameters = count_parameters(bench.llm.model)
    return Work(bench.size.llm_name, n_parameters, len(texts), output.facts["n_tokens"], seconds)


def run_finetune(bench: Bench) -> Work:
    """Fine-tune on triplets, as `finetune --recipe standard` does for one epoch.

    Timed from step to step, without the first steps: setting up and saving are not counted.
    """
    n, n_batch = bench.size.n_triplets, bench.size.batch_triplets
    texts = bench.write_texts(3 * n)
    rows = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
    triplets = [TrainingTriplet("", *row, Triplet(i, i, i)) for i, row in enumerate(rows)]
    model = load_embedder(str(bench.embedder))
    n_tokens, n_parameters = sum(count_tokens(model, texts)), count_parameters(model.transformers_model)
    begun: list[float] = []  # start times of the forward passes, several per step
    model.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
    output = bench.output("finetuned")
    settings = TrainSettings(
        recipe="standard", num_train_epochs=1, per_device_train_batch_size=n_batch, save_steps=10**6
    )
    finetune_embedder(model, triplets, settings, output)
    n_steps = output.facts["n_steps"]
    steps = begun[:: len(begun) // n_steps][:n_steps]
    first = 1 + n_steps // 8
    share = (n_steps - 1 - first) / n_steps  # of the texts, which are shuffled
    seconds = steps[-1] - steps[first]
    return Work(bench.size.embedder_name, n_parameters, round(share * n), round(share * n_tokens), seconds, passes=3)


PARTS: dict[str, Callable[[Bench], Work]] = {
    "encode": run_encode,
    "finetune": run_finetune,  # before the LLM is loaded, which stays in memory
    "choice": run_choice,
    "states": run_states,
}


def run_benchmark(settings: GpuSettings) -> dict[str, Any]:
    """Time the parts one after another.

    Returns:
        The content of the JSON file: the machine, the matrix rate, one record per part.
    """
    size, device = SIZES[settings.size], pick_device()
    reading = pick_reading_dtype(device)
    matrix_rate = measure_matrix_rate((size.matrix,) * 3, device, reading)
    parts = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(size, Path(folder))
        for name in settings.parts or PARTS:
            _reset_peak()
            work = PARTS[name](bench)
            parts[name] = _describe(work, matrix_rate)
            logger.info("%s: %.0f tokens/s", name, parts[name]["tokens_per_second"])
    return {
        "size": settings.size,
        "machine": _describe_machine(device),
        "dtype": str(reading).removeprefix("torch."),
        "attention": pick_attention(device, reading).get("attn_implementation", "sdpa"),
        "matrix": {"size": size.matrix, "tflops": matrix_rate / 1e12},
        "counting": COUNTING,
        "parts": parts,
    }


def measure_matrix_rate(shape: tuple[int, int, int], device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Return the operations per second of a matrix product: the median of nine, after a warm-up.

    Args:
        shape: (n, k, m) of an `n` x `k` matrix times a `k` x `m` one.
        device: Type of the device.
        dtype: Precision.
    """
    n, k, m = shape
    left, right = torch.randn(n, k, device=device).to(dtype), torch.randn(k, m, device=device).to(dtype)
    for _ in range(3):
        left @ right
    seconds = statistics.median(_time(lambda: left @ right) for _ in range(9))
    return 2.0 * n * k * m / seconds


def format_benchmark(results: dict[str, Any]) -> str:
    """Return the results as a table, with an explanation of the figures."""
    machine, matrix = results["machine"], results["matrix"]
    rows = [
        [
            name,
            part["model"],
            part["n_items"],
            part["n_tokens"],
            f"{part['seconds']:.2f}",
            f"{part['items_per_second']:.0f}",
            f"{part['tokens_per_second']:.0f}",
            f"{part['tflops']:.3g}",
            f"{part['share_of_matrix_rate']:.0%}",
            f"{part['peak_memory_gib']:.2f}",
        ]
        for name, part in results["parts"].items()
    ]
    return f"""# Speed on {machine["name"]}

{machine["memory_gib"]:.0f} GiB, torch {machine["torch"]}, {results["dtype"]}, {results["attention"]}; \
matrix product of {matrix["size"]} squared: {matrix["tflops"]:.3g} TFLOP/s. Random weights. {COUNTING}

{format_table(COLUMNS, rows)}"""


def _describe(work: Work, matrix_rate: float) -> dict[str, Any]:
    return {
        **asdict(work),
        "items_per_second": work.n_items / work.seconds,
        "tokens_per_second": work.n_tokens / work.seconds,
        "tflops": work.flop / work.seconds / 1e12,
        "share_of_matrix_rate": work.flop / work.seconds / matrix_rate,
        "peak_memory_gib": _peak_bytes() / 2**30,
    }


def _describe_machine(device: str) -> dict[str, Any]:
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return {"name": properties.name, "memory_gib": properties.total_memory / 2**30, **versions}
    pages = Path("/proc/meminfo").read_text().split()[1] if Path("/proc/meminfo").exists() else "0"
    return {"name": f"a {device} without CUDA", "memory_gib": int(pages) / 2**20, **versions}


def _time(run: Callable[[], object]) -> float:
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    """Wait until the GPU is done: its calls return earlier."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_peak() -> None:
    free_cache()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # of the whole process


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Time the parts, write and print the table."""
    settings = parse_settings(GpuSettings, argv, __doc__)
    results = run_benchmark(settings)
    name = "benchmark_gpu" if settings.size == "real" else f"benchmark_gpu_{settings.size}"
    path = (settings.folder or MEASURES) / f"{name}.json"
    Output(path, "GPU benchmark", {"size": settings.size, "parts": settings.parts}).write_json(results)
    table = format_benchmark(results)
    write_text(path.with_suffix(".md"), table)
    sys.stdout.write(table)


if __name__ == "__main__":
    main()
