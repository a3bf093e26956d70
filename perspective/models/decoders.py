"""Causal LMs as embedders: an appended end-of-text token, pooling, instructions, attention in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from perspective.artifacts import read_object
from perspective.errors import ModelError
from perspective.models.weights import locate_weights
from perspective.options import PoolingName

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerBase

POOLINGS: dict[PoolingName, str] = dict(zip(get_args(PoolingName), ("lasttoken", "mean", "weightedmean"), strict=True))
# Of E5-mistral; its prompt for retrieval where no other task is given.
SEARCH_TASK = "Given a web search query, retrieve relevant passages that answer the query"
ADAPTER_CONFIG = "adapter_config.json"


def write_instruction(task: str) -> str:
    r"""Return the prompt of a query, as E5-mistral has it; documents have none.

    Source: "Improving Text Embeddings with Large Language Models" (Wang et al., 2024), section 3.1.

    >>> write_instruction("Find the answer")
    'Instruct: Find the answer\nQuery: '
    """
    return f"Instruct: {task}\nQuery: "


def is_decoder(config: Mapping[str, Any]) -> bool:
    """Return whether a model's configuration is that of a causal LM: its type has a causal and no masked head.

    One with a head that classifies, as trained rerankers have, is none.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    kind = config.get("model_type")
    if any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        return False
    return kind in CAUSAL and kind not in MASKED and not config.get("is_encoder_decoder")


def is_bare_decoder(source: str | Path, **options: Any) -> bool:  # noqa: ANN401  of the hub
    """Return whether a GGUF file, a folder or a hub id is a causal LM without modules of sentence-transformers.

    Args:
        source: As `find_source` returns it.
        **options: Revision and trust of a hub id; without it, code of its repository does not run.
    """
    if Path(source).suffix == ".gguf":
        return True
    if isinstance(source, Path):
        config = source / "config.json"
        return not (source / "modules.json").exists() and config.is_file() and is_decoder(read_object(config))
    from sentence_transformers.util import load_file_path
    from transformers import AutoConfig

    if load_file_path(source, "modules.json", revision=options.get("revision")):
        return False
    return is_decoder(AutoConfig.from_pretrained(source, **{"trust_remote_code": False, **options}).to_dict())


