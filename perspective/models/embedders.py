"""Load embedders with sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from unittest import mock

from perspective.artifacts import read_object
from perspective.errors import ModelError
from perspective.models.decoders import (
    append_eos,
    build_decoder,
    find_adapter,
    is_bare_decoder,
    make_bidirectional,
    merge_adapter,
    read_adapter_base,
    set_pooling,
    set_task,
)
from perspective.models.folders import check_folder
from perspective.models.pickles import fetch_converted
from perspective.models.prompts import set_prompt
from perspective.models.registry import EMBEDDERS, explain_loading, find_source
from perspective.models.weights import pick_quantization, read_gguf_once, refuse_gaps
from perspective.options import PoolingName
from perspective.runtime.devices import load_with_attention, pick_device, pick_reading_dtype

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

POOLER = "pooler."  # BERT's, which no embedder uses, and many folders leave out


def load_embedder(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    reading: bool = False,
    pooling: PoolingName | None = None,
    load_in: str = "auto",
) -> SentenceTransformer:
    """Load an embedder with its default prompt and normalisation set.

    Args:
        name: A short name of `EMBEDDERS`, a hub id of a sentence-transformers model or a causal LM, a folder
            (a fine-tuned checkpoint contains its own prompt and modules and is not changed; an adapter of
            peft is merged into its base), or a GGUF file.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Run code from the model's repository.
        device: Device of the model; the best available one when None.
        reading: For inference only, not training: the body may be loaded in half precision, see
            `pick_reading_dtype`. Vectors are pooled and returned in float32.
        pooling: See `set_pooling`; the model's own when None, the last token of a causal LM.
        load_in: "auto", "8bit" or "4bit": weights to train an adapter on.

    Raises:
        ModelError: Unknown name, unreachable hub, or files that are not a model or were changed since training.
    """
    spec = EMBEDDERS.get(name)
    source = find_source(name, EMBEDDERS)
    if spec is not None and spec.pickled:
        source = fetch_converted(source, revision)
    if adapter := find_adapter(source):
        beside = adapter.parent / "config.json"
        if beside.exists() and read_object(beside).get("is_causal") is False:  # the adapter alone would be causal again
            raise ModelError(f"{name}: only the adapter of the embedder in {adapter.parent}; give that folder")
        if load_in != "auto":
            raise ModelError(f"--load_in {load_in}: {name} is an adapter, which is merged into its base; leave it out")
        own: dict[str, Any] = {"device": device, "reading": reading, "pooling": pooling}
        base = load_embedder(read_adapter_base(adapter), trust_remote_code=trust_remote_code, **own)
        merge_adapter(base, adapter)
        return base
    if isinstance(source, Path) and source.is_dir():
        check_folder(source)
    import torch
    from sentence_transformers import SentenceTransformer

    kind = torch.device(device or pick_device()).type
    # Always set: weights stored in half precision, such as gte's, would otherwise be trained in it.
    dtype = pick_reading_dtype(kind) if reading else torch.float32
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    options: dict[str, Any] = {"dtype": dtype}
    if load_in != "auto":
        options["quantization_config"] = pick_quantization(load_in, kind)

    def load(**attention: str) -> SentenceTransformer:
        if is_bare_decoder(source, **where):
            return build_decoder(source, name, pooling or "last", device, {**options, **attention, **where})
        model_kwargs = {"use_safetensors": True, **options, **attention}
        return SentenceTransformer(str(source), device=device, model_kwargs=model_kwargs, **where)

    with explain_loading(name), _refuse_pickles(name), refuse_gaps(name, unused=POOLER), read_gguf_once():
        model = load_with_attention(load, kind, dtype)
        if pooling:
            set_pooling(model, pooling)
    if not getattr(model.config, "is_causal", True):
        make_bidirectional(model)
    if spec is not None and spec.task:
        append_eos(model.tokenizer, name)
        set_task(model, spec.task)
    elif _needs_eos(model, source, revision):
        append_eos(model.tokenizer, name)
    if spec is not None and not spec.normalize:
        model = _drop_normalization(model)
    if spec is not None and spec.prompt:
        set_prompt(model, spec.prompt)
    if dtype != torch.float32:
        _pool_in_float32(model)
    return model


def _needs_eos(model: SentenceTransformer, source: str | Path, revision: str | None) -> bool:
    """Return whether texts are represented by an end-of-text token that transformers leaves out.

    transformers 5 ignores `add_eos_token` in a tokenizer's config where there is a tokenizer.json, as in
    e5-mistral-7b-instruct and its relatives.
    """
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.util import load_file_path

    if not any(isinstance(module, Pooling) and module.pooling_mode == "lasttoken" for module in model):
        return False
    if model.tokenizer("a")["input_ids"][-1] == model.tokenizer.eos_token_id:
        return False
    path = load_file_path(str(source), "tokenizer_config.json", revision=revision)
    return path is not None and bool(read_object(Path(path)).get("add_eos_token"))


@contextmanager
def _refuse_pickles(name: str) -> Iterator[None]:
    """Block `torch.load`, which sentence-transformers uses for further modules without safetensors."""
    import torch

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ModelError(f"{name}: has a module without safetensors weights, and pickled weights are not loaded")

    with mock.patch.object(torch, "load", refuse):
        yield


def _drop_normalization(model: SentenceTransformer) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize

    kept = [module for module in model if not isinstance(module, Normalize)]
    return SentenceTransformer(modules=kept, device=str(model.device))


def _pool_in_float32(model: SentenceTransformer) -> None:
    """Run the modules after the body in float32, so that pooled vectors are not rounded."""
    body, *rest = model

    def widen(module: Any, args: Any, features: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
        states = features.get("token_embeddings")
        return features if states is None else {**features, "token_embeddings": states.float()}

    body.register_forward_hook(widen)
    for module in rest:
        module.float()
