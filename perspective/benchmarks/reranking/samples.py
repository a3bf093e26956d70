"""Samples of the docstrings for the study of rerankers, the same in every run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perspective.benchmarks.decoders.measuring import SAMPLE_SEED
from perspective.data.corpus import DATASETS
from perspective.data.docstrings import NAME
from perspective.data.pairs import Pair, load_pairs

N_RERANKER, N_STUDENT, N_NOISY = 1024, 256, 512  # pairs to train the reranker, the retrievers, and for the filter
N_NEGATIVES = 3


def sample_pairs() -> list[Pair]:
    """Return all training pairs in a random order, of which the studies take parts."""
    pairs = load_pairs(DATASETS / NAME / "train.jsonl")
    return [pairs[row] for row in np.random.default_rng(SAMPLE_SEED).permutation(len(pairs))]


def keep_negatives(pairs: list[Pair]) -> list[Pair]:
    """Return the pairs that the retrievers learn from, each with its first hard negatives."""
    with_all = [pair for pair in pairs if len(pair.hard_negatives) >= N_NEGATIVES]
    return [replace(pair, hard_negatives=pair.hard_negatives[:N_NEGATIVES]) for pair in with_all[:N_STUDENT]]


def draw_negatives(pairs: list[Pair]) -> list[Pair]:
    """Return the same pairs with other pairs' documents as negatives, drawn at random."""
    rng = np.random.default_rng(SAMPLE_SEED)
    drawn = []
    for pair in keep_negatives(pairs):
        others = [pairs[row].document for row in rng.choice(len(pairs), N_NEGATIVES + 1, replace=False)]
        negatives = [text for text in others if text != pair.document][:N_NEGATIVES]
        drawn.append(replace(pair, hard_negatives=tuple(negatives)))
    return drawn


def shuffle_scores(pairs: list[Pair]) -> list[Pair]:
    """Return the pairs with each group's scores in another order."""
    rng = np.random.default_rng(SAMPLE_SEED)
    return [replace(pair, scores=tuple(rng.permutation(pair.scores).tolist())) for pair in pairs]


def corrupt_half() -> tuple[list[Pair], np.ndarray]:
    """Return pairs of which half have the document of another, and which ones are clean."""
    pairs = sample_pairs()[N_RERANKER : N_RERANKER + N_NOISY]
    rng = np.random.default_rng(SAMPLE_SEED)
    wrong = rng.permutation(len(pairs))[: len(pairs) // 2]
    is_clean = np.ones(len(pairs), dtype=bool)
    is_clean[wrong] = False
    moved = dict(zip(wrong.tolist(), np.roll(wrong, 1).tolist(), strict=True))
    return [replace(pair, document=pairs[moved.get(row, row)].document) for row, pair in enumerate(pairs)], is_clean
