"""Pre-train an encoder to put a whole text into the state of its [CLS] token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from perspective.artifacts import Output
from perspective.errors import ModelError
from perspective.models.decoders import replace_pooling
from perspective.models.registry import EMBEDDERS, explain_loading, find_source
from perspective.models.trained_module import TrainedModule
from perspective.pretraining.masking import draw_masked
from perspective.pretraining.mntp import describe_pretrained, measure_masked_loss, split_texts
from perspective.pretraining.settings import RetroMaeSettings, sample_texts
from perspective.training.losses.base import divide_by_count, find_fillers
from perspective.training.run import RunSettings, limit_length, run_training, save_trained

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

SEEN_SHARE = 0.5  # of the tokens, by each position of the decoder
# Scores of all tokens over a large vocabulary are most of the memory of a step, so they are made for as many tokens
# at a time, and again for the gradient.
SCORED_TOKENS = 2048


class Rebuilder(TrainedModule):
    """What is trained with an encoder and thrown away: its masked-LM head, and a decoder of one layer.

    The last module of an embedder while it is trained, so that checkpoints hold it. It scores tokens within the forward
    pass of the embedder: several processes share the gradients of what is computed there.

    Args:
        body: Config of the encoder, as a dictionary.

    Attributes:
        embeddings: Those of the encoder, in a tuple: they are not this module's own.
    """

    config_keys = ["body"]

    def __init__(self, body: dict[str, Any]) -> None:
        from transformers import AutoConfig, AutoModelForMaskedLM

        super().__init__()
        self.body = body
        options = dict(body)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        self.head = split_head(AutoModelForMaskedLM.from_config(config))
        self.layer = DecoderLayer(config.hidden_size, config.num_attention_heads, config.intermediate_size)
        self.embeddings: tuple[nn.Module, ...] = ()

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: ANN401
        """Add "masked_loss" and "rebuilt_loss", sums over the positions "masked" and "rebuilt", if these are given.

        The text's "tokens" come with them, of which "input_ids" lacks the masked ones.
        """
        if "masked" in features:
            states, tokens = features["token_embeddings"], features["tokens"]
            features["masked_loss"] = self._score(states, tokens, features["masked"])
            if "rebuilt" in features:
                decoded = self.decode(tokens, states[:, 0], draw_seen(features["attention_mask"]))
                features["rebuilt_loss"] = self._score(decoded, tokens, features["rebuilt"])
        return features

    def decode(self, ids: Tensor, cls_states: Tensor, may_see: Tensor) -> Tensor:
        """Return the decoder's states `(n, length, hidden)`.

        Args:
            ids: Tokens `(n, length)`, none masked.
            cls_states: The encoder's [CLS] states `(n, hidden)`.
            may_see: Booleans `(n, length, length)`, from `draw_seen`.
        """
        (embed,) = self.embeddings
        cls = cls_states.unsqueeze(1)
        asking = embed(inputs_embeds=cls.expand(-1, ids.shape[1], -1))
        seen = torch.cat([cls, embed(input_ids=ids)[:, 1:]], dim=1)
        states: Tensor = self.layer(asking, seen, may_see)
        return states

    def _score(self, states: Tensor, ids: Tensor, wanted: Tensor) -> Tensor:
        if not wanted.any():
            return states.sum() * 0.0  # so that every process has gradients to share
        parts = zip(states[wanted].split(SCORED_TOKENS), ids[wanted].split(SCORED_TOKENS), strict=True)
        return torch.stack([checkpoint(self._score_part, *part, use_reentrant=False) for part in parts]).sum()

    def _score_part(self, states: Tensor, ids: Tensor) -> Tensor:
        return cross_entropy(self.head(states).float(), ids, reduction="sum")


class DecoderLayer(nn.Module):
    """Attention of one stream to another, and a feed-forward network, each with a residual and a norm after it."""

    def __init__(self, hidden: int, n_heads: int, inner: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention = nn.MultiheadAttention(hidden, n_heads, batch_first=True)
        self.inner = nn.Sequential(nn.Linear(hidden, inner), nn.GELU(), nn.Linear(inner, hidden))
        self.norms = nn.ModuleList([nn.LayerNorm(hidden), nn.LayerNorm(hidden)])

    def forward(self, asking: Tensor, seen: Tensor, may_see: Tensor) -> Tensor:
        """Return states `(n, length, hidden)`.

        Args:
            asking: The stream that asks, `(n, length, hidden)`.
            seen: The stream that is attended to, of the same shape.
            may_see: Booleans `(n, length, length)`: whether a position may attend to another.
        """
        hidden_from = ~may_see.repeat_interleave(self.n_heads, dim=0)
        found, _ = self.attention(asking, seen, seen, attn_mask=hidden_from, need_weights=False)
        states = self.norms[0](asking + found)
        return self.norms[1](states + self.inner(states))


class RetroMaeLoss(nn.Module):
    """Rebuild a text from its [CLS] state, beside masked language modelling.

    With x the tokens, M the masked ones, h_i the encoder's states of the text in which those of M are masks,
    and W the masked-LM head::

        - 1 / |M| sum_{i in M} log softmax(W h_i)[x_i]  -  1 / |T| sum_{i in T} log softmax(W d_i)[x_i]

    T are all tokens but special ones. The decoder's state d_i has two streams: h_cls with the position i asks,
    and attends to h_cls and to the embeddings of a random half of the tokens, another one for each i, never to
    x_i itself. Its layer has little else to go by than h_cls, which so learns to hold the text. Source:
    "RetroMAE" (Xiao et al., 2022), sections 3.1 to 3.3. All masked tokens become the mask token.

    Args:
        model: The encoder as an embedder, with a `Rebuilder` as the last module.
        mask_share: Share of the tokens that the encoder does not see.
        rebuilds: False leaves the second sum out: plain masked language modelling.
    """

    def __init__(self, model: SentenceTransformer, mask_share: float = 0.3, rebuilds: bool = True) -> None:
        super().__init__()
        self.model, self.mask_share, self.rebuilds = model, mask_share, rebuilds
        self.mask_id = int(model.tokenizer.mask_token_id)
        self.special = torch.tensor(model.tokenizer.all_special_ids)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Return the mean loss of tokenised texts, one dict; rows whose label is NaN are left out."""
        (features,) = sentence_features
        ids, attention = features["input_ids"], features["attention_mask"]
        masked = draw_masked(ids, attention, self.special, self.mask_share)
        wanted = attention.bool() & ~torch.isin(ids, self.special.to(ids.device))
        if labels is not None:
            kept = ~find_fillers(labels)[:, None]
            masked, wanted = masked & kept, wanted & kept
        found = self._forward(features, masked, {"rebuilt": wanted} if self.rebuilds else {})
        loss = divide_by_count(found["masked_loss"], masked.sum())
        return loss + divide_by_count(found["rebuilt_loss"], wanted.sum()) if self.rebuilds else loss

    def compute_loss(self, features: dict[str, Any], masked: Tensor) -> Tensor:
        """Return the sum of the losses of masked tokens alone, of given positions `(n, length)`."""
        total: Tensor = self._forward(features, masked, {})["masked_loss"]
        return total

    def _forward(self, features: dict[str, Any], masked: Tensor, more: dict[str, Tensor]) -> dict[str, Any]:
        ids = features["input_ids"]
        hidden = {**features, "input_ids": ids.masked_fill(masked, self.mask_id), "tokens": ids, "masked": masked}
        found: dict[str, Any] = self.model({**hidden, **more})
        return found


