"""LoRA adapters, added before training, saved and merged after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perspective.errors import DataError

if TYPE_CHECKING:
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from sentence_transformers import SentenceTransformer

ADAPTERS = "lora"  # folder of the adapters inside that of the merged model, as E5-mistral is published


def require_adapters(load_in: str, lora_rank: int) -> None:
    """Check that a base in 8 or 4 bits gets adapters.

    Raises:
        DataError: It does not.
    """
    if load_in != "auto" and not lora_rank:
        raise DataError(f"--load_in {load_in}: such weights cannot be trained; add --lora_rank 16")


def add_adapters(model: SentenceTransformer, rank: int) -> None:
    """Add LoRA adapters of a rank to all linear layers; alpha is twice the rank.

    Raises:
        DataError: The embedder has no transformer.
    """
    if model.transformers_model is None:
        raise DataError("--lora_rank: adapters need a transformer, and this embedder has none; leave it out")
    from peft import LoraConfig, TaskType

    model.add_adapter(
        LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.1,
            target_modules="all-linear",
        )
    )


def save_adapters(model: SentenceTransformer, folder: Path, base: str | None) -> None:
    """Write the adapters in peft's format; `load_embedder(folder)` merges them into their base again.

    Args:
        model: The model with adapters.
        folder: The folder to write.
        base: Name of the base model as the user gave it; when None, as transformers knows it.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    backbone = model.transformers_model
    (config,) = backbone.peft_config.values()
    config.base_model_name_or_path = base or backbone.name_or_path
    # By their kinds, as all layers have adapters: a base of other layers is then recognised.
    config.target_modules = {name.rpartition(".")[2] for name in config.target_modules}
    folder.mkdir(exist_ok=True)
    config.save_pretrained(str(folder))
    state = {f"base_model.model.{name}": weight for name, weight in get_peft_model_state_dict(backbone).items()}
    save_file({name: weight.contiguous() for name, weight in state.items()}, folder / "adapter_model.safetensors")


def load_adapters(model: SentenceTransformer, folder: Path) -> None:
    """Load the adapters of a checkpoint into a model that has such adapters, in the model's own precision.

    The trainer of sentence-transformers would load the base again, by its name: a GGUF file has none that it can
    load, and adapters of a base in half precision would come back in half precision.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    weights = load_peft_weights(str(folder), device="cpu")
    own = {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}
    set_peft_model_state_dict(model.transformers_model, own)


def merge_adapters(model: SentenceTransformer) -> None:
    """Merge the adapters into the weights, so that loading the result does not need peft.

    A base in 8 or 4 bits is dequantised: merged weights are rounded once, when the base was.
    """
    backbone = model.transformers_model
    for name, module in _find_adapters(model).items():
        if module.get_base_layer().weight.is_floating_point():
            module.merge()
        else:
            backbone.set_submodule(name, _merge_quantized(module))
    remove_adapters(model)
    if getattr(backbone, "hf_quantizer", None) is not None:
        backbone.hf_quantizer, backbone.is_quantized = None, False
        backbone.config.__dict__.pop("quantization_config", None)


def _merge_quantized(module: BaseTunerLayer) -> torch.nn.Linear:
    import torch
    from peft.utils.integrations import dequantize_module_weight

    base = module.get_base_layer()
    (adapter,) = module.active_adapters
    # On the CPU: a card that trained the weights in 4 bits need not have room for all of them in float32.
    weight = (dequantize_module_weight(base).float() + module.get_delta_weight(adapter).float()).cpu()
    merged = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=base.bias is not None, device="meta")
    merged.weight = torch.nn.Parameter(weight)
    merged.bias = None if base.bias is None else torch.nn.Parameter(base.bias.detach().cpu())
    return merged


def remove_adapters(model: SentenceTransformer) -> None:
    """Remove the adapters; the weights stay as they are."""
    # peft's merge_and_unload and unload are methods of its wrapper around a model. add_adapter creates no wrapper,
    # and creating one now would add untrained adapters.
    backbone = model.transformers_model
    for name, module in _find_adapters(model).items():
        backbone.set_submodule(name, module.get_base_layer())
    backbone._hf_peft_config_loaded = False
    del backbone.peft_config


def _find_adapters(model: SentenceTransformer) -> dict[str, BaseTunerLayer]:
    """Return the linear layers that have adapters, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = model.transformers_model.named_modules()
    return {name: module for name, module in modules if isinstance(module, BaseTunerLayer)}
