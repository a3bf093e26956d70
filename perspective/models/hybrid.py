"""M3: one body, three ways to compare a query with a document.

Source: Chen et al., "M3-Embedding" (2024), section 3.2. The dense vector is the body's own; two linear heads
read its token states: a weight for each token of the text, and a vector for each token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from sentence_transformers.util.similarity import maxsim
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from perspective.errors import ModelError
from perspective.models.trained_module import TrainedModule

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Way = Literal["dense", "sparse", "multi"]
WAYS: tuple[Way, ...] = get_args(Way)
# Of every token, where training starts. Drawn at random, the weights of half of the tokens start at 0, where the ReLU
# has no gradient; equal weights start from the number of shared tokens.
START_WEIGHT = 0.2
WEIGHTS: dict[Way, float] = {"dense": 1.0, "sparse": 0.3, "multi": 1.0}  # of the summed score, as in the paper


class HybridHeads(TrainedModule):
    """The two heads, as the last module of an embedder.

    Adds to the features of a batch, for every token::

        token_weights  (n, length)       ReLU(lexical(state)); 0 for padding and special tokens
        token_vectors  (n, length, dim)  multi(state) / |multi(state)|; 0 where there is none
        vector_mask    (n, length)       whether a token has a vector: all but padding and [CLS]

    Args:
        hidden: Size of the body's states.
        dim: Size of a token's vector.
        special_ids: Ids of the tokenizer's special tokens, which have no lexical weight.
        cls_id: Id of the token that has no vector, as published; -1 for none.
    """

    config_keys = ["hidden", "dim", "special_ids", "cls_id"]

    def __init__(self, hidden: int, dim: int, special_ids: Sequence[int] = (), cls_id: int = -1) -> None:
        super().__init__()
        self.hidden, self.dim, self.special_ids, self.cls_id = hidden, dim, list(special_ids), cls_id
        self.lexical = nn.Linear(hidden, 1)
        self.multi = nn.Linear(hidden, dim)
        nn.init.zeros_(self.lexical.weight)
        nn.init.constant_(self.lexical.bias, START_WEIGHT)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: ANN401
        """Add weights and vectors of the tokens to the features."""
        states, ids, is_token = features["token_embeddings"], features["input_ids"], features["attention_mask"].bool()
        is_term = is_token & ~torch.isin(ids, torch.tensor(self.special_ids, dtype=ids.dtype, device=ids.device))
        has_vector = is_token & (ids != self.cls_id)
        features["token_weights"] = torch.relu(self.lexical(states).squeeze(-1)) * is_term
        features["token_vectors"] = normalize(self.multi(states), dim=-1) * has_vector.unsqueeze(-1)
        features["vector_mask"] = has_vector
        return features


@dataclass(frozen=True)
class Representations:
    """What the three ways compare, of a batch of texts padded to one length.

    Attributes:
        dense: `(n, dense_dim)`, as the body gives them.
        ids: Tokens `(n, length)`.
        weights: Lexical weights `(n, length)`; 0 for padding and special tokens.
        vectors: Unit vectors `(n, length, dim)`.
        vector_mask: Which tokens have a vector, `(n, length)`.
    """

    dense: Tensor
    ids: Tensor
    weights: Tensor
    vectors: Tensor
    vector_mask: Tensor

    @classmethod
    def from_features(cls, features: Mapping[str, Tensor]) -> Representations:
        """Take them from the features that an embedder with heads returns."""
        names = ("sentence_embedding", "input_ids", "token_weights", "token_vectors", "vector_mask")
        return cls(*(features[name] for name in names))

    def take(self, rows: Tensor | slice) -> Representations:
        """Select texts, cut to the longest of them."""
        used = (self.vector_mask | (self.weights > 0))[rows].any(dim=0)
        parts = (getattr(self, name)[rows][:, used] for name in ("ids", "weights", "vectors", "vector_mask"))
        return Representations(self.dense[rows], *parts)


def stack(parts: Sequence[Representations]) -> Representations:
    """Put batches of different lengths together, padded to the longest."""
    longest = max(part.ids.shape[1] for part in parts)

    def widen(tensor: Tensor) -> Tensor:
        return pad(tensor, [0, 0] * (tensor.dim() - 2) + [0, longest - tensor.shape[1]])

    names = ("ids", "weights", "vectors", "vector_mask")
    padded = (torch.cat([widen(getattr(part, name)) for part in parts]) for name in names)
    return Representations(torch.cat([part.dense for part in parts]), *padded)


def score_dense(queries: Representations, documents: Representations) -> Tensor:
    """Return the cosines of the dense vectors, `(n_queries, n_documents)`."""
    return normalize(queries.dense.float(), dim=-1) @ normalize(documents.dense.float(), dim=-1).T


def score_sparse(queries: Representations, documents: Representations) -> Tensor:
    """Return the lexical scores `(n_queries, n_documents)`.

    The sum, over the tokens that both texts contain, of the product of their weights; of a token that
    a text repeats, the largest weight counts. The columns in between are the distinct tokens of the
    batch, not of the vocabulary.
    """
    terms, places = torch.unique(torch.cat([queries.ids.flatten(), documents.ids.flatten()]), return_inverse=True)
    by_term = []
    for part, at in zip((queries, documents), places.split([queries.ids.numel(), documents.ids.numel()]), strict=True):
        weights = part.weights.float()
        empty = weights.new_zeros(len(weights), len(terms))
        by_term.append(empty.scatter_reduce(1, at.view_as(part.ids), weights, "amax"))
    return by_term[0] @ by_term[1].T


def score_multi(queries: Representations, documents: Representations) -> Tensor:
    """Return the multi-vector scores `(n_queries, n_documents)`: the mean over query tokens of the best cosine."""
    return maxsim(
        queries.vectors.float(),
        documents.vectors.float(),
        a_mask=queries.vector_mask,
        b_mask=documents.vector_mask,
        length_normalize=True,
    )


def score_ways(queries: Representations, documents: Representations) -> dict[Way, Tensor]:
    """Return the scores of each way, `(n_queries, n_documents)` each."""
    scorers = {"dense": score_dense, "sparse": score_sparse, "multi": score_multi}
    return {way: scorers[way](queries, documents) for way in WAYS}


def sum_scores(scores: Mapping[Way, Any], ways: Sequence[Way] = WAYS) -> Any:  # noqa: ANN401  tensors or arrays
    """Return the weighted sum of the scores of some ways."""
    first, *others = (WEIGHTS[way] * scores[way] for way in ways)
    for other in others:
        first = first + other
    return first


def add_heads(model: SentenceTransformer, seed: int = 0) -> HybridHeads:
    """Append new heads to an embedder: token vectors drawn at random, equal lexical weights.

    Raises:
        ModelError: The embedder has no tokens to put a head on.
    """
    tokenizer: Any = getattr(model, "tokenizer", None)
    if not hasattr(tokenizer, "all_special_ids") or not hasattr(model[0], "get_embedding_dimension"):
        raise ModelError("the embedder has no transformer body; its tokens have no states to put heads on")
    hidden = model[0].get_embedding_dimension()
    cls_id = tokenizer.cls_token_id
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads = HybridHeads(hidden, hidden, tokenizer.all_special_ids, -1 if cls_id is None else cls_id)
    model.append(heads.to(model.device))
    return heads


def remove_heads(model: SentenceTransformer) -> HybridHeads:
    """Take the heads off an embedder; what is left is the plain one."""
    heads = model[-1]
    if not isinstance(heads, HybridHeads):
        raise ModelError("the embedder has no heads")
    del model[len(model) - 1]
    return heads
