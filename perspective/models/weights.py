"""Where weights are, and how they are loaded: GGUF files, quantisation."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from perspective.errors import ModelError
from perspective.runtime.devices import pick_reading_dtype


@dataclass(frozen=True)
class Weights:
    """What `from_pretrained` needs to find weights.

    Attributes:
        folder: A folder or a hub id.
        options: Further arguments for config, tokenizer and model alike.
        model_options: Further arguments for the model.
    """

    folder: str
    options: dict[str, Any] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)


def locate_weights(source: str | Path) -> Weights:
    """Return where weights are; a GGUF file is dequantised when it is loaded, other files are safetensors."""
    path = Path(source)
    if path.suffix != ".gguf":
        return Weights(str(source), {}, {"use_safetensors": True})
    from transformers import GgufConfig

    # Without this, the package `kernels` decides whether weights stay packed and compute in float32.
    return Weights(str(path.parent), {"gguf_file": path.name}, {"quantization_config": GgufConfig(dequantize=True)})


@contextmanager
def read_gguf_once() -> Iterator[None]:
    """Speed up the loading of GGUF files by transformers.

    transformers parses such a file for the tokenizer, for the config and for the weights, with a memory map
    that gguf slices three times per token of the vocabulary, and builds gguf's table of names for every module.
    """
    import gguf

    class Reader(gguf.GGUFReader):
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: str | None = None) -> np.ndarray:  # noqa: ANN401
            values = np.frombuffer(self.data, dtype, int(count), int(offset))
            return values.view(values.dtype.newbyteorder(override_order or self.byte_order))

    faster: dict[str, Any] = {"GGUFReader": cache(Reader), "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
    with mock.patch.multiple(gguf, **faster):
        yield


@contextmanager
def refuse_gaps(name: str, advice: str = "fetch the model again", unused: str | None = None) -> Iterator[None]:
    """Refuse weights that lack layers: transformers draws them at random, and sentence-transformers does not say so.

    Args:
        name: The model, for the message.
        advice: The end of the message.
        unused: Layers with this in their names may be missing.

    Raises:
        ModelError: After the block, if a layer was missing.
    """
    from transformers import modeling_utils

    report = modeling_utils.log_state_dict_report
    missing: set[str] = set()

    def collect(*arguments: Any, loading_info: Any, **options: Any) -> None:  # noqa: ANN401
        missing.update(key for key in loading_info.missing_keys if unused is None or unused not in key)
        report(*arguments, loading_info=loading_info, **options)

    with mock.patch.object(modeling_utils, "log_state_dict_report", collect):
        yield
    if missing:
        raise ModelError(f"{name}: has no weights for {', '.join(sorted(missing)[:3])}; {advice}")


def pick_quantization(load_in: str, device: str) -> Any:  # noqa: ANN401  of bitsandbytes
    """Return the settings of bitsandbytes for weights in 8 or 4 bits.

    Raises:
        ModelError: An unknown number of bits, or bitsandbytes cannot run here.
    """
    from transformers import BitsAndBytesConfig

    if load_in not in ("8bit", "4bit"):
        raise ModelError(f'--load_in "{load_in}": choose auto, 8bit or 4bit')
    if device != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"--load_in {load_in} needs a CUDA GPU and the package bitsandbytes; leave it out here")
    return BitsAndBytesConfig(
        load_in_8bit=load_in == "8bit",
        load_in_4bit=load_in == "4bit",
        bnb_4bit_quant_type="nf4",  # stated: the library's own choice is fp4 in float32, less exact and slower
        bnb_4bit_compute_dtype=pick_reading_dtype(device),
    )
