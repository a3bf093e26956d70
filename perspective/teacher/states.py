"""Answer states: an LLM's hidden state just before it answers a question about one text.

The LLM reads each text once, followed by the beginning of an answer ("Intent:"). The last hidden
state represents the LLM's answer for this text, so N forward passes judge any number of triplets:
there are no choices, hence no order and no position bias. Taking a sentence embedding from the
position of a one-word summary is the idea of PromptEOL (Jiang et al., 2023, arXiv:2307.16645).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from perspective.artifacts import Output, keep_block, read_vectors
from perspective.errors import DataError, ModelError
from perspective.llm.chat import (
    MAX_TEXT_CHARS,
    list_special_tokens,
    make_harmless,
    tokenize_beginning,
    tokenize_continuations,
)
from perspective.llm.loading import LLM
from perspective.llm.packing import PromptReader
from perspective.models.coverage import LLMS_THAT_FIT, Coverage
from perspective.models.registry import describe_model
from perspective.runtime.devices import describe_precision
from perspective.runtime.ray import EngineSettings, write_vectors_on_ray
from perspective.teacher.reading import MAX_TEXT_TOKENS

BLOCK_TEXTS = 256  # texts per saved block
CHUNK_TEXTS = 2**15  # texts tokenised at a time
# Longer texts are cut before they are tokenised; English has four. Not more: at 256 tokens it is the judges' limit.
MAX_CHARS_PER_TOKEN = 15

# Different perspectives, so that none is suggested. They show the form of an answer, one or two
# words: small LLMs do not follow an instruction for it reliably.
EXAMPLES = """Text: The soup was cold and the waiter never came back.
Sentiment: negative

Text: Das Konzert beginnt um acht Uhr.
Language: German

Text: I would like to change the date of my flight to Rome.
Intent: change booking

Text: Once upon a time a fox lived at the edge of the forest.
Genre: fairy tale

