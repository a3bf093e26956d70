"""Models published as pickles of tensors, such as BAAI/bge-m3: converted to safetensors once, without running code."""

from __future__ import annotations

import hashlib
import logging
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perspective.artifacts import atomic_path
from perspective.errors import ModelError
from perspective.models.registry import explain_loading

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

HEADS = "hybrid_heads.safetensors"
BODY, PICKLED_BODY = "model.safetensors", "pytorch_model.bin"
# Head and file, as published with bge-m3: the state of a linear layer each.
PICKLED_HEADS = {"lexical": "sparse_linear.pt", "multi": "colbert_linear.pt"}
DOWNLOADED = ("*.json", "*.model", "*.txt", BODY, PICKLED_BODY, HEADS, *PICKLED_HEADS.values())


def fetch_converted(source: str | Path, revision: str | None = None) -> Path:
    """Return a model's folder, downloaded if need be; one with published heads is converted.

    Args:
        source: A folder or a hub id.
        revision: Branch, tag or commit on the hub.

    Raises:
        ModelError: The hub cannot be reached, or a pickle holds more than tensors.
    """
    if isinstance(source, Path):
        folder = source
    else:
        from huggingface_hub import snapshot_download

        with explain_loading(source):
            folder = Path(
                snapshot_download(
                    source, revision=revision, allow_patterns=list(DOWNLOADED), ignore_patterns=["onnx/*"]
                )
            )
    is_published = all((folder / file).is_file() for file in PICKLED_HEADS.values())
    return convert_published(folder) if is_published and not (folder / HEADS).is_file() else folder


def convert_published(folder: Path) -> Path:
    """Convert a folder in the layout of bge-m3 to safetensors; return the converted one in the hub's cache.

    The pickles are read by PyTorch's restricted unpickler: it builds tensors and plain containers, and refuses
    every other name that a pickle may ask for, so that no code of the file can run. Needed once: the result
    stays in the cache, under the names, sizes and times of the files that it was made from.

    Raises:
        ModelError: A file holds anything but tensors.
    """
    from huggingface_hub.constants import HF_HOME
    from safetensors.torch import save_file

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    stats = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    converted = Path(HF_HOME) / "embwithllm" / f"hybrid-{key}"
    if converted.is_dir():
        return converted
    logger.info("%s: converting its heads to safetensors, once, into %s", folder, converted)
    heads: dict[str, Any] = {}
    for head, file in PICKLED_HEADS.items():
        heads |= {f"{head}.{name}": value.float().contiguous() for name, value in read_tensors(folder / file).items()}
    with atomic_path(converted) as temporary:
        temporary.mkdir()
        for path in files:
            if path.name not in (PICKLED_BODY, *PICKLED_HEADS.values()):
                (temporary / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, temporary / path.relative_to(folder))
        if not (folder / BODY).exists() and (folder / PICKLED_BODY).exists():
            body = read_tensors(folder / PICKLED_BODY)
            # Copies: tensors that share memory are refused by safetensors.
            save_file(
                {name: value.clone().contiguous() for name, value in body.items()}, temporary / BODY, {"format": "pt"}
            )
        save_file(heads, temporary / HEADS)
    return converted


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a pickle of named tensors without running code of it.

    Raises:
        ModelError: It holds anything else.
    """
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{path}: holds more than tensors, and is not loaded ({reason})") from None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ModelError(f"{path}: holds more than named tensors, and is not loaded")
    return weights
