"""Embed texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from perspective.errors import DataError, require_least
from perspective.models.coverage import Coverage
from perspective.models.embedders import load_embedder
from perspective.models.prompts import set_prompt
from perspective.options import ModelOptions, option
from perspective.runtime.distributed import align_copies, is_main
from perspective.runtime.memory import BatchLimit, halve_on_out_of_memory, limit_batches, make_batches

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import BatchEncoding, PreTrainedTokenizerBase

CHUNK_TEXTS = 2**15  # texts sorted by length together: limits both padding and memory
# A CPU pays for every token of padding; 64 texts of 512 tokens at a time, fewer that are longer.
CPU_LIMIT = BatchLimit(items=64, tokens=2**15, padding=0.1)
CHARS_PER_TOKEN = 3  # English has four to five, so the estimate favours small batches

_Sized = tuple[str, int]  # a text and its number of tokens


@dataclass(frozen=True)
class BatchOptions:
    """How many texts are embedded at a time."""

    batch_size: int | None = option(
        "texts per batch; by default 64 on a CPU, chosen by memory on a GPU", default=None, group="scale"
    )

    def __post_init__(self) -> None:
        """Check the range of the batch size."""
        require_least(self, batch_size=1)


@dataclass(frozen=True)
class EmbedSettings(ModelOptions, BatchOptions):
    """Settings of the embedding."""

    instruction: bool = option(
        "prepend the data set's instruction to each text (for embedders trained with instructions)", default=False
    )


class Encoder(Protocol):
    """Interface that `embed_texts` needs; `SentenceTransformer` implements it."""

    def encode(self, inputs: list[str], **options: Any) -> np.ndarray:  # noqa: ANN401
        """Return one vector per text."""


@dataclass(frozen=True)
class EncoderSide:
    """The query or document side of an embedder, as an `Encoder` for `embed_texts`.

    Attributes:
        model: The embedder.
        encode_side: Its `encode_query` or `encode_document`, with the constant options bound.
    """

    model: SentenceTransformer
    encode_side: Callable[..., np.ndarray]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        """Return an attribute of the embedder, such as its tokenizer or maximum length."""
        return getattr(self.model, name)

    def encode(self, inputs: list[str], **options: Any) -> np.ndarray:  # noqa: ANN401
        """Return one vector per text."""
        return self.encode_side(inputs, **options)


@dataclass
class LoadedEmbedding:
    """An embedder and its batch size.

    Attributes:
        model: The embedder.
        batch_size: Texts per batch; chosen by the device when None.
        coverage: Counts of the texts embedded so far.
    """

    model: SentenceTransformer
    batch_size: int | None
    coverage: Coverage = field(default_factory=Coverage)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 vectors `(n_texts, dim)` from `embed_texts`."""
        return embed_texts(self.model, texts, self.batch_size, self.coverage)


def load_embedding(name: str, settings: EmbedSettings, instruction: str | None) -> LoadedEmbedding:
    """Load an embedder for inference; each Ray worker calls this once.

    Args:
        name: The embedder or a checkpoint's folder.
        settings: Settings of the embedding.
        instruction: Prepended to each text, if given.
    """
    model = load_embedder(name, reading=True, **settings.loading())
    if instruction:
        set_prompt(model, instruction)
    return LoadedEmbedding(model, settings.batch_size)


