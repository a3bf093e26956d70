"""What this machine computes with: device, precision, attention."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from perspective.errors import DataError, suggest_name

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def pick_device() -> str:
    """Return the best device there is: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def supports_fast_bf16(device: str | None = None) -> bool:
    """Tell whether bfloat16 is faster than float32 here: emulated bfloat16 is many times slower.

    Args:
        device: Type of the device, cuda or cpu; CUDA where there is one when None.
    """
    import torch

    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = torch.cpu.get_capabilities()
    return bool(abilities.get("amx_bf16") or abilities.get("avx512_bf16"))


def pick_reading_dtype(device: str) -> torch.dtype:
    """Return the precision in which a model reads texts fastest.

    That is bfloat16 where the device has it, else float16 on an accelerator and float32 on a CPU.
    `COMPUTE_DTYPE` decides otherwise.

    Args:
        device: Type of the device: cuda, mps or cpu.

    Raises:
        DataError: `COMPUTE_DTYPE` names no precision.
    """
    import torch

    asked = _read_asked_dtype()
    if asked:
        return asked
    if device == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    if supports_fast_bf16(device):
        return torch.bfloat16
    return torch.float32 if device == "cpu" else torch.float16


def trains_in_bf16() -> bool:
    """Tell whether training computes in bfloat16; the weights that it changes are float32 everywhere.

    It does where that is fast, unless `COMPUTE_DTYPE` asks for another precision.

    Raises:
        DataError: `COMPUTE_DTYPE` names no precision.
    """
    import torch

    return supports_fast_bf16() and _read_asked_dtype() in (None, torch.bfloat16)


def _read_asked_dtype() -> torch.dtype | None:
    """Return what the environment variable `COMPUTE_DTYPE` asks for: one precision on all machines."""
    import torch

    asked = os.environ.get("COMPUTE_DTYPE")
    if asked and asked not in DTYPES:
        raise DataError(f'COMPUTE_DTYPE="{asked}": {suggest_name(asked, DTYPES)}')
    return getattr(torch, asked) if asked else None


def pick_attention(device: str, dtype: torch.dtype) -> dict[str, str]:
    """Return the options of `from_pretrained` for the attention.

    Without any, transformers takes PyTorch's fused attention (SDPA) for every model that has it.
    FlashAttention 2 takes its place on CUDA, in half precision, where flash_attn is installed.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

    if device == "cuda" and dtype != torch.float32 and is_flash_attn_2_available():
        return {"attn_implementation": "flash_attention_2"}
    return {}


def describe_precision(model: Any) -> dict[str, str]:  # noqa: ANN401  of transformers or sentence-transformers
    """Return on what device and in what precision a loaded model computes, for the provenance."""
    return {"device": model.device.type, "dtype": str(model.dtype).removeprefix("torch.")}