"""
# Questions that have nothing to do with any perspective; see `trust.specificity`.
OTHER_QUESTIONS = ("Summary", "Text type")


def write_question(perspective: str) -> str:
    r"""Return the prompt after each text.

    >>> write_question("entity type")
    '\nEntity type:'
    """
    perspective = make_harmless(perspective, max_chars=200)
    return f"\n{perspective[:1].upper()}{perspective[1:]}:"


def write_control_questions(perspective: str) -> tuple[str, ...]:
    r"""Return the question, the same in another wording, and other questions.

    >>> write_control_questions("topic")
    ('\nTopic:', '\nThe topic of this text:', '\nSummary:', '\nText type:')
    """
    reworded = f"\nThe {make_harmless(perspective, max_chars=200)} of this text:"
    return write_question(perspective), reworded, *(f"\n{other}:" for other in OTHER_QUESTIONS)


def compute_states(
    output: Output,
    texts: Sequence[str],
    questions: Sequence[str],
    load: Callable[[], LLM],
    engine: EngineSettings | None = None,
    max_text_tokens: int = MAX_TEXT_TOKENS,
) -> np.ndarray:
    """Compute the answer states of all texts and write them.

    Args:
        output: The file to write.
        texts: All texts.
        questions: Prompts after each text, as from `write_question`; their states are side by side.
        load: Loads the LLM.
        engine: Where the LLM runs; in this process when None.
        max_text_tokens: Number of tokens of a text that are read.

    Returns:
        float32 array `(n_texts, n_questions * dim)`.

    Raises:
        ModelError: As `read_states`.
    """
    if engine and engine.engine == "ray":
        write_vectors_on_ray(output, texts, partial(_load_reader, load, questions, max_text_tokens), engine)
    else:
        llm = load()
        states = read_states(llm, texts, questions, output, max_text_tokens)
        output.facts |= {**describe_model(llm.name), **describe_precision(llm.model)}
        output.facts |= {"n_texts": len(states), "dim": states.shape[1]}
        output.write_vectors(states)
    output.discard_partial()
    return read_vectors(output.path, len(texts))


def read_states(
    llm: LLM, texts: Sequence[str], questions: Sequence[str], output: Output, max_text_tokens: int = MAX_TEXT_TOKENS
) -> np.ndarray:
    """Compute the answer state of every text; a killed run resumes.

    Texts with a common beginning are read together, block by block; finished blocks are kept in
    `<file>.partial/` until all are finished.

    Args:
        llm: Any causal LM.
        texts: All texts.
        questions: Prompts after each text.
        output: The file of the states; its fingerprint identifies the blocks.
        max_text_tokens: Number of tokens of a text that are read.

    Returns:
        float32 array `(n_texts, n_questions * dim)`.

    Raises:
        DataError: Existing blocks have other inputs or settings.
        ModelError: The LLM's context is too short for the prompt.
    """
    reader = StateReader(llm, questions, max_text_tokens)
    rows, order = reader.arrange(texts)
    if len(questions) == 1:  # the control questions are about a sample of the same texts
        reader.coverage.warn(llm.name, reader.max_text_tokens, LLMS_THAT_FIT, "--max_text_tokens reads more")
    output.facts |= reader.coverage.facts()
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
    # The shared prompt counted once.
    output.facts["n_tokens"] = reader.n_shared + sum(map(len, rows)) + len(rows) * reader.n_question
    return result


class StateReader:
    """Computes answer states with a loaded LLM; Ray workers call it with one shard after another.

    Args:
        llm: Any causal LM.
        questions: Prompts after each text.
        max_text_tokens: Number of tokens of a text that are read, if the LLM's context has room.
        examples: What is read before each text.

    Attributes:
        coverage: Counts of the texts tokenised so far.

    Raises:
        ModelError: The LLM's context is too short for the prompt.
    """

    def __init__(
        self, llm: LLM, questions: Sequence[str], max_text_tokens: int = MAX_TEXT_TOKENS, examples: str = EXAMPLES
    ) -> None:
        self._llm = llm
        self._frame = _Frame.make(llm, questions, max_text_tokens, examples)
        self.coverage = Coverage()
        self.max_text_tokens = self._frame.max_text_tokens
        self.n_shared = len(self._frame.before)  # tokens that all texts share
        self.n_question = sum(map(len, self._frame.questions))  # tokens after each text
        max_tokens = self.n_shared + self._frame.max_text_tokens + max(map(len, self._frame.questions))
        self._reader = PromptReader(llm, self._read_ends, max_tokens)
        self._reader.begin(self._frame.before)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the answer states `(n_texts, n_questions * dim)`, row i for text i."""
        rows, order = self.arrange(texts)
        return self.read(order.tolist(), rows)[np.argsort(order)]

    def arrange(self, texts: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the tokens of every text, and the reading order: texts with a common beginning together."""
        rows = self._frame.tokenize(texts, self.coverage)
        return rows, np.array(sorted(range(len(rows)), key=lambda row: rows[row].tobytes()))

    def read(self, block: Sequence[int], rows: Sequence[np.ndarray]) -> np.ndarray:
        """Read the rows of a block; float32 `(len(block), n_questions * dim)`, in the block's order.

        Raises:
            ModelError: A state has NaN or infinity.
        """
        before, questions = self._frame.before, self._frame.questions
        prompts = [(*before, *rows[row].tolist(), *question) for row in block for question in questions]
        states = self._reader.read(prompts).cpu().numpy().reshape(len(block), -1)
        if not np.isfinite(states).all():  # checked before the block is saved and reused
            raise ModelError(
                f"{self._llm.name}: gives NaN or infinity in {self._llm.model.dtype}; set COMPUTE_DTYPE=float32"
            )
        return states

    def _read_ends(self, ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:  # noqa: ANN401
        states = self._llm.body(ids, **inputs).last_hidden_state
        return states[rows, columns].float()


def _load_reader(load: Callable[[], LLM], questions: Sequence[str], max_text_tokens: int) -> StateReader:
    return StateReader(load(), questions, max_text_tokens)


@dataclass(frozen=True)
class _Frame:
    """The prompt tokens around each text, and the tokenisation of texts without special tokens."""

    llm: LLM
    before: tuple[int, ...]
    questions: tuple[tuple[int, ...], ...]
    max_text_tokens: int

    @classmethod
    def make(cls, llm: LLM, questions: Sequence[str], most: int, examples: str) -> _Frame:
        head = tokenize_beginning(llm.tokenizer, f"{examples}Text:")
        tails = [tuple(row) for row in tokenize_continuations(llm.tokenizer, questions)]
        max_text_tokens = min(most, llm.max_tokens - len(head) - max(map(len, tails)))
        if max_text_tokens < 1:
            raise ModelError(f"{llm.name}: its context of {llm.max_tokens} tokens is too short for the prompt")
        return cls(llm, tuple(head), tuple(tails), max_text_tokens)

    def tokenize(self, texts: Sequence[str], coverage: Coverage) -> list[np.ndarray]:
        markers, unknown = list_special_tokens(self.llm.tokenizer), self.llm.tokenizer.unk_token_id
        most = self.max_text_tokens
        max_chars = max(MAX_TEXT_CHARS, MAX_CHARS_PER_TOKEN * most)
        rows = []
        # Arrays, chunk by chunk: token lists of 10^7 texts would not fit in memory.
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = texts[start : start + CHUNK_TEXTS]
            clean = [f" {make_harmless(text, markers, max_chars)}" for text in chunk]
            ids = tokenize_continuations(self.llm.tokenizer, clean)
            for text, prepared, row in zip(chunk, clean, ids, strict=True):
                is_cut = len(row) > most or len(text) > max_chars
                coverage.add(len(prepared), len(row), 0 if unknown is None else row.count(unknown), is_cut)
            rows += [np.array(row[:most], dtype=np.int32) for row in ids]
        return rows
