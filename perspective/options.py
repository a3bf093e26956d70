"""Command-line options: the `option` field and the option groups that several scripts share.

An option is a field of a frozen dataclass, declared with `option`; `perspective.cli.parse_settings`
turns dataclasses into a parser. Options shared by several scripts are declared here, once.
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
PoolingName = Literal["last", "mean", "weighted"]

EMBEDDER_ALIASES = ("--embed_method",)
TRAINED_ALIASES = (*EMBEDDER_ALIASES, "--model_name_or_path")


def option(
    help: str,
    *,
    default: Any = MISSING,  # noqa: ANN401
    group: Group = "method",
    aliases: Sequence[str] = (),
    extend: bool = False,
) -> Any:  # noqa: ANN401  a field; type checkers should see its value
    """Declare a dataclass field as a command-line option; type and choices come from the field's hint.

    Args:
        help: One line for `--help`, without the default.
        default: Default value; without one the option is required.
        group: Section of `--help`.
        aliases: Other names, with their dashes.
        extend: For lists: repeating the option adds values instead of replacing them.
    """
    metadata = {"help": help, "group": group, "aliases": tuple(aliases), "extend": extend}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DatasetOptions:
    """The data set."""

    dataset: str = option(
        "banking77, few_nerd_nat, mtop_domain, stackexchange, demo, or a name for your own texts", group="input"
    )
    scale: Scale = option("small, or large to cluster with MiniBatchKMeans throughout", default="small", group="input")


@dataclass(frozen=True)
class RetrievalSetOptions:
    """The retrieval set."""

    dataset: str = option("name of the retrieval set", group="input")


@dataclass(frozen=True)
class EmbedderOptions:
    """The embedder."""

    embedder: str = option(
        "gte, e5, minilm, bge-m3, e5-mistral, smollm2, an id of an embedder or a causal LM, a folder, or a .gguf file",
        default="minilm",
        group="model",
        aliases=EMBEDDER_ALIASES,
    )


@dataclass(frozen=True)
class TrainedEmbedderOptions(EmbedderOptions):
    """The embedder to train."""

    embedder: str = option(
        "the embedder to adapt: gte, e5, minilm, smollm2, an id of an embedder or a causal LM, a folder, a .gguf file",
        default="minilm",
        group="model",
        aliases=TRAINED_ALIASES,
    )


@dataclass(frozen=True)
class RunOptions(EmbedderOptions):
    """Options that identify a run and its files."""

    llm: str = option("name of the judge in file names", default="smollm2", group="model")
    max_query: int = option("number of triplets, as in file names", default=1024, group="input")
    seed: int = option("random seed, as in file names", default=100, group="input")


@dataclass(frozen=True)
class RecipeOptions:
    """What the embedder learns, and how."""

    recipe: RecipeName | None = option(
        "what the embedder learns: distill (a teacher; default if convert_states made one), standard or "
        "published (triplets; published with batch 2, learning rate 5e-7, 8 epochs, file order)",
        default=None,
    )


@dataclass(frozen=True)
class LearnedRunOptions(RecipeOptions, RunOptions):
    """Options that identify a run with a trained embedder."""


@dataclass(frozen=True)
class VectorOptions:
    """Other vectors than those of the run."""

    feat_path: str | None = option("vectors as .npy; default: those of --embedder", default=None, group="input")


@dataclass(frozen=True)
class JudgedOptions(VectorOptions):
    """Other vectors, judgments and answer states than those of the run."""

    pred_path: str | None = option(
        "judgments, ours or published; default: those of the run", default=None, group="input"
    )
    states_path: str | None = option("answer states as .npy", default=None, group="input")


@dataclass(frozen=True, kw_only=True)
class CodeOptions:
    """Whether a model may bring its own code."""

    trust_remote_code: bool = option(
        "run code from the model's repository; only if you trust it", default=False, group="model"
    )


@dataclass(frozen=True)
class ModelOptions(CodeOptions):
    """How an embedder is loaded from the hub."""

    revision: str | None = option("branch, tag or commit of the embedder on the hub", default=None, group="model")

    def loading(self) -> dict[str, Any]:
        """Return the keyword arguments that load the embedder."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


@dataclass(frozen=True)
class BodyOptions(ModelOptions):
    """How the body of an embedder is loaded for training, and what makes a vector of its token states."""

    pooling: PoolingName | None = option(
        "what makes a vector of a text: last (the last token, of a decoder its end-of-text token), mean, or weighted "
        "(a mean in which later tokens count more); default: the embedder's own, last for a causal LM",
        default=None,
        group="model",
    )
    load_in: Literal["auto", "8bit", "4bit"] = option(
        "8bit or 4bit: a base to train adapters on (--lora_rank), on a CUDA GPU with bitsandbytes; auto: float32",
        default="auto",
        group="model",
    )

    def loading(self) -> dict[str, Any]:
        """Return the keyword arguments that load the embedder."""
        return {**super().loading(), "pooling": self.pooling, "load_in": self.load_in}


@dataclass(frozen=True)
class LLMOptions(CodeOptions):
    """Which LLM is used, and how a local one is loaded."""

    llm: str = option(
        "smollm2, starling, starling-rm, a hub id, a folder, a .gguf file, or a model name on a server",
        default="smollm2",
        group="model",
        aliases=("--model",),
    )
    load_in: Literal["auto", "8bit", "4bit"] = option(
        "8bit or 4bit on a CUDA GPU with bitsandbytes; auto: half precision on devices that are fast in it, "
        "else float32",
        default="auto",
        group="model",
    )
    llm_revision: str | None = option("branch, tag or commit of the LLM on the hub", default=None, group="model")

    def loading(self) -> dict[str, Any]:
        """Return the keyword arguments that load a local LLM."""
        return {"revision": self.llm_revision, "trust_remote_code": self.trust_remote_code, "load_in": self.load_in}


@dataclass(frozen=True)
class PerspectiveOptions:
    """The perspective: what texts of one cluster should share."""

    perspective: str | None = option(
        "what texts of one cluster should share, such as 'intent'; default: from prompts.json", default=None
    )


@dataclass(frozen=True)
class PromptOptions:
    """Prompts of queries and documents."""

    task: str | None = option(
        "the task in a sentence, for embedders that take instructions: a query begins with 'Instruct: TASK', "
        "documents have no prompt",
        default=None,
    )
    query_prompt: str | None = option(
        "put before each query; default: the model's own, 'query: ' for the E5 family", default=None
    )
    document_prompt: str | None = option(
        "put before each document; default: the model's own, 'passage: ' for the E5 family", default=None
    )


@dataclass(frozen=True)
class RecipeFileOptions:
    """Options from a file."""

    recipe_file: str | None = option(
        "a YAML file of options, such as recipes/e5-mistral.yaml; those on the command line override it",
        default=None,
        group="input",
    )


@dataclass(frozen=True)
class OverwriteOptions:
    """Whether existing output is replaced."""

    overwrite: bool = option(
        "overwrite existing output; an unfinished run of the same settings resumes", default=False, group="output"
    )


@dataclass(frozen=True)
class FolderOptions:
    """Where results are written."""

    output_path: str | None = option("folder of the results; default: the stage's own", default=None, group="output")

    @property
    def folder(self) -> Path | None:
        """The given folder, or None."""
        return Path(self.output_path) if self.output_path else None


@dataclass(frozen=True)
class OutputOptions(OverwriteOptions, FolderOptions):
    """Where results are written, and whether existing ones are replaced."""