def embed_texts(
    encoder: Encoder, texts: Sequence[str], batch_size: int | None = None, coverage: Coverage | None = None
) -> np.ndarray:
    """Encode texts with the encoder's own prompt, pooling and normalisation.

    Texts are encoded in chunks of `CHUNK_TEXTS`, so that memory use beyond the vectors is bounded, and
    longest first within a chunk, which minimises padding.

    Args:
        encoder: An embedder.
        texts: The texts, truncated at the embedder's maximum length.
        batch_size: Texts per batch; chosen by the device when None.
        coverage: Filled with counts of the texts, if given.

    Returns:
        float32 array `(n_texts, dim)`; row i is text i.

    Raises:
        DataError: A vector is not finite, which half precision or a broken model can cause.
        ModelError: A single text does not fit the memory.
    """
    body = getattr(encoder, "transformers_model", None)
    limit = BatchLimit(items=batch_size) if batch_size else limit_batches(body, CPU_LIMIT, keeps_cache=False)

    def encode(batch: list[_Sized]) -> np.ndarray:
        inputs = [text for text, _ in batch]
        return encoder.encode(inputs, batch_size=len(batch), show_progress_bar=False, convert_to_numpy=True)

    encode_fitting = halve_on_out_of_memory(encode, _size)
    vectors: np.ndarray | None = None
    with tqdm(total=len(texts), desc="embedding", unit="text", disable=not is_main()) as progress:
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = texts[start : start + CHUNK_TEXTS]
            sized = list(zip(chunk, count_tokens(encoder, chunk, coverage), strict=True))
            found = _encode_chunk(sized, encode_fitting, limit, progress)
            bad = ~np.isfinite(found).all(axis=1)
            if bad.any():
                raise DataError(
                    f"the embedder gave NaN or infinity for {int(bad.sum())} texts, the first in row "
                    f"{start + int(bad.argmax())}; COMPUTE_DTYPE=float32 in the environment avoids half precision"
                )
            if vectors is None:
                vectors = np.empty((len(texts), found.shape[1]), dtype=np.float32)
            vectors[start : start + len(chunk)] = found
    if vectors is None:
        raise DataError("there is no text to embed")
    align_copies(vectors, texts)
    return vectors


def count_tokens(encoder: Encoder, texts: Sequence[str], coverage: Coverage | None = None) -> list[int]:
    """Return the number of tokens per text after truncation; an estimate without a tokenizer.

    Args:
        encoder: An embedder.
        texts: The texts, without its prompt.
        coverage: Filled with counts of the texts, if given and the embedder has a tokenizer.
    """
    from transformers import PreTrainedTokenizerBase

    longest = find_max_tokens(encoder)
    tokenizer = getattr(encoder, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return [min(longest, 2 + len(text) // CHARS_PER_TOKEN) for text in texts]
    encoded = tokenizer(list(texts), truncation=True, max_length=longest)
    if coverage is not None:
        _count_coverage(coverage, texts, encoded, tokenizer, longest)
    return [len(ids) for ids in encoded["input_ids"]]


def find_max_tokens(encoder: object) -> int:
    """Return how many tokens of a text an embedder or reranker reads; 2^31 - 1 where it names no limit."""
    return min(getattr(encoder, "max_seq_length", None) or 512, 2**31 - 1)


def _count_coverage(
    coverage: Coverage,
    texts: Sequence[str],
    encoded: BatchEncoding,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
) -> None:
    n_special, unknown = tokenizer.num_special_tokens_to_add(), tokenizer.unk_token_id
    for row, (text, ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
        fast = encoded.encodings[row] if encoded.encodings else None
        is_cut = bool(fast.overflowing) if fast else len(ids) >= longest
        # Of a text that is cut, the characters before the last token that is left.
        ends = [end for _, end in fast.offsets] if fast and is_cut else []
        n_chars = max(ends, default=len(text))
        coverage.add(n_chars, len(ids) - n_special, 0 if unknown is None else ids.count(unknown), is_cut)


def _size(sized: _Sized) -> int:
    return sized[1]


def _encode_chunk(
    sized: Sequence[_Sized],
    encode: Callable[[Sequence[_Sized]], Sequence[np.ndarray]],
    limit: BatchLimit,
    progress: tqdm,
) -> np.ndarray:
    """Encode texts in batches, longest first; return float32 `(n_texts, dim)` in the original order."""
    order = np.argsort([-size for _, size in sized], kind="stable")
    found: list[np.ndarray] = []
    for batch in make_batches((sized[row] for row in order), _size, limit):
        found.extend(encode(batch))
        progress.update(len(batch))
    return np.array(found, dtype=np.float32)[np.argsort(order)]
