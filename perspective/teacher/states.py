"""Answer states: what an LLM is about to answer when it is asked about one text.

Each text is read once, followed by the beginning of an answer ("Intent:"). The hidden state there
is the LLM's opinion of that text, so that N forward passes judge any number of triplets: there are
no choices, hence no order and no position bias. The idea of taking a sentence's meaning from the
place where one word would stand for it is PromptEOL's (Jiang et al., 2023, arXiv:2307.16645).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from perspective.artifacts import Output, keep_block, read_vectors
from perspective.errors import DataError, ModelError
from perspective.llm.batching import batch_by_length, choose_limit
from perspective.llm.chat import list_special_tokens, make_harmless
from perspective.llm.loading import LLM
from perspective.llm.packing import PromptReader
from perspective.llm.writing import AnswerWriter
from perspective.models.registry import describe_model
from perspective.runtime.devices import describe_precision
from perspective.runtime.ray import EngineSettings, write_vectors_on_ray

logger = logging.getLogger(__name__)

BLOCK_TEXTS = 256  # texts between two savings
CHUNK_TEXTS = 2**15  # texts tokenised at a time
MAX_TEXT_TOKENS = 256
PHRASE_TOKENS = 8
DISTRIBUTION_DIM = 512

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


@dataclass(frozen=True)
class StateSettings:
    """What is read off the LLM.

    Attributes:
        perspective: What should be alike, in a word or two ("intent").
        form: "state", the hidden state where the answer would begin; "distribution", the
            probabilities of its first token (their square roots, projected at random to
            `DISTRIBUTION_DIM`); "phrase", a short answer in words, for the embedder to embed.
        layer: Layer whose state is taken, counted from the input; -1 is the last, normed one.
    """

    perspective: str
    form: str = "state"
    layer: int = -1


def write_frame(perspective: str) -> tuple[str, str]:
    r"""Return what stands before and after each text.

    >>> write_frame("entity type")[1]
    '\nEntity type:'
    """
    perspective = make_harmless(perspective, max_chars=200)
    return f"{EXAMPLES}Text:", f"\n{perspective[:1].upper()}{perspective[1:]}:"


def load_or_compute_states(
    output: Output,
    texts: Sequence[str],
    settings: StateSettings,
    load: Callable[[], LLM],
    embed: Callable[[list[str]], np.ndarray],
    overwrite: bool = False,
    engine: EngineSettings | None = None,
) -> np.ndarray:
    """Return the answer states of all texts, read off the LLM where no finished file holds them.

    Args:
        output: The file that holds the states.
        texts: All texts.
        settings: What to read.
        load: Loads the LLM, if it is needed.
        embed: Embeds the answers of the form "phrase".
        overwrite: Whether to read anew in any case.
        engine: Where the LLM works; in this process when None.

    Returns:
        float32 array `(n_texts, dim)`.

    Raises:
        DataError: The file was made from other inputs or settings.
        ModelError: As `read_states`.
    """
    if not output.is_finished(overwrite):
        if engine and engine.engine == "ray":
            write_vectors_on_ray(output, texts, partial(_load_reader, load, embed, settings), engine)
        else:
            llm = load()
            if settings.form == "phrase":
                states = embed(write_phrases(llm, texts, settings))
            else:
                states = read_states(llm, texts, settings, output)
            output.facts |= {**describe_model(llm.name), **describe_precision(llm.model)}
            output.facts |= {"n_texts": len(states), "dim": states.shape[1]}
            output.write_vectors(states)
    output.discard_partial()
    return read_vectors(output.path, len(texts))


def read_states(llm: LLM, texts: Sequence[str], settings: StateSettings, output: Output) -> np.ndarray:
    """Read the answer state of every text; a killed run goes on.

    Texts that begin alike are read together, block after block; each finished block lies in
    `<file>.partial/` until all are there.

    Args:
        llm: Any causal LM.
        texts: All texts.
        settings: What to read; "phrase" has its own function, `write_phrases`.
        output: The file that will hold the states; its fingerprint guards the blocks.

    Returns:
        float32 array `(n_texts, dim)`.

    Raises:
        DataError: The blocks belong to other inputs or settings, or the form is no array.
        ModelError: The LLM has no such layer, or a context too short for the question.
    """
    reader = StateReader(llm, settings)
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
        settings: What to read.

    Raises:
        DataError: The form is no array.
        ModelError: The LLM has no such layer, or a context too short for the question.
    """

    def __init__(self, llm: LLM, settings: StateSettings) -> None:
        n_layers = int(llm.model.config.get_text_config().num_hidden_layers)
        if not -1 <= settings.layer <= n_layers:
            raise ModelError(f"{llm.name}: has {n_layers} layers, no layer {settings.layer}; -1 is the last")
        self._llm = llm
        self._layer = settings.layer
        self._keep = _make_reader(llm, settings.form)
        self._frame = _Frame.make(llm, settings.perspective)
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
        out = self._llm.model.base_model(ids, output_hidden_states=self._layer >= 0, **inputs)
        states = out.hidden_states[self._layer] if self._layer >= 0 else out.last_hidden_state
        return self._keep(states[rows, columns])


def _load_reader(
    load: Callable[[], LLM], embed: Callable[[list[str]], np.ndarray], settings: StateSettings
) -> Callable[[list[str]], np.ndarray]:
    llm = load()
    if settings.form == "phrase":
        return lambda texts: embed(write_phrases(llm, texts, settings))
    return StateReader(llm, settings)


def write_phrases(llm: LLM, texts: Sequence[str], settings: StateSettings) -> list[str]:
    """Let the LLM name the perspective of every text in a few words, greedily."""
    frame = _Frame.make(llm, settings.perspective)
    rows = frame.tokenize(texts)
    phrases = [""] * len(texts)
    writer = AnswerWriter(llm, PHRASE_TOKENS, facts={"n_prompts": 0, "n_tokens": 0})
    limit = replace(choose_limit(llm, None), n_shared=len(frame.before))
    batches = list(batch_by_length(range(len(texts)), lambda row: rows[row], limit))
    for batch in tqdm(batches, desc="asking", unit="batch"):
        prompts = [[*frame.before, *rows[row].tolist()] for row in batch]
        for row, answer in zip(batch, writer.write(prompts), strict=True):
            written = llm.tokenizer.decode(answer, skip_special_tokens=True)
            phrases[row] = make_harmless(written.strip().split("\n")[0])
    return phrases


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
        room = min(MAX_TEXT_TOKENS, llm.max_tokens - start - len(plain) - len(tail) - PHRASE_TOKENS)
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


def _make_reader(llm: LLM, form: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what turns the states at the answer, `(n, hidden)`, into what is kept."""
    if form == "state":
        return torch.Tensor.float
    if form != "distribution":
        raise DataError(f'answer form "{form}" is no array')
    head = llm.model.get_output_embeddings()
    # Projected at random: distances are kept (Johnson-Lindenstrauss), the vocabulary is not stored.
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(head.weight.shape[0], DISTRIBUTION_DIM, generator=generator).to(llm.device)

    def read(states: torch.Tensor) -> torch.Tensor:
        # Square roots: Euclidean distance between them is the Hellinger distance.
        roots = torch.softmax(head(states).float(), dim=-1).sqrt()
        return roots @ projection

    return read
