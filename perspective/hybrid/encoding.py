"""Represent texts in three ways, in arrays without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from perspective.errors import DataError
from perspective.models.embedding import CPU_LIMIT, count_tokens
from perspective.models.hybrid import Representations
from perspective.runtime.memory import BatchLimit, halve_on_out_of_memory, limit_batches, make_batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as the three ways compare them.

    Attributes:
        dense: Unit vectors, float32 `(n_texts, dense_dim)`.
        lexical: Weights by token, float32 `(n_texts, n_vocabulary)`; only those above 0 are stored.
        vectors: Unit vectors of the tokens of all texts, float16 `(n_tokens, dim)`.
        offsets: int64 `(n_texts + 1,)`: text i has the rows `offsets[i]` to `offsets[i + 1]` of `vectors`.
    """

    dense: np.ndarray
    lexical: csr_array
    vectors: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.dense)

    def get_vectors(self, row: int) -> np.ndarray:
        """Return the token vectors of one text, float32 `(n_tokens, dim)`."""
        return np.asarray(self.vectors[self.offsets[row] : self.offsets[row + 1]], dtype=np.float32)


class _Sized(NamedTuple):
    text: str
    n_tokens: int


class _Text(NamedTuple):
    dense: np.ndarray
    ids: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray


def encode_texts(
    model: SentenceTransformer, texts: Sequence[str], prompt: str = "", batch_size: int | None = None
) -> EncodedTexts:
    """Encode texts by one pass of the body, longest first, which saves padding.

    Args:
        model: An embedder with heads.
        texts: The texts, cut at the embedder's maximum length.
        prompt: Prepended to each text.
        batch_size: Texts per batch; chosen by the device when None.

    Raises:
        DataError: There is no text, or a value is not finite.
        ModelError: A single text does not fit the memory.
    """
    if not len(texts):
        raise DataError("there is no text to encode")
    sized = [_Sized(*pair) for pair in zip(texts, count_tokens(model, texts), strict=True)]
    order = np.argsort([-one.n_tokens for one in sized], kind="stable")
    limit = BatchLimit(items=batch_size) if batch_size else limit_batches(model.transformers_model, CPU_LIMIT, False)
    encode = halve_on_out_of_memory(partial(_encode_batch, model, prompt), lambda one: one.n_tokens)
    found: list[_Text] = []
    with tqdm(total=len(texts), desc="encoding", unit="text") as progress:
        for batch in make_batches((sized[row] for row in order), lambda one: one.n_tokens, limit):
            found += encode(batch)
            progress.update(len(batch))
    in_order = [found[place] for place in np.argsort(order)]
    n_vocabulary = len(model.tokenizer)
    indptr = np.concatenate([[0], np.cumsum([len(text.ids) for text in in_order])])
    ids, weights = (np.concatenate([getattr(text, name) for text in in_order]) for name in ("ids", "weights"))
    return EncodedTexts(
        dense=np.stack([text.dense for text in in_order]),
        lexical=csr_array((weights, ids, indptr), shape=(len(texts), n_vocabulary)),
        vectors=np.concatenate([text.vectors for text in in_order]),
        offsets=np.concatenate([[0], np.cumsum([len(text.vectors) for text in in_order])]).astype(np.int64),
    )


def _encode_batch(model: SentenceTransformer, prompt: str, batch: Sequence[_Sized]) -> list[_Text]:
    import torch
    from torch.nn.functional import normalize

    features = model.preprocess([one.text for one in batch], prompt=prompt or None)
    features = {name: value.to(model.device) if hasattr(value, "to") else value for name, value in features.items()}
    with torch.inference_mode():
        found = Representations.from_features(model(features))
        dense = normalize(found.dense.float(), dim=-1).cpu().numpy()
    if not all(part.isfinite().all() for part in (found.dense, found.weights, found.vectors)):
        raise DataError(
            "the embedder gave NaN or infinity; COMPUTE_DTYPE=float32 in the environment avoids half precision"
        )
    ids, weights = found.ids.cpu().numpy(), found.weights.float().cpu().numpy()
    vectors, mask = found.vectors.half().cpu().numpy(), found.vector_mask.cpu().numpy()
    return [
        _Text(dense[row], *keep_largest(ids[row], weights[row]), vectors[row][mask[row]]) for row in range(len(batch))
    ]


def keep_largest(ids: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct tokens of a text with a weight, in ascending order, and the largest weight of each.

    Args:
        ids: Tokens `(length,)`.
        weights: Their weights, not negative.

    >>> keep_largest(np.array([7, 5, 7, 9]), np.array([0.2, 0.5, 0.3, 0.0]))
    (array([5, 7], dtype=int32), array([0.5, 0.3], dtype=float32))
    """
    kept = weights > 0
    terms, places = np.unique(ids[kept], return_inverse=True)
    largest = np.zeros(len(terms), dtype=np.float32)
    np.maximum.at(largest, places, weights[kept])
    return terms.astype(np.int32), largest
