"""Files of M3's heads, beside the files of the model that they were trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perspective.artifacts import atomic_path
from perspective.errors import ModelError
from perspective.models.embedders import load_embedder
from perspective.models.hybrid import HybridHeads, add_heads
from perspective.models.pickles import HEADS, fetch_converted
from perspective.models.registry import EMBEDDERS, find_source

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer


def save_heads(heads: HybridHeads, path: Path) -> None:
    """Write the weights of the heads."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in heads.state_dict().items()}, temporary)


def load_heads(model: SentenceTransformer, path: Path) -> HybridHeads:
    """Append the heads of a file to the embedder that they were trained with.

    Raises:
        ModelError: They are not whole, or of another body.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    heads = add_heads(model)
    try:
        weights = load_file(path)
        heads.multi = type(heads.multi)(heads.hidden, len(weights["multi.bias"])).to(model.device)
        heads.dim = len(weights["multi.bias"])
        heads.load_state_dict(weights)
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path}: no heads of this model ({reason}); train them again, or fetch them again") from None
    return heads


def load_hybrid(
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    reading: bool = False,
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Load an embedder with its heads as the last module.

    Args:
        name: "bge-m3", a hub id, or a folder that `train_hybrid` wrote or that has the layout of bge-m3.
        revision: Branch, tag or commit on the hub.
        device: As in `load_embedder`.
        reading: As in `load_embedder`.
        trust_remote_code: As in `load_embedder`.

    Raises:
        ModelError: It has no heads, cannot be reached, or its files are not what they should be.
    """
    folder = find_hybrid(name, revision)
    model = load_embedder(str(folder), device=device, reading=reading, trust_remote_code=trust_remote_code)
    load_heads(model, folder / HEADS)
    model[0].can_flatten_inputs = False  # with flash attention, texts would come in one row without a mask
    return model.eval()


def to_multi_vector(model: SentenceTransformer) -> MultiVectorEncoder:
    """Return the body with the token vectors alone, as sentence-transformers' own class for late interaction.

    Its scores are those of `score_multi`. Saved, it is a folder that `MultiVectorEncoder(path)` loads without this
    project. The lexical weights have no such class: those of SparseEncoder are over the vocabulary, after a logarithm.

    Args:
        model: An embedder with heads, from `load_hybrid`; shares its weights with the result.
    """
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize
    from torch import nn

    heads = model[-1]
    project = Dense(heads.hidden, heads.dim, activation_function=nn.Identity(), module_input_name="token_embeddings")
    project.linear = heads.multi
    cls_token = [model.tokenizer.cls_token] if heads.cls_id >= 0 else []
    mask = MultiVectorMask(cls_token, skiplist_tasks=["query", "document"])
    modules = [model[0], project, mask, Normalize(module_input_name="token_embeddings")]
    prompts = {side: model.prompts.get(side) or "" for side in ("query", "document")}
    return MultiVectorEncoder(
        modules=modules, prompts=prompts, similarity_fn_name="meanmaxsim", device=str(model.device)
    )


def find_hybrid(name: str, revision: str | None = None) -> Path:
    """Return a folder with body and heads in safetensors; published pickles are converted once.

    Raises:
        ModelError: There are no heads.
    """
    folder = fetch_converted(find_source(name, EMBEDDERS), revision)
    if not (folder / HEADS).is_file():
        raise ModelError(
            f"{name}: has no heads ({HEADS}); train some with train_hybrid.sh, take bge-m3, or search with "
            "--retriever dense"
        )
    return folder
