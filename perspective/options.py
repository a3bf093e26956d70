"""Options of the command line: how one is declared, and the groups that several scripts share.

An option is a field of a frozen dataclass, declared by `option`; `perspective.cli.parse_settings` turns
dataclasses into a parser. Whatever several scripts take is declared here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Group = Literal["input", "model", "method", "output", "scale"]
GROUPS: tuple[Group, ...] = get_args(Group)  # in the order of --help
Scale = Literal["small", "large"]
RecipeName = Literal["distill", "standard", "published"]

EMBEDDER_ALIASES = ("--embed_method",)
TRAINED_ALIASES = (*EMBEDDER_ALIASES, "--model_name_or_path")


def option(
    help: str,
    *,
    default: Any = MISSING,  # noqa: ANN401
    group: Group = "method",
    aliases: Sequence[str] = (),
    extend: bool = False,
) -> Any:  # noqa: ANN401  a field, which type checkers are to see as its value
    """Declare a field of a dataclass as an option of the command line; its type and choices are the field's.

    Args:
        help: One line for `--help`, without the default.
        default: Its value when left out; the option is required without one.
        group: Where `--help` shows it.
        aliases: Further names, with their dashes.
        extend: Of a list: giving the option again adds to it, instead of replacing it.
    """
    metadata = {"help": help, "group": group, "aliases": tuple(aliases), "extend": extend}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DatasetOptions:
    """Which data set."""

    dataset: str = option(
        "banking77, few_nerd_nat, mtop_domain, stackexchange, demo, or a name for your own texts", group="input"
    )
    scale: Scale = option("small, or large to cluster with MiniBatchKMeans throughout", default="small", group="input")


@dataclass(frozen=True)
class RetrievalSetOptions:
    """Which retrieval set."""

    dataset: str = option("name of the retrieval set", group="input")


@dataclass(frozen=True)
class EmbedderOptions:
    """Which embedder."""

    embedder: str = option(
        "gte, e5, minilm, a sentence-transformers id, or a folder",
        default="minilm",
        group="model",
        aliases=EMBEDDER_ALIASES,
    )


@dataclass(frozen=True)
class TrainedEmbedderOptions(EmbedderOptions):
    """Which embedder is trained."""

    embedder: str = option(
        "the embedder to adapt: gte, e5, minilm, an id of the hub or a folder",
        default="minilm",
        group="model",
        aliases=TRAINED_ALIASES,
    )


@dataclass(frozen=True)
class RunOptions(EmbedderOptions):
    """What names a run, and with it its files."""

    llm: str = option("the judge, as it stands in the files' names", default="smollm2", group="model")
    max_query: int = option("of the run", default=1024, group="input")
    seed: int = option("of the run", default=100, group="input")


@dataclass(frozen=True)
class LearnedRunOptions(RunOptions):
    """What names a run that trains an embedder."""

    recipe: RecipeName | None = option(
        "what the embedder learns: distill (answer states; default where convert_states made a teacher), standard or "
        "published (triplets; published with batch 2, learning rate 5e-7, 8 epochs)",
        default=None,
    )


@dataclass(frozen=True)
class VectorOptions:
    """Vectors in place of those of the run."""

    feat_path: str | None = option("vectors as .npy; default those of --embedder", default=None, group="input")


@dataclass(frozen=True)
class JudgedOptions(VectorOptions):
    """Vectors, judgments and answer states in place of those of the run."""

    pred_path: str | None = option(
        "judgments, ours or published; default those of the run", default=None, group="input"
    )
    states_path: str | None = option("answer states as .npy", default=None, group="input")


@dataclass(frozen=True)
class ModelOptions:
    """How a model of the hub is loaded."""

    revision: str | None = option("branch, tag or commit of the embedder on the hub", default=None, group="model")
    trust_remote_code: bool = option(
        "run code from the model's repository; only where you trust it", default=False, group="model"
    )


@dataclass(frozen=True)
class LLMOptions:
    """Which LLM is asked, and how a local one is loaded."""

    llm: str = option(
        "smollm2, starling, starling-rm, a hub id, a folder, a .gguf file, or the name of a server's model",
        default="smollm2",
        group="model",
        aliases=("--model",),
    )
    load_in: Literal["auto", "8bit", "4bit"] = option(
        "8bit or 4bit on a CUDA GPU with bitsandbytes; auto for half precision where the device is fast in "
        "it, else float32",
        default="auto",
        group="model",
    )
    llm_revision: str | None = option("branch, tag or commit of the LLM on the hub", default=None, group="model")
    trust_remote_code: bool = option(
        "run code from the model's repository; only where you trust it", default=False, group="model"
    )

    def loading(self) -> dict[str, Any]:
        """Return how a local LLM is loaded."""
        return {"revision": self.llm_revision, "trust_remote_code": self.trust_remote_code, "load_in": self.load_in}


@dataclass(frozen=True)
class PerspectiveOptions:
    """What should be alike."""

    perspective: str | None = option(
        "what should be alike, such as 'intent'; default that of prompts.json", default=None
    )


@dataclass(frozen=True)
class PromptOptions:
    """What is put before queries and documents."""

    query_prompt: str | None = option(
        "put before each query; default the model's own, 'query: ' for the E5 family", default=None
    )
    document_prompt: str | None = option(
        "put before each document; default the model's own, 'passage: ' for the E5 family", default=None
    )


@dataclass(frozen=True)
class OverwriteOptions:
    """Whether finished output is replaced."""

    overwrite: bool = option("overwrite existing output; unfinished runs always resume", default=False, group="output")


@dataclass(frozen=True)
class FolderOptions:
    """Where results are written."""

    output_path: str | None = option("folder of the results; default the stage's own", default=None, group="output")

    @property
    def folder(self) -> Path | None:
        """The folder, where one is given."""
        return Path(self.output_path) if self.output_path else None


@dataclass(frozen=True)
class OutputOptions(OverwriteOptions, FolderOptions):
    """Where results are written, and whether finished ones are replaced."""
