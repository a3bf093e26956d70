"""Pack many prompts into one forward pass, computing shared prefixes once."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch

from perspective.llm.loading import LLM
from perspective.runtime.memory import BatchLimit, halve_on_out_of_memory, limit_batches, make_batches

logger = logging.getLogger(__name__)

Tokens = tuple[int, ...]
# Runs the model on token ids (n_rows, width). Further arguments: row and column of each prompt's last
# token, (n_prompts,) each, and other model inputs by name. Returns one vector per prompt,
# (n_prompts, dim).
Forward = Callable[..., torch.Tensor]

# Tokens per row: longer rows share more prefixes but spend more attention on masked pairs. Tokens per
# pass: more use the hardware better, up to saturation. Measured on a CPU; both curves are flat there.
ROW_TOKENS = 192
CPU_LIMIT = BatchLimit(tokens=576)
MAX_PASS_TOKENS = 2**13  # saturates a GPU; leaves memory for the vocabulary logits of all rows
PROBE: tuple[Tokens, ...] = ((4, 5, 6, 7), (4, 8, 9, 10, 11), (4, 8, 9, 6))  # ids that are in any vocabulary


@dataclass(frozen=True)
class PackedRow:
    """Prompts packed into one row: their indices, suffixes after the shared prefix, and total tokens."""

    places: list[int]
    rests: list[Tokens]
    n_tokens: int


class PromptReader:
    """Compute a vector at the last token of each prompt with a causal LM.

    The prefix shared by all prompts is computed once and cached. The suffixes are packed, several per
    row, as a prefix tree in which shared tokens occur once. A mask restricts each token to its own
    prompt, as in the tree attention of SpecInfer (Miao et al., 2024, arXiv:2305.09781). This reduces
    padding, and the cache is copied per row instead of per prompt. Models that do not support such
    masks get one prompt per row, and those whose cache cannot be repeated (recurrent ones) no cache.

    Args:
        llm: Any causal LM.
        forward: Runs the model; see `Forward`.
        max_tokens: Length of the longest prompt.

    Attributes:
        packs: Whether the model supports packed prompts.
        caches: Whether its cache of a prefix can be repeated.
        n_read: Tokens computed so far, without padding.
    """

    def __init__(self, llm: LLM, forward: Forward, max_tokens: int) -> None:
        self.packs = takes_packs(llm, max_tokens)
        self.caches = self.packs or _reads_equally(llm, packed=False)
        self.n_read = 0
        self._llm = llm
        self._forward = forward
        self._beginning: Tokens = ()
        self._cache: Any = None
        # A single prefix cannot be halved; the wrapper gives the right error message.
        self._begin_fitting = halve_on_out_of_memory(lambda beginnings: [_read_cache(llm, *beginnings)], len)
        self._read_fitting = halve_on_out_of_memory(self._read_rows, lambda row: row.n_tokens)

    def read(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        """Return one vector per prompt from `forward`, `(n_prompts, dim)`.

        Args:
            prompts: Token ids. Larger calls share more prefixes.

        Raises:
            ModelError: A single prompt does not fit the memory.
        """
        ordered = sorted(range(len(prompts)), key=lambda place: prompts[place])  # adjacent prompts share prefixes
        n_shared = _count_common(prompts[ordered[0]], prompts[ordered[-1]])
        self.begin(prompts[0][: min(n_shared, min(map(len, prompts)) - 1)])  # at least one token per prompt remains
        vectors: dict[int, torch.Tensor] = {}
        # Longest first, so that running out of memory shows at the start of a run.
        rows = sorted(self._make_rows(ordered, prompts), key=lambda row: -row.n_tokens)
        limit = limit_batches(self._llm.model, CPU_LIMIT, n_shared=len(self._beginning))
        limit = replace(limit, tokens=min(limit.tokens, MAX_PASS_TOKENS))
        for batch in make_batches(rows, lambda row: row.n_tokens, limit):
            for row, found in zip(batch, self._read_fitting(batch), strict=True):
                vectors |= zip(row.places, found, strict=True)
                self.n_read += row.n_tokens
        return torch.stack([vectors[place] for place in range(len(prompts))])

    def begin(self, shared: Tokens) -> None:
        """Cache the shared prefix of the next prompts; keep the present cache if it is a prefix of it.

        Calling this first makes the vectors independent, to the last bit, of the order of prompts.
        """
        if self.caches and (not self._beginning or shared[: len(self._beginning)] != self._beginning):
            self._beginning = shared
            (self._cache,) = self._begin_fitting([shared]) if shared else (None,)
            self.n_read += len(shared)

    def _make_rows(self, ordered: Sequence[int], prompts: Sequence[Tokens]) -> Iterator[PackedRow]:
        room = ROW_TOKENS if self.packs else 0
        row: PackedRow | None = None
        for place in ordered:
            rest = prompts[place][len(self._beginning) :]
            n_new = len(rest) - (_count_common(row.rests[-1], rest) if row else 0)
            if row and row.n_tokens + n_new <= room:
                row = PackedRow([*row.places, place], [*row.rests, rest], row.n_tokens + n_new)
                continue
            if row:
                yield row
            row = PackedRow([place], [rest], len(rest))
        if row:
            yield row

    def _read_rows(self, rows: Sequence[PackedRow]) -> list[torch.Tensor]:
        rests = [row.rests for row in rows]
        return run_rows(self._llm, self._forward, rests, self.packs, len(self._beginning), self._cache)


@torch.inference_mode()
def run_rows(
    llm: LLM,
    forward: Forward,
    rows: Sequence[Sequence[Tokens]],
    packed: bool,
    n_before: int = 0,
    cache: Any = None,  # noqa: ANN401  of transformers
) -> list[torch.Tensor]:
    """Run the model once on rows of prompts.

    Args:
        llm: The model.
        forward: Runs the model.
        rows: The suffixes of the prompts of each row, after the shared prefix.
        packed: Whether to mask. Not needed for one prompt per row: causal attention does not see the
            padding after it.
        n_before: Number of tokens of the shared prefix.
        cache: Cache of the shared prefix; not changed.

    Returns:
        The vectors of each row, `(n_prompts, dim)`.
    """
    trees = [grow_tree(prompts) for prompts in rows]
    width = max(len(tokens) for tokens, _ in trees)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    for row, (tokens, _) in enumerate(trees):
        ids[row, : len(tokens)] = tokens
    device = llm.device
    inputs = _mask_rows(llm, [paths for _, paths in trees], width, n_before) if packed else {}
    if cache is not None:
        cache = copy.deepcopy(cache)
        cache.batch_repeat_interleave(len(rows))
    ends = [[path[-1] for path in paths] for _, paths in trees]
    n_ends = torch.tensor([len(of_row) for of_row in ends])
    vectors = forward(
        torch.from_numpy(ids).to(device),
        torch.arange(len(rows)).repeat_interleave(n_ends).to(device),
        torch.tensor([end for of_row in ends for end in of_row], device=device),
        use_cache=cache is not None,
        **({} if cache is None else {"past_key_values": cache}),
        **inputs,
    )
    return list(vectors.split(n_ends.tolist()))


def _mask_rows(llm: LLM, rows: Sequence[Sequence[Sequence[int]]], width: int, n_before: int) -> dict[str, torch.Tensor]:
    """Return mask and positions with which each token attends only to earlier tokens on its paths."""
    positions = np.zeros((len(rows), width), dtype=np.int64)
    sees = np.zeros((len(rows), 1, width, n_before + width), dtype=bool)
    sees[..., :n_before] = True
    for row, paths in enumerate(rows):
        for path in paths:
            steps = np.arange(len(path))
            positions[row, path] = n_before + steps
            sees[row, 0, np.array(path)[:, None], n_before + np.array(path)] |= steps[:, None] >= steps
    hidden = torch.from_numpy(~sees).to(llm.device)
    mask = torch.zeros(hidden.shape, dtype=llm.model.dtype, device=llm.device)
    return {
        "attention_mask": mask.masked_fill_(hidden, torch.finfo(mask.dtype).min),
        "position_ids": torch.from_numpy(positions).to(llm.device),
    }


def grow_tree(prompts: Sequence[Tokens]) -> tuple[list[int], list[list[int]]]:
    """Merge prompts into a prefix tree.

    Returns:
        The tokens of the tree, and for each prompt the indices of its tokens.

    >>> grow_tree([(7, 8, 9), (7, 8, 5)])
    ([7, 8, 9, 5], [[0, 1, 2], [0, 1, 3]])
    """
    places: dict[tuple[int, int], int] = {}  # index by (parent index, token)
    paths = []
    for prompt in prompts:
        path = [-1]
        for token in prompt:
            path.append(places.setdefault((path[-1], token), len(places)))
        paths.append(path[1:])
    return [token for _, token in places], paths


def takes_packs(llm: LLM, max_tokens: int) -> bool:
    """Test whether a model gives the same vectors for packed prompts as for single prompts.

    Some causal LMs do not: recurrent models carry state from one prompt to the next, sliding windows
    cut off the prefix, flash attention has no custom masks, and some models accept no positions.

    Args:
        llm: The model.
        max_tokens: Length of the longest prompt.
    """
    config = llm.model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if config._attn_implementation not in ("sdpa", "eager") or (window or max_tokens) < max_tokens:  # noqa: SLF001
        return False
    return _reads_equally(llm, packed=True)


def _reads_equally(llm: LLM, packed: bool) -> bool:
    """Test whether prompts after a cached prefix, packed or one a row, get the vectors of whole single prompts."""

    def forward(ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:  # noqa: ANN401
        return llm.body(ids, **inputs).last_hidden_state[rows, columns].float()

    try:
        rests = [prompt[1:] for prompt in PROBE]
        rows = [rests[:2], rests[2:]] if packed else [[rest] for rest in rests]
        cache = _read_cache(llm, PROBE[0][:1])
        found = torch.cat(run_rows(llm, forward, rows, packed=packed, n_before=1, cache=cache))
        single = torch.cat(run_rows(llm, forward, [[prompt] for prompt in PROBE], packed=False))
    except Exception as error:  # noqa: BLE001  models fail differently on unknown inputs
        what = "packed prompts" if packed else "a cached beginning of its prompts"
        logger.info("%s does not support %s (%s)", llm.name, what, type(error).__name__)
        return False
    tolerance = 1e-3 if llm.model.dtype == torch.float32 else 5e-2
    return bool(((found - single).norm(dim=1) < tolerance * single.norm(dim=1)).all())


@torch.inference_mode()
def _read_cache(llm: LLM, beginning: Tokens) -> Any:  # noqa: ANN401  of transformers
    ids = torch.tensor([beginning], device=llm.device)
    return llm.body(ids, use_cache=True).past_key_values


def _count_common(one: Tokens, other: Tokens) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
