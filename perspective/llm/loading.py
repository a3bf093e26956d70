"""Load LLMs with transformers: hub ids, folders and GGUF files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from perspective.models.registry import LLMS, explain_loading, find_source
from perspective.models.weights import locate_weights, pick_quantization, read_gguf_once, refuse_gaps
from perspective.runtime.devices import load_with_attention, pick_device, pick_reading_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LLM:
    """A loaded LLM and its tokenizer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        """The device for inputs."""
        return self.model.device

    @property
    def body(self) -> Any:  # noqa: ANN401
        """The model without its head; some classes, such as Llama 4's, name another attribute as theirs."""
        body = self.model.base_model
        return getattr(self.model, "model", body) if body is self.model else body

    @property
    def max_tokens(self) -> int:
        """The context length in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2048)


def load_llm(
    name: str,
    *,
    auto_class: str = "AutoModelForCausalLM",
    revision: str | None = None,
    trust_remote_code: bool = False,
    load_in: str = "auto",
    **model_options: Any,  # noqa: ANN401  forwarded to from_pretrained
) -> LLM:
    """Load a transformers model for inference.

    Args:
        name: A short name of `LLMS`, a hub id, a folder, or a GGUF file.
        auto_class: Name of the transformers auto class.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Run code from the model's repository.
        load_in: "auto" (the precision of `pick_reading_dtype`), "8bit" or "4bit".
        **model_options: Forwarded to `from_pretrained`.

    Raises:
        ModelError: Unknown name, unreachable hub, files that are not a model, or a quantisation
            that this machine does not support.
    """
    source = find_source(name, LLMS)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    weights = locate_weights(source)
    options = {"revision": revision, "trust_remote_code": trust_remote_code, **weights.options}
    model_options = {**weights.model_options, **model_options}
    device = pick_device()
    dtype = pick_reading_dtype(device)
    if load_in != "auto":
        model_options["quantization_config"] = pick_quantization(load_in, device)
    with explain_loading(name), refuse_gaps(name, "is it a model of another kind?"), read_gguf_once():
        tokenizer = transformers.AutoTokenizer.from_pretrained(weights.folder, **options)
        auto = getattr(transformers, auto_class)
        load = partial(auto.from_pretrained, weights.folder, dtype=dtype, **options)
        model = load_with_attention(lambda **attention: load(**{**attention, **model_options}), device, dtype)
        if load_in == "auto":
            model = model.to(device)
    return LLM(name, model.eval(), tokenizer)
