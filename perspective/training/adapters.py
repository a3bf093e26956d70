"""LoRA adapters, added before training and merged after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from sentence_transformers import SentenceTransformer


def add_adapters(model: SentenceTransformer, rank: int) -> None:
    """Add LoRA adapters of a rank to all linear layers; alpha is twice the rank."""
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


def merge_adapters(model: SentenceTransformer) -> None:
    """Merge the adapters into the weights, so that loading the result does not need peft."""
    for module in _find_adapters(model).values():
        module.merge()
    remove_adapters(model)


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
