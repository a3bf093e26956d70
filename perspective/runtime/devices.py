"""Device, precision and attention implementation of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perspective.errors import DataError, suggest_name

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

DTYPES = ("float32", "bfloat16", "float16")


def pick_device() -> str:
    """Return the best available device: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def supports_fast_bf16(device: str | None = None) -> bool:
    """Return whether bfloat16 is the faster precision of the device; emulated bfloat16 is many times slower.

    Args:
        device: Device type, cuda or cpu; when None, CUDA if available.
    """
    if device == "cpu" or (device is None and not _may_have_accelerator()):
        return _cpu_has_bf16()
    import torch

    if device == "cuda" or torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _cpu_has_bf16()


def pick_reading_dtype(device: str) -> torch.dtype:
    """Return the fastest precision for inference, as a torch dtype.

    That is bfloat16 if the device supports it, else float16 on an accelerator and float32 on a CPU.
    `COMPUTE_DTYPE` overrides it.

    Args:
        device: Device type: cuda, mps or cpu.

    Raises:
        DataError: `COMPUTE_DTYPE` is not a known precision.
    """
    import torch

    return getattr(torch, _name_reading_dtype(device))


def reading_precision() -> str:
    """Return the name of the precision for inference on this machine, for the provenance.

    Torch is imported only if there may be an accelerator: a finished stage must start without it.

    Raises:
        DataError: `COMPUTE_DTYPE` is not a known precision.
    """
    return _name_reading_dtype(pick_device() if _may_have_accelerator() else "cpu")


def _name_reading_dtype(device: str) -> str:
    requested = _read_requested_dtype()
    if requested:
        return requested
    if device == "mps":
        import torch

        return "bfloat16" if torch.backends.mps.is_macos_or_newer(14, 0) else "float16"
    if supports_fast_bf16(device):
        return "bfloat16"
    return "float32" if device == "cpu" else "float16"


def trains_in_bf16() -> bool:
    """Return whether training computes in bfloat16; trained weights are always float32.

    True on devices that support it, unless `COMPUTE_DTYPE` sets another precision.

    Raises:
        DataError: `COMPUTE_DTYPE` is not a known precision.
    """
    return _read_requested_dtype() in (None, "bfloat16") and supports_fast_bf16()


def training_precision() -> str:
    """Return the name of the precision of training, for the provenance."""
    return "bfloat16" if trains_in_bf16() else "float32"


def _read_requested_dtype() -> str | None:
    """Return the environment variable `COMPUTE_DTYPE`, which sets the same precision on all machines."""
    requested = os.environ.get("COMPUTE_DTYPE") or None
    if requested and requested not in DTYPES:
        raise DataError(f'COMPUTE_DTYPE="{requested}": {suggest_name(requested, DTYPES)}')
    return requested


def _may_have_accelerator() -> bool:
    """Return, without torch, whether there may be an accelerator: any Mac, an NVIDIA or AMD driver."""
    return sys.platform != "linux" or any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))


@lru_cache(maxsize=1)
def _cpu_has_bf16() -> bool:
    try:
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: ask torch
        import torch

        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    first = (line.partition(":") for line in cpu.partition("\n\n")[0].splitlines())
    found = {name.strip(): value.split() for name, _, value in first}
    flags, vendor = found.get("flags", []), found.get("vendor_id", [])
    # AVX512-BF16 alone is fast on AMD only: an Intel Xeon whose virtual machine hides AMX multiplies matrices of
    # MiniLM's shapes at 83 GFLOP/s a core in bfloat16 and at 157 in float32.
    return "amx_bf16" in flags or ("avx512_bf16" in flags and "AuthenticAMD" in vendor)


def pick_attention(device: str, dtype: torch.dtype) -> dict[str, str]:
    """Return the attention options of `from_pretrained`.

    FlashAttention 2 on CUDA in half precision if flash_attn is installed; otherwise none, so that
    transformers uses PyTorch's fused attention (SDPA) for every model that supports it.
    """
    import torch
    from transformers.utils import is_flash_attn_2_available

    if device == "cuda" and dtype != torch.float32 and is_flash_attn_2_available():
        return {"attn_implementation": "flash_attention_2"}
    return {}


def describe_precision(model: Any) -> dict[str, str]:  # noqa: ANN401  of transformers or sentence-transformers
    """Return the device and precision of a loaded model, for the provenance."""
    return {"device": model.device.type, "dtype": str(model.dtype).removeprefix("torch.")}


def load_with_attention(load: Callable[..., T], device: str, dtype: torch.dtype) -> T:
    """Call a loader with the options of `pick_attention`; without them, if the model does not support these.

    Args:
        load: Takes options of `from_pretrained`.
        device: Device type.
        dtype: Precision of the model.
    """
    chosen = pick_attention(device, dtype)
    try:
        return load(**chosen)
    except ValueError as error:
        if not chosen or "flash attention" not in str(error).lower():
            raise
        return load()
