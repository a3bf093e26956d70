"""Near-duplicate texts by the cosine of their word n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BLOCK_ROWS = 1000  # bounds the memory of the product


def find_similar(texts: Sequence[str], others: Sequence[str], n_words: int, threshold: float) -> Any:  # noqa: ANN401
    """Return a sparse matrix `(n_texts, n_others)` that is non-zero for near-duplicates.

    Args:
        texts: Texts.
        others: Texts to compare with.
        n_words: Length of the n-grams; longer ones also compare word order.
        threshold: Minimum cosine of the binary vectors of n-grams.
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        n_features=2**24,  # 10,000 documents have 600,000 n-grams, so collisions are rare
        binary=True,
        alternate_sign=False,
        token_pattern=r"\w+",
        ngram_range=(n_words, n_words),
        dtype=np.float32,
    )
    if not texts or not others:
        return sparse.csr_matrix((len(texts), len(others)), dtype=np.float32)
    ngrams, other_ngrams = vectorizer.transform(texts), vectorizer.transform(others)
    blocks = []
    for start in range(0, len(texts), BLOCK_ROWS):
        block = (ngrams[start : start + BLOCK_ROWS] @ other_ngrams.T).tocsr()
        block.data[block.data < threshold] = 0
        block.eliminate_zeros()
        blocks.append(block)
    return sparse.vstack(blocks, format="csr")


def keep_distinct(near: Any) -> np.ndarray:  # noqa: ANN401  a sparse matrix
    """Return which rows `(n,)` are kept if the first of each group of near-duplicates is.

    Args:
        near: Sparse `(n, n)` matrix of `find_similar`, of texts with themselves.
    """
    is_kept = np.zeros(near.shape[0], dtype=bool)
    for row in range(near.shape[0]):
        is_kept[row] = not is_kept[near.indices[near.indptr[row] : near.indptr[row + 1]]].any()
    return is_kept