def build_decoder(
    source: str | Path, name: str, pooling: PoolingName, device: str | None, model_options: Mapping[str, Any]
) -> SentenceTransformer:
    """Return a causal LM as an embedder: its body, pooling, normalisation.

    Args:
        source: A GGUF file, a folder or a hub id.
        name: Its name in messages.
        pooling: See `set_pooling`.
        device: Device of the model.
        model_options: Arguments of `from_pretrained`.

    Raises:
        ModelError: The tokenizer has no end-of-text token.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    weights = locate_weights(source)
    options = {key: model_options[key] for key in ("revision", "trust_remote_code") if key in model_options}
    options |= weights.options
    body = Transformer(
        weights.folder,
        model_kwargs={**weights.model_options, **weights.options, **model_options},
        config_kwargs=options,
        processor_kwargs=dict(options),
        # stated: otherwise a tokenizer with a chat template writes every text as a message of a chat
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    append_eos(body.tokenizer, name)
    pool = Pooling(body.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[body, pool, Normalize()], device=device)
    set_pooling(model, pooling)
    set_task(model, SEARCH_TASK)
    return model


def append_eos(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Let a tokenizer end every text with its end-of-text token, also one that is cut, and pad on the right.

    The tokenizer saves this. Padding is recognised by the attention mask, so that any token can pad.

    Raises:
        ModelError: The tokenizer has no end-of-text token, or does not append it.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{name}: its tokenizer has no end-of-text token, which stands for the text; "
            'name one as "eos_token" in tokenizer_config.json'
        )
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    ids = tokenizer("a")["input_ids"]
    if ids[-1] == tokenizer.eos_token_id:
        return
    # Either makes the tokenizer's template again, from both.
    tokenizer.add_bos_token = ids[0] == tokenizer.bos_token_id
    tokenizer.add_eos_token = True
    if tokenizer("a")["input_ids"] != [*ids, tokenizer.eos_token_id]:
        raise ModelError(f"{name}: its tokenizer does not append {tokenizer.eos_token}; choose another decoder")


def set_pooling(model: SentenceTransformer, pooling: PoolingName) -> None:
    """Set how an embedder makes a vector of its token states.

    "last" is the state of the last token, the end-of-text token of a decoder; "mean" the mean;
    "weighted" the mean in which token i of a text has weight i. Both means are over the text alone,
    without its instruction, as in "LLM2Vec" (BehnamGhader et al., 2024).

    Raises:
        ModelError: The embedder has no pooling.
    """
    try:
        replace_pooling(model, POOLINGS[pooling], include_prompt=pooling == "last")
    except ModelError as error:
        raise ModelError(f"--pooling {pooling}: {error}; leave it out") from None


def replace_pooling(model: SentenceTransformer, mode: str, include_prompt: bool = True) -> None:
    """Replace the module by which an embedder makes a vector of its token states.

    Args:
        model: Changed in place.
        mode: Of sentence-transformers' `Pooling`, such as "cls".
        include_prompt: Whether a prompt's tokens count.

    Raises:
        ModelError: The embedder has no pooling.
    """
    from sentence_transformers.sentence_transformer.modules import Pooling

    places = [place for place, module in enumerate(model) if isinstance(module, Pooling)]
    if not places:
        raise ModelError("this embedder does not pool token states")
    (place,) = places
    model[place] = Pooling(model[place].embedding_dimension, mode, include_prompt=include_prompt)


def set_task(model: SentenceTransformer, task: str) -> None:
    """Set the instruction of queries in the model's prompts, which are saved with it."""
    model.prompts |= {"query": write_instruction(task), "document": ""}


def make_bidirectional(model: SentenceTransformer) -> None:
    """Let every token of a decoder attend to all tokens of its text; it is saved with the model."""
    body = model.transformers_model
    body.config.is_causal = False
    for module in body.modules():  # FlashAttention asks the layer
        if hasattr(module, "is_causal"):
            module.is_causal = False


def find_adapter(source: str | Path) -> Path | None:
    """Return the folder if it holds an adapter of peft instead of a model, else None."""
    folder = Path(source)
    return folder if (folder / ADAPTER_CONFIG).exists() and not (folder / "modules.json").exists() else None


def read_adapter_base(folder: Path) -> str:
    """Return the name of the model that an adapter was trained on.

    Raises:
        ModelError: The adapter does not say.
    """
    base = read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f'{folder / ADAPTER_CONFIG}: no "base_model_name_or_path"; name the adapter\'s base model')
    return base


def merge_adapter(model: SentenceTransformer, folder: Path) -> None:
    """Merge an adapter from a folder into an embedder's weights.

    Raises:
        ModelError: The adapter is of another base model.
    """
    from peft import (
        LoraConfig,
        get_peft_model,
        get_peft_model_state_dict,
        load_peft_weights,
        set_peft_model_state_dict,
    )

    base = read_adapter_base(folder)
    hint = f"it was trained on another base than {base}; name the right one as base_model_name_or_path in its config"
    try:
        wrapped = get_peft_model(model.transformers_model, LoraConfig.from_pretrained(str(folder)))
        weights = load_peft_weights(str(folder), device="cpu")
        astray = sorted(weights.keys() ^ get_peft_model_state_dict(wrapped).keys())
        if astray:
            raise ValueError(f"only one of them has {astray[0]}")
        set_peft_model_state_dict(wrapped, weights)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{folder}: does not fit {base} ({' '.join(str(error).split())[:160]}); {hint}") from None
    wrapped.merge_and_unload()
