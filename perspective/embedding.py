"""Texts to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from perspective.errors import DataError


@dataclass(frozen=True)
class EmbedSettings:
    """How the texts are embedded."""

    embedder: str = field(
        default="minilm",
        metadata={"help": "gte, e5, minilm, a sentence-transformers id, or a folder", "aliases": ["--embed_method"]},
    )
    checkpoint: str | None = field(
        default=None, metadata={"help": "a fine-tuned folder that takes the embedder's place"}
    )
    instruction: bool = field(
        default=False,
        metadata={"help": "put the data set's instruction before each text (embedders trained with instructions)"},
    )
    batch_size: int = field(default=64, metadata={"help": "texts encoded at a time"})
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of the embedder on the hub"})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "run code from the embedder's repository; only where you trust it"}
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot."""
        if self.batch_size < 1:
            raise DataError(f"--batch_size {self.batch_size}: must be at least 1")


class Encoder(Protocol):
    """What `embed_texts` needs; `SentenceTransformer` is one."""

    def encode(self, inputs: list[str], **options: Any) -> np.ndarray:  # noqa: ANN401
        """Return one vector a text."""


def embed_texts(encoder: Encoder, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """Encode texts with the encoder's own prompt, pooling and normalisation.

    Args:
        encoder: An embedder.
        texts: The texts; longer ones are cut at the embedder's maximum length.
        batch_size: Texts encoded at a time.

    Returns:
        float32 array `(n_texts, dim)`; row i is text i.

    Raises:
        DataError: A vector is not finite, as half precision or a broken model can make it.
    """
    vectors = encoder.encode(list(texts), batch_size=batch_size, show_progress_bar=True, convert_to_numpy=True)
    vectors = np.asarray(vectors, dtype=np.float32)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise DataError(
            f"the embedder gave NaN or infinity for {int(bad.sum())} texts, the first in row {int(bad.argmax())}"
        )
    return vectors
