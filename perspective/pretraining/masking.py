"""Masked next-token prediction: which tokens are masked, and the loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from perspective.training.losses.base import divide_by_count, find_fillers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerBase

BLANK = "_"  # decoders have no mask token; LLM2Vec takes the underscore


class MaskedNextTokenLoss(nn.Module):
    """Predict a masked token from the state of the token before it.

    With x the token ids, M the masked positions of a batch and h_i the state at position i of the text in
    which the tokens of M are blanks::

        - 1 / |M| sum_{i in M} log softmax(W h_{i-1})[x_i]

    As a causal LM predicts the next token from each state, its own head W is of use as it is. The first
    token of a text and special tokens are not masked. Only the states that predict go through the head.
    Source: "LLM2Vec" (BehnamGhader et al., 2024), section 2.2.

    Args:
        model: The embedder; its body is a decoder that attends to both sides.
        head: The causal LM's head; it is not trained.
        mask_share: Share of the tokens that is masked.
    """

    def __init__(self, model: SentenceTransformer, head: nn.Module, mask_share: float = 0.2) -> None:
        super().__init__()
        self.model = model
        self.head = head.requires_grad_(False)
        self.mask_share = mask_share
        self.blank = find_blank(model.tokenizer)
        self.special = torch.tensor(model.tokenizer.all_special_ids)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Return the mean loss of tokenised texts, one dict; rows whose label is NaN are left out."""
        (features,) = sentence_features
        masked = draw_masked(features["input_ids"], features["attention_mask"], self.special, self.mask_share)
        if labels is not None:
            masked &= ~find_fillers(labels)[:, None]
        return divide_by_count(self.compute_loss(features, masked), masked.sum())

    def compute_loss(self, features: dict[str, Any], masked: Tensor) -> Tensor:
        """Return the sum of the losses of given masked positions.

        Args:
            features: Tokenised texts, `input_ids` and `attention_mask` of `(n, length)`.
            masked: Booleans `(n, length)`; none is in the first column.
        """
        ids = features["input_ids"]
        blanked = {**features, "input_ids": ids.masked_fill(masked, self.blank)}
        states = self.model(blanked)["token_embeddings"]
        predicting = states[:, :-1][masked[:, 1:]]
        if not len(predicting):
            return states.sum() * 0.0  # so that every process has gradients to share
        return cross_entropy(self.head(predicting).float(), ids[:, 1:][masked[:, 1:]], reduction="sum")


def draw_masked(
    ids: Tensor, attention: Tensor, special: Tensor, share: float, generator: torch.Generator | None = None
) -> Tensor:
    """Return which tokens are masked, `(n, length)`: each with the same probability, at least one a text.

    Args:
        ids: Token ids `(n, length)`.
        attention: 1 for tokens, 0 for padding, `(n, length)`.
        special: Ids that are never masked.
        share: Probability that a token is masked.
        generator: Source of randomness; torch's own when None.
    """
    free = attention.bool() & ~torch.isin(ids, special.to(ids.device))
    # Not a text's first token, wherever padding is: no token before it predicts it.
    free &= attention.cumsum(dim=1) > 1
    drawn = torch.rand(ids.shape, generator=generator, device=generator.device if generator else ids.device)
    drawn = drawn.to(ids.device).masked_fill(~free, 2.0)
    return free & ((drawn < share) | (drawn == drawn.min(dim=1, keepdim=True).values))


def find_blank(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the token in place of masked ones: the mask token if there is one, else an underscore.

    A tokenizer without both gets its token for unknown text, or the one that ends a text.
    """
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    ids = tokenizer(BLANK, add_special_tokens=False)["input_ids"]
    if len(ids) == 1:
        return int(ids[0])
    unknown = tokenizer.unk_token_id
    return int(tokenizer.eos_token_id if unknown is None else unknown)
