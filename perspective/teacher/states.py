"""Answer states: what an LLM is about to answer when it is asked about one text.

Each text is read once, followed by the beginning of an answer ("Intent:"). The hidden state there
is the LLM's opinion of that text, so that N forward passes judge any number of triplets: there are
no choices, hence no order and no position bias. The idea of taking a sentence's meaning from the
place where one word would stand for it is PromptEOL's (Jiang et al., 2023, arXiv:2307.16645).
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
from perspective.llm.chat import list_special_tokens, make_harmless
from perspective.llm.loading import LLM
from perspective.llm.packing import PromptReader
from perspective.models.registry import describe_model
from perspective.runtime.devices import describe_precision
from perspective.runtime.ray import EngineSettings, write_vectors_on_ray

logger = logging.getLogger(__name__)

BLOCK_TEXTS = 256  # texts between two savings
CHUNK_TEXTS = 2**15  # texts tokenised at a time
MAX_TEXT_TOKENS = 256

# Four perspectives that differ, so that none is suggested: they show the form of an answer, one or
# two words, which a small LLM does not keep to by instruction alone.
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
    r"""Return what stands before and after each text.

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
    """Read the answer states of all texts off an LLM and write them.

    Args:
        output: The file that will hold them.
        texts: All texts.
        perspective: What should be alike, in a word or two ("intent").
        load: Loads the LLM.
        engine: Where the LLM works; in this process when None.

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
    """Read the answer state of every text; a killed run goes on.

    Texts that begin alike are read together, block after block; each finished block lies in
    `<file>.partial/` until all are there.

    Args:
        llm: Any causal LM.
        texts: All texts.
        perspective: What should be alike.
        output: The file that will hold the states; its fingerprint guards the blocks.

    Returns:
        float32 array `(n_texts, dim)`.

    Raises:
        DataError: The blocks belong to other inputs or settings.
        ModelError: The LLM's context is too short for the question.
    """
    reader = StateReader(llm, perspective)
    rows, order = reader.arrange(texts)
    folder = output.open_partial()
    found: np.ndarray | None = None
    with tqdm(total=len(texts), desc="reading", unit="text") as progress:
        for start in range(0, len(order), BLOCK_TEXTS):
            block = order[start : start + BLOCK_TEXTS].tolist()
            states = keep_block(folder / f"{start:09d}.npy", len(block), partial(reader.read, block, rows))
            if found is None:
                found = np.empty((len(texts), states.shape[1]), dtype=np.float32)
            found[block] = states
            progress.update(len(block))
    if found is None:
        raise DataError("there is no text to read")
    output.facts["n_tokens"] = sum(map(len, rows)) + reader.n_shared  # read once or more
    return found


class StateReader:
    """An LLM made ready to read answer states; a worker of Ray calls it with one shard after another.

    Args:
        llm: Any causal LM.
        perspective: What should be alike.

    Raises:
        ModelError: The LLM's context is too short for the question.
    """

    def __init__(self, llm: LLM, perspective: str) -> None:
        self._llm = llm
        self._frame = _Frame.make(llm, perspective)
        self.n_shared = len(self._frame.before)  # tokens that all texts share
        max_tokens = self.n_shared + self._frame.max_text_tokens + len(self._frame.after)
        self._reader = PromptReader(llm, self._read_ends, max_tokens)
        self._reader.begin(self._frame.before)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the answer states `(n_texts, dim)`, row i of text i."""
        rows, order = self.arrange(texts)
        return self.read(order.tolist(), rows)[np.argsort(order)]

    def arrange(self, texts: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the tokens of every text and the order to read them in: those that begin alike together."""
        rows = self._frame.tokenize(texts)
        return rows, np.array(sorted(range(len(rows)), key=lambda row: rows[row].tobytes()))

    def read(self, block: Sequence[int], rows: Sequence[np.ndarray]) -> np.ndarray:
        """Read the rows of a block; float32 `(len(block), dim)`, in the block's order.

        Raises:
            ModelError: The LLM gave NaN or infinity.
        """
        states = self._reader.read([(*self._frame.before, *rows[row].tolist()) for row in block]).cpu().numpy()
        if not np.isfinite(states).all():  # before they are kept, to be read again by every later run
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
    """The tokens around each text, and what the texts themselves must not say."""

    llm: LLM
    before: tuple[int, ...]
    after: tuple[int, ...]
    max_text_tokens: int

    @classmethod
    def make(cls, llm: LLM, perspective: str) -> _Frame:
        before, after = write_frame(perspective)
        # With the special tokens that the tokenizer puts first (BOS), without those it puts last.
        begin = llm.tokenizer(before)["input_ids"]
        plain = llm.tokenizer(before, add_special_tokens=False)["input_ids"]
        start = next((i for i in range(len(begin)) if begin[i : i + len(plain)] == plain), 0)
        tail = llm.tokenizer(after, add_special_tokens=False)["input_ids"]
        room = min(MAX_TEXT_TOKENS, llm.max_tokens - start - len(plain) - len(tail))
        if room < 1:
            raise ModelError(f"{llm.name}: its context of {llm.max_tokens} tokens cannot hold the question")
        return cls(llm, tuple(begin[: start + len(plain)]), tuple(tail), room)

    def tokenize(self, texts: Sequence[str]) -> list[np.ndarray]:
        markers = list_special_tokens(self.llm.tokenizer)
        rows = []
        # In arrays, chunk by chunk: lists of the tokens of 10^7 texts would fill the memory.
        for start in range(0, len(texts), CHUNK_TEXTS):
            clean = [f" {make_harmless(text, markers)}" for text in texts[start : start + CHUNK_TEXTS]]
            ids = self.llm.tokenizer(clean, add_special_tokens=False)["input_ids"]
            rows += [np.array([*row[: self.max_text_tokens], *self.after], dtype=np.int32) for row in ids]
        return rows
