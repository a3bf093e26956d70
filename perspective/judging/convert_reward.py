"""Convert Starling-RM's published checkpoint from pickle to safetensors. Needed once.

Reads:  the .bin or .pt file of berkeley-nest/Starling-RM-7B-alpha, with PyTorch's restricted
        unpickler, which loads tensors and runs no code
Writes: FOLDER/model.safetensors, for --llm FOLDER --judge reward

python -m perspective.judging.convert_reward --checkpoint pytorch_model.bin --output_path starling-rm
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import atomic_path
from perspective.cli import entry_point, parse_settings
from perspective.errors import DataError
from perspective.options import option


@dataclass(frozen=True)
class ConvertRewardSettings:
    """The checkpoint and the output folder."""

    checkpoint: str = option("published .bin or .pt file", group="model")
    output_path: str = option("folder for model.safetensors", group="output")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert one checkpoint."""
    settings = parse_settings(ConvertRewardSettings, argv, __doc__)
    import torch
    from safetensors.torch import save_file

    try:
        weights = torch.load(settings.checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"{settings.checkpoint}: not a checkpoint of tensors only ({error})") from None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise DataError(f"{settings.checkpoint}: not a checkpoint of tensors only")
    if "v_head.weight" not in weights:
        raise DataError(f"{settings.checkpoint}: no reward head (v_head.weight); is this Starling-RM?")
    if not any(key.startswith("transformer.") for key in weights):
        raise DataError(f"{settings.checkpoint}: no body (transformer.*); is this Starling-RM?")
    # The body is stored under two names; one copy is enough.
    kept = {key: value.contiguous() for key, value in weights.items() if key.startswith(("transformer.", "v_head."))}
    with atomic_path(Path(settings.output_path) / "model.safetensors") as temporary:
        save_file(kept, temporary)


if __name__ == "__main__":
    main()
