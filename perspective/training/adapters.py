"""LoRA adapters, added before training and merged after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    """Fold the adapters into the weights, so that the result needs no peft to load."""
    # peft's own merge_and_unload is a method of its wrapper around a model. add_adapter makes none, and one made now
    # would add the adapters a second time, untrained.
    from peft.tuners.tuners_utils import BaseTunerLayer

    backbone = model.transformers_model
    for name, module in list(backbone.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            backbone.set_submodule(name, module.get_base_layer())
    backbone._hf_peft_config_loaded = False
    del backbone.peft_config
