"""Convert Starling-RM's published checkpoint from pickle to safetensors. Needed once.

Reads:  the .bin or .pt file of berkeley-nest/Starling-RM-7B-alpha, with PyTorch's restricted
        unpickler, which loads tensors and runs no code
Writes: FOLDER/model.safetensors, for --llm FOLDER --judge reward

python -m perspective.judging.convert_reward --checkpoint pytorch_model.bin --output_path starling-rm
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import atomic_path
from perspective.cli import entry_point, parse_settings
from perspective.errors import DataError
from perspective.models.pickles import read_tensors
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
    from safetensors.torch import save_file

    weights = read_tensors(Path(settings.checkpoint))
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
