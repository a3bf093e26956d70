"""What this machine computes with: device, precision, attention."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
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
    if device == "cpu" or (device is None and not _may_have_accelerator()):
        return _cpu_has_bf16()
    import torch

    if device == "cuda" or torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _cpu_has_bf16()


def pick_reading_dtype(device: str) -> torch.dtype:
    """Return the precision in which a model reads texts fastest, as a dtype of torch.

    That is bfloat16 where the device has it, else float16 on an accelerator and float32 on a CPU.
    `COMPUTE_DTYPE` decides otherwise.

    Args:
        device: Type of the device: cuda, mps or cpu.

    Raises:
        DataError: `COMPUTE_DTYPE` names no precision.
    """
    import torch

    return getattr(torch, _name_reading_dtype(device))


def reading_precision() -> str:
    """Return the name of the precision in which models read texts on this machine, for the provenance.

    Torch is imported only where there may be an accelerator: a finished stage must start without it.

    Raises:
        DataError: `COMPUTE_DTYPE` names no precision.
    """
    return _name_reading_dtype(pick_device() if _may_have_accelerator() else "cpu")


def _name_reading_dtype(device: str) -> str:
    asked = _read_asked_dtype()
    if asked:
        return asked
    if device == "mps":
        import torch

        return "bfloat16" if torch.backends.mps.is_macos_or_newer(14, 0) else "float16"
    if supports_fast_bf16(device):
        return "bfloat16"
    return "float32" if device == "cpu" else "float16"


def trains_in_bf16() -> bool:
    """Tell whether training computes in bfloat16; the weights that it changes are float32 everywhere.

    It does where that is fast, unless `COMPUTE_DTYPE` asks for another precision.

    Raises:
        DataError: `COMPUTE_DTYPE` names no precision.
    """
    return _read_asked_dtype() in (None, "bfloat16") and supports_fast_bf16()


def training_precision() -> str:
    """Return the name of the precision in which training computes, for the provenance."""
    return "bfloat16" if trains_in_bf16() else "float32"


def _read_asked_dtype() -> str | None:
    """Return what the environment variable `COMPUTE_DTYPE` asks for: one precision on all machines."""
    asked = os.environ.get("COMPUTE_DTYPE") or None
    if asked and asked not in DTYPES:
        raise DataError(f'COMPUTE_DTYPE="{asked}": {suggest_name(asked, DTYPES)}')
    return asked


def _may_have_accelerator() -> bool:
    """Tell without torch whether there may be an accelerator: any Mac, any driver of NVIDIA or AMD."""
    return sys.platform != "linux" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))


@lru_cache(maxsize=1)
def _cpu_has_bf16() -> bool:
    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux: torch knows
        import torch

        abilities = torch.cpu.get_capabilities()
        return bool(abilities.get("amx_bf16") or abilities.get("avx512_bf16"))
    flags = next((line for line in cpu.splitlines() if line.startswith("flags")), "").split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


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
