"""Represent texts in three ways, in arrays without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from tqdm import tqdm

from perspective.errors import DataError, ModelError
from perspective.models.embedding import CPU_LIMIT, count_tokens
from perspective.models.hybrid import Representations
from perspective.runtime.memory import BatchLimit, halve_on_out_of_memory, limit_batches, make_batches

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

CLS_EVERY = 256


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

    @cached_property
    def inverted(self) -> csr_array:
        """The lexical weights by token, `(n_vocabulary, n_texts)`: a query reads the texts of its own tokens only."""
        return self.lexical.T.tocsr()

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
    model: SentenceTransformer,
    texts: Sequence[str],
    prompt: str = "",
    batch_size: int | None = None,
    repeat_cls: bool = False,
) -> EncodedTexts:
    """Encode texts by one pass of the body, longest first, which saves padding.

    Args:
        model: An embedder with heads.
        texts: The texts, cut at the embedder's maximum length.
        prompt: Prepended to each text.
        batch_size: Texts per batch; chosen by the device when None.
        repeat_cls: Put a [CLS] before every `CLS_EVERY` tokens; the dense vector is the mean of their states.

    Raises:
        DataError: There is no text, or a value is not finite.
        ModelError: A single text does not fit the memory.
    """
    if not len(texts):
        raise DataError("there is no text to encode")
    if repeat_cls:
        _require_cls(model)
    sized = [_Sized(*pair) for pair in zip(texts, count_tokens(model, texts), strict=True)]
    order = np.argsort([-one.n_tokens for one in sized], kind="stable")
    limit = BatchLimit(items=batch_size) if batch_size else limit_batches(model.transformers_model, CPU_LIMIT, False)
    encode = halve_on_out_of_memory(partial(_encode_batch, model, prompt, repeat_cls), lambda one: one.n_tokens)
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


def _encode_batch(model: SentenceTransformer, prompt: str, repeat_cls: bool, batch: Sequence[_Sized]) -> list[_Text]:
    import torch
    from torch.nn.functional import normalize

    features = model.preprocess([one.text for one in batch], prompt=prompt or None)
    cls_id = model.tokenizer.cls_token_id
    if repeat_cls:
        ids, mask = features["input_ids"], features.pop("attention_mask")
        features = insert_cls(ids, mask, cls_id, model.tokenizer.pad_token_id, model.max_seq_length)
    features = {name: value.to(model.device) if hasattr(value, "to") else value for name, value in features.items()}
    with torch.inference_mode():
        features = model(features)
        found = Representations.from_features(features)
        if repeat_cls:
            is_cls = (found.ids == cls_id) & features["attention_mask"].bool()
            found = replace(found, dense=(features["token_embeddings"] * is_cls.unsqueeze(-1)).sum(dim=1))
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


def insert_cls(
    ids: torch.Tensor, mask: torch.Tensor, cls_id: int, pad_id: int, limit: int, every: int = CLS_EVERY
) -> dict[str, torch.Tensor]:
    """Put a further [CLS] before every `every` tokens of texts that begin with one.

    A long text has then a summary of each of its parts. Source: MCLS, Chen et al. (2024), appendix.

    Args:
        ids: Tokens `(n, length)`, padded on the right: [CLS], the text, [SEP].
        mask: 1 for tokens, 0 for padding.
        cls_id: Id of [CLS].
        pad_id: Id of padding.
        limit: Largest length; the text, not its last token, is cut to it.
        every: Tokens of the text for each [CLS].

    Returns:
        "input_ids" and "attention_mask" of the longer texts.

    >>> import torch
    >>> insert_cls(torch.tensor([[0, 5, 6, 7, 8, 9, 2]]), torch.ones(1, 7, dtype=int), 0, 1, 8, every=3)["input_ids"]
    tensor([[0, 5, 6, 7, 0, 8, 9, 2]])
    >>> insert_cls(torch.tensor([[0, 5, 6, 7, 8, 9, 2]]), torch.ones(1, 7, dtype=int), 0, 1, 7, every=3)["input_ids"]
    tensor([[0, 5, 6, 7, 0, 8, 2]])
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = []
    for row, length in zip(ids, mask.sum(dim=1).tolist(), strict=True):
        inner, last = row[1 : length - 1], row[length - 1 : length]
        parts = [part for piece in inner.split(every) for part in (row.new_tensor([cls_id]), piece)]
        rows.append(torch.cat([torch.cat(parts)[: limit - 1], last]))
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    }


def _require_cls(model: SentenceTransformer) -> None:
    """Refuse a body whose vector is not the state of [CLS]."""
    if getattr(model[1], "pooling_mode", None) != "cls":
        raise ModelError("--repeat_cls: needs an embedder that is pooled at its [CLS] token, such as bge-m3")