def draw_seen(attention: Tensor, share: float = SEEN_SHARE) -> Tensor:
    """Return what each position of the decoder may attend to, booleans `(n, length, length)`.

    The first position, and of the other tokens a random part, another one for each position; not itself.

    Args:
        attention: 1 for tokens, 0 for padding, `(n, length)`.
        share: Probability that a token is seen.
    """
    n, length = attention.shape
    drawn = torch.rand(n, length, length, device=attention.device) < share
    drawn &= attention.bool()[:, None, :]
    drawn &= ~torch.eye(length, dtype=torch.bool, device=attention.device)
    drawn[:, :, 0] = True  # the first position predicts nothing, but has to attend to something
    return drawn


def load_rebuilder(
    name: str,
    model: SentenceTransformer,
    seed: int = 0,
    **options: Any,  # noqa: ANN401  of the hub
) -> Rebuilder:
    """Return the module to train an encoder with: its own masked-LM head, and a new decoder.

    Args:
        name: The encoder as `load_embedder` takes it.
        model: The loaded encoder; a head that shares the word vectors is tied to them.
        seed: Of the decoder's first weights.
        **options: Revision and trust of a hub id.

    Raises:
        ModelError: It is no encoder with a masked-LM head and a mask token.
    """
    from transformers import AutoModelForMaskedLM

    body, tokenizer = model.transformers_model, model.tokenizer
    if getattr(tokenizer, "mask_token_id", None) is None or not hasattr(body, "embeddings"):
        raise ModelError(
            f"{name}: no encoder with a mask token; choose one, such as --embedder google-bert/bert-base-uncased"
        )
    source = find_source(name, EMBEDDERS)
    with explain_loading(name):
        whole, info = AutoModelForMaskedLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    head = split_head(whole)
    prefix = next(name for name, child in whole.named_children() if child is head)
    if missing := [key for key in info["missing_keys"] if key.startswith(f"{prefix}.")]:
        raise ModelError(
            f"{name}: was saved without a masked-LM head ({missing[0]}); give the model that it was made of, such as "
            "google-bert/bert-base-uncased"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Rebuilder(whole.config.to_dict())
    module.head.load_state_dict(head.state_dict())
    if getattr(whole.config, "tie_word_embeddings", False):
        _find_projection(module.head, len(tokenizer)).weight = body.get_input_embeddings().weight
    module.embeddings = (body.embeddings,)
    return module.to(model.device)


def _require_positions(module: Rebuilder) -> None:
    """Refuse an encoder that adds no positions to its embeddings: the decoder's questions would all be the same."""
    embeddings = module.embeddings[0].eval()
    words = torch.zeros(1, 2, module.body["hidden_size"], device=next(embeddings.parameters()).device)
    with torch.no_grad():
        found = embeddings(inputs_embeds=words)
    one, other = (found[0] if isinstance(found, tuple) else found)[0]
    if torch.equal(one, other):
        raise ModelError(
            "--objective retromae: this encoder's embeddings hold no positions, which the decoder asks for; choose "
            "--objective mlm, or an encoder such as google-bert/bert-base-uncased"
        )


def split_head(whole: PreTrainedModel) -> nn.Module:
    """Return a masked LM's head: what maps states to scores of the vocabulary.

    Raises:
        ModelError: The head is not a module of its own.
    """
    heads = [child for name, child in whole.named_children() if name != whole.base_model_prefix]
    if len(heads) != 1:
        raise ModelError(f"{whole.config.model_type}: its masked-LM head is not one module; choose a BERT or RoBERTa")
    return heads[0]


def _find_projection(head: nn.Module, n_vocabulary: int) -> nn.Linear:
    """Return the layer of a head that has the size of the vocabulary."""
    layers = [part for part in head.modules() if isinstance(part, nn.Linear) and part.out_features >= n_vocabulary]
    return layers[-1]


def pretrain_encoder(
    model: SentenceTransformer, module: Rebuilder, texts: Sequence[str], settings: RetroMaeSettings, output: Output
) -> None:
    """Pre-train an encoder and write it as an embedder whose vector is the [CLS] state.

    The loss of masked tokens of held-out texts is measured before and after. Checkpoints are kept in
    `<folder>.partial/`; a killed run resumes from the last complete one.

    Args:
        model: The encoder as an embedder; changed in place.
        module: From `load_rebuilder`.
        texts: The texts.
        settings: How to train.
        output: The folder to write; the losses are added to its facts.

    Raises:
        DataError: Too few texts.
        ModelError: The embedder does not pool token states.
    """
    from datasets import Dataset

    from perspective.training.batch_samplers import LengthBatchSampler

    trained, held_out = split_texts(sample_texts(texts, settings.max_texts, settings.seed), settings.seed)
    replace_pooling(model, "cls")
    rebuilds = settings.objective == "retromae"
    if rebuilds:
        _require_positions(module)
    module.layer.requires_grad_(rebuilds)
    model.append(module)
    limit_length(model, settings.max_source_length)
    loss = RetroMaeLoss(model, settings.mask_share, rebuilds)
    output.facts |= {"n_texts": len(trained), "n_held_out": len(held_out)}
    output.facts["masked_loss_before"] = measure_masked_loss(loss, held_out)
    dataset = Dataset.from_dict({"sentence": trained})
    history = run_training(model, dataset, loss, LengthBatchSampler, None, RunSettings.collect(settings), output)
    loss.model = model  # the trainer may have put its wrapper there
    output.facts["masked_loss_trained"] = measure_masked_loss(loss, held_out)
    del model[len(model) - 1]
    save_trained(model, history, output, partial(describe_pretrained, note="Its vector is the [CLS] state."))
