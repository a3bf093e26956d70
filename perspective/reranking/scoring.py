"""Write a reranker's scores of training pairs, which a retriever or another reranker learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from perspective.artifacts import Output, keep_block
from perspective.data.pairs import Pair, save_pairs
from perspective.errors import DataError
from perspective.reranking.loading import Reranker, score_texts

PAIRS_AT_A_TIME = 64  # scored between two saves: half a minute with seven negatives and a small model on a CPU


def score_pairs(
    pairs: Sequence[Pair], load: Callable[[], Reranker], output: Output, batch_size: int | None = None
) -> None:
    """Write pairs with a reranker's logits for the document and each hard negative.

    Scores are saved in blocks in `<file>.partial/`; a killed run resumes from them.

    Args:
        pairs: Training pairs; scores that they have are replaced.
        load: Loads the reranker; called if a block is left to score.
        output: The file to write.
        batch_size: Texts at a time; chosen by the device when None.

    Raises:
        DataError: No pair has a hard negative.
        ModelError: The reranker cannot be loaded, or gives something else than one number a text.
    """
    if not any(pair.hard_negatives for pair in pairs):
        raise DataError("no pair has a hard negative: a ranking needs several documents; run mine_negatives first")
    folder = output.open_partial()
    reranker: list[Reranker] = []
    scored = []
    for start in range(0, len(pairs), PAIRS_AT_A_TIME):
        block = pairs[start : start + PAIRS_AT_A_TIME]
        texts = [(pair.query, text) for pair in block for text in (pair.document, *pair.hard_negatives)]

        def score(texts: list[tuple[str, str]] = texts) -> np.ndarray:
            if not reranker:
                reranker.append(load())
            return score_texts(reranker[0], texts, batch_size)[:, None]

        scores = iter(keep_block(folder / f"{start:09d}.npy", len(texts), score)[:, 0].tolist())
        scored += [
            replace(pair, scores=tuple(next(scores) for _ in range(1 + len(pair.hard_negatives)))) for pair in block
        ]
    output.facts["top_is_document"] = round(float(np.mean([pair.scores[0] == max(pair.scores) for pair in scored])), 4)
    save_pairs(output, scored)
    output.discard_partial()
