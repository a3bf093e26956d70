"""Answer states: an LLM's hidden state just before it answers a question about one text.

The LLM reads each text once, followed by the beginning of an answer ("Intent:"). The last hidden
state represents the LLM's answer for this text, so N forward passes judge any number of triplets:
there are no choices, hence no order and no position bias. Taking a sentence embedding from the
position of a one-word summary is the idea of PromptEOL (Jiang et al., 2023, arXiv:2307.16645).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from perspective.artifacts import Output, keep_block, read_vectors
from perspective.errors import DataError, ModelError
from perspective.llm.chat import list_special_tokens, make_harmless, tokenize_beginning
from perspective.llm.loading import LLM
from perspective.llm.packing import PromptReader
from perspective.models.registry import describe_model
from perspective.runtime.devices import describe_precision
from perspective.runtime.ray import EngineSettings, write_vectors_on_ray

logger = logging.getLogger(__name__)

BLOCK_TEXTS = 256  # texts per saved block
CHUNK_TEXTS = 2**15  # texts tokenised at a time
MAX_TEXT_TOKENS = 256

# Different perspectives, so that none is suggested. They show the form of an answer, one or two
# words: small LLMs do not follow an instruction for it reliably.
EXAMPLES = """Text: The soup was cold and the waiter never came back.
Sentiment: anger

Text: Das Konzert beginnt um acht Uhr.
Language: German

Text: I would like to change the date of my flight to Rome.
Intent: change booking

Text: She was born in Oslo in 1932. The entity of Oslo.
Entity: city

