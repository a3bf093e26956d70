"""Load rerankers, and score pairs of a query and a document with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from perspective.errors import ModelError
from perspective.models.decoders import is_bare_decoder
from perspective.models.embedding import find_max_tokens
from perspective.models.folders import check_folder
from perspective.models.registry import EMBEDDERS, LLMS, explain_loading, find_source
from perspective.models.weights import refuse_gaps
from perspective.runtime.devices import pick_device, pick_reading_dtype
from perspective.runtime.memory import BatchLimit, halve_on_out_of_memory, limit_batches, make_batches

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

CPU_LIMIT = BatchLimit(items=32, padding=0.1)  # a CPU pays for every token of padding

TextPair = tuple[str, str]  # query, document


class Reranker(Protocol):
    """The interface of a reranker, which `CrossEncoder` and `YesNoReranker` have."""

    def predict(self, inputs: list[TextPair], **options: Any) -> np.ndarray:  # noqa: ANN401
        """Return one score for each (query, document)."""


def load_reranker(name: str, device: str | None = None, trust_remote_code: bool = False) -> Reranker:
    """Load a CrossEncoder with one output, or a causal LM that is asked whether the document answers.

    Args:
        name: A folder, such as `train_reranker` writes, or a hub id of a CrossEncoder; or a short name,
            folder, hub id or GGUF file of a causal LM, which needs no training.
        device: Device of a CrossEncoder; the best available one when None.
        trust_remote_code: Run code from the model's repository.

    Raises:
        ModelError: It cannot be reached, is an embedder or another kind of model, is not in
            safetensors, or has several outputs.
    """
    if name in LLMS and LLMS[name].judge != "answer":
        raise ModelError(f"{name}: a reward model of conversations; a reranker is a CrossEncoder or a causal LM")
    source = find_source(name, {**EMBEDDERS, **LLMS})
    if isinstance(source, Path) and source.is_dir():
        check_folder(source, is_pooled=False)
    with explain_loading(name):
        is_decoder = is_bare_decoder(source, trust_remote_code=trust_remote_code)
    if is_decoder:
        from perspective.llm.loading import load_llm
        from perspective.reranking.yes_no import YesNoReranker

        return YesNoReranker(load_llm(name, trust_remote_code=trust_remote_code))
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore

    dtype = pick_reading_dtype(torch.device(device or pick_device()).type)
    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    with explain_loading(name), refuse_gaps(name):
        model = CrossEncoder(str(source), model_kwargs={"use_safetensors": True, "dtype": dtype}, **options)
        _check_kind(model, name)
    if dtype != torch.float32:
        # bfloat16 rounds a score of 5 to a multiple of 0.03, which makes ties.
        is_causal = any(isinstance(module, LogitScore) for module in model)
        linear = {path: module for path, module in model.named_modules() if type(module) is torch.nn.Linear}
        heads = [path for path in linear if (path.endswith("lm_head") if is_causal else linear[path].out_features == 1)]
        model.set_keep_in_fp32_modules(heads)
    return model


def _check_kind(model: CrossEncoder, name: str) -> None:
    """Refuse a model whose head was not trained: it would be initialised at random, with a log line only."""
    kinds = getattr(model.config, "architectures", None) or [""]
    if not str(kinds[0]).endswith(("ForSequenceClassification", "ForCausalLM")):
        raise ModelError(
            f"{name}: {kinds[0] or 'a model'} without a head for scores, such as an embedder; train a reranker from it "
            "with perspective/6_retrieval/scripts/train_reranker.sh"
        )
    if model.num_labels != 1:
        raise ModelError(f"{name}: has {model.num_labels} outputs; a reranker has one")


def score_texts(reranker: Reranker, pairs: Sequence[TextPair], batch_size: int | None = None) -> np.ndarray:
    """Return the reranker's logits of pairs, float32 `(n_pairs,)`: comparable within a query.

    A CrossEncoder reads them longest first, in batches that hold hardly any padding.

    Args:
        reranker: As `load_reranker` returns it.
        pairs: Queries with their documents.
        batch_size: Pairs at a time; chosen by the device when None.

    Raises:
        ModelError: The reranker gives something else than one finite number a pair.
    """
    if not pairs:
        return np.zeros(0, dtype=np.float32)
    tokenizer = getattr(reranker, "tokenizer", None)
    if tokenizer is None:  # a causal LM, which makes its own batches
        return _predict(reranker, list(pairs), batch_size, show_progress_bar=True)
    longest = find_max_tokens(reranker)
    queries, documents = (list(texts) for texts in zip(*pairs, strict=True))
    sizes = [len(ids) for ids in tokenizer(queries, documents, truncation=True, max_length=longest)["input_ids"]]
    order = sorted(range(len(pairs)), key=lambda row: -sizes[row])
    scores = np.empty(len(pairs), dtype=np.float32)
    body = getattr(reranker, "transformers_model", None)
    limit = BatchLimit(items=batch_size) if batch_size else limit_batches(body, CPU_LIMIT, keeps_cache=False)

    def predict_rows(rows: list[int]) -> np.ndarray:
        return _predict(reranker, [pairs[row] for row in rows], len(rows))

    predict = halve_on_out_of_memory(predict_rows, sizes.__getitem__)
    with tqdm(total=len(pairs), desc="reranking", unit="pair", leave=False) as progress:
        for rows in make_batches(order, sizes.__getitem__, limit):
            scores[rows] = predict(rows)
            progress.update(len(rows))
    return scores


def _predict(
    reranker: Reranker, pairs: list[TextPair], batch_size: int | None, show_progress_bar: bool = False
) -> np.ndarray:
    import torch

    # A sigmoid rounds clear scores to 1 and makes ties of them; a teacher's softmax needs logits.
    options = {"batch_size": batch_size, "show_progress_bar": show_progress_bar, "activation_fn": torch.nn.Identity()}
    scores = np.asarray(reranker.predict(pairs, **options), dtype=np.float32)
    if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
        raise ModelError(f"the reranker must return one finite score a pair, got shape {scores.shape}")
    return scores