"""


def write_frame(perspective: str) -> tuple[str, str]:
    r"""Return the prompt before and after each text.

    >>> write_frame("entity type")[1]
    '\nEntity type:'
    """
    perspective = make_harmless(perspective, max_chars=200)
    return f"{EXAMPLES}Text:", f"\n{perspective[:1].upper()}{perspective[1:]}:"


def compute_states(
    output: Output,
    texts: Sequence[str],
    perspective: str,
    load: Callable[[], LLM],
    engine: EngineSettings | None = None,
) -> np.ndarray:
    """Compute the answer states of all texts and write them.

    Args:
        output: The file to write.
        texts: All texts.
        perspective: What texts of one cluster should share, in a word or two ("intent").
        load: Loads the LLM.
        engine: Where the LLM runs; in this process when None.

    Returns:
        float32 array `(n_texts, dim)`.

    Raises:
        ModelError: As `read_states`.
    """
    if engine and engine.engine == "ray":
        write_vectors_on_ray(output, texts, partial(_load_reader, load, perspective), engine)
    else:
        llm = load()
        states = read_states(llm, texts, perspective, output)
        output.facts |= {**describe_model(llm.name), **describe_precision(llm.model)}
        output.facts |= {"n_texts": len(states), "dim": states.shape[1]}
        output.write_vectors(states)
    output.discard_partial()
    return read_vectors(output.path, len(texts))


def read_states(llm: LLM, texts: Sequence[str], perspective: str, output: Output) -> np.ndarray:
    """Compute the answer state of every text; a killed run resumes.

    Texts with a common beginning are read together, block by block; finished blocks are kept in
    `<file>.partial/` until all are finished.

    Args:
        llm: Any causal LM.
        texts: All texts.
        perspective: What texts of one cluster should share.
        output: The file of the states; its fingerprint identifies the blocks.

    Returns:
        float32 array `(n_texts, dim)`.

    Raises:
        DataError: Existing blocks have other inputs or settings.
        ModelError: The LLM's context is too short for the prompt.
    """
    reader = StateReader(llm, perspective)
    rows, order = reader.arrange(texts)
    folder = output.open_partial()
    result: np.ndarray | None = None
    with tqdm(total=len(texts), desc="reading", unit="text") as progress:
        for start in range(0, len(order), BLOCK_TEXTS):
            block = order[start : start + BLOCK_TEXTS].tolist()
            states = keep_block(folder / f"{start:09d}.npy", len(block), partial(reader.read, block, rows))
            if result is None:
                result = np.empty((len(texts), states.shape[1]), dtype=np.float32)
            result[block] = states
            progress.update(len(block))
    if result is None:
        raise DataError("there is no text to read")
    output.facts["n_tokens"] = sum(map(len, rows)) + reader.n_shared  # the shared prompt counted once
    return result


class StateReader:
    """Computes answer states with a loaded LLM; Ray workers call it with one shard after another.

    Args:
        llm: Any causal LM.
        perspective: What texts of one cluster should share.

    Raises:
        ModelError: The LLM's context is too short for the prompt.
    """

    def __init__(self, llm: LLM, perspective: str) -> None:
        self._llm = llm
        self._frame = _Frame.make(llm, perspective)
        self.n_shared = len(self._frame.before)  # tokens that all texts share
        max_tokens = self.n_shared + self._frame.max_text_tokens + len(self._frame.after)
        self._reader = PromptReader(llm, self._read_ends, max_tokens)
        self._reader.begin(self._frame.before)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the answer states `(n_texts, dim)`, row i for text i."""
        rows, order = self.arrange(texts)
        return self.read(order.tolist(), rows)[np.argsort(order)]

    def arrange(self, texts: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the tokens of every text, and the reading order: texts with a common beginning together."""
        rows = self._frame.tokenize(texts)
        return rows, np.array(sorted(range(len(rows)), key=lambda row: rows[row].tobytes()))

    def read(self, block: Sequence[int], rows: Sequence[np.ndarray]) -> np.ndarray:
        """Read the rows of a block; float32 `(len(block), dim)`, in the block's order.

        Raises:
            ModelError: A state has NaN or infinity.
        """
        states = self._reader.read([(*self._frame.before, *rows[row].tolist()) for row in block]).cpu().numpy()
        if not np.isfinite(states).all():  # checked before the block is saved and reused
            raise ModelError(
                f"{self._llm.name}: gives NaN or infinity in {self._llm.model.dtype}; set COMPUTE_DTYPE=float32"
            )
        return states

    def _read_ends(self, ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:  # noqa: ANN401
        states = self._llm.model.base_model(ids, **inputs).last_hidden_state
        return states[rows, columns].float()


def _load_reader(load: Callable[[], LLM], perspective: str) -> StateReader:
    return StateReader(load(), perspective)


@dataclass(frozen=True)
class _Frame:
    """The prompt tokens around each text, and the tokenisation of texts without special tokens."""

    llm: LLM
    before: tuple[int, ...]
    after: tuple[int, ...]
    max_text_tokens: int

    @classmethod
    def make(cls, llm: LLM, perspective: str) -> _Frame:
        before, after = write_frame(perspective)
        head = tokenize_beginning(llm.tokenizer, before)
        tail = llm.tokenizer(after, add_special_tokens=False)["input_ids"]
        max_text_tokens = min(MAX_TEXT_TOKENS, llm.max_tokens - len(head) - len(tail))
        if max_text_tokens < 1:
            raise ModelError(f"{llm.name}: its context of {llm.max_tokens} tokens is too short for the prompt")
        return cls(llm, tuple(head), tuple(tail), max_text_tokens)

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        markers = list_special_tokens(self.llm.tokenizer)
        rows = []
        # Arrays, chunk by chunk: token lists of 10^7 texts would not fit in memory.
        for start in range(0, len(texts), CHUNK_TEXTS):
            clean = [f" {make_harmless(text, markers)}" for text in texts[start : start + CHUNK_TEXTS]]
            ids = self.llm.tokenizer(clean, add_special_tokens=False)["input_ids"]
            rows += [np.array([*row[: self.max_text_tokens], *self.after], dtype=np.int32) for row in ids]
        return rows
