"""Filter weak pairs and mine hard negatives, by the embedder's own ranking."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from perspective.data.pairs import Pair
from perspective.errors import DataError, require_least
from perspective.options import option
from perspective.retrieval.embedding import EmbeddedTexts

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

logger = logging.getLogger(__name__)

BLOCK_QUERIES = 1024  # ranked at a time: limits the size of the similarity matrix
SCORES_AT_A_TIME = 2**28  # the same limit for mining in a large corpus: 1 GiB


@dataclass(frozen=True)
class MineSettings:
    """How pairs are filtered and hard negatives are mined."""

    keep_top_k: int = option(
        "for weak pairs (2 in E5): keep a pair if its document is among this many nearest to its query in a "
        "random pool of documents; 0 keeps all, which suits clean pairs: those not found are worth learning",
        default=0,
    )
    pool_size: int = option("maximum number of documents in the pool", default=1_000_000)
    num_negatives: int = option("hard negatives a pair; 0 mines none", default=1)
    range_min: int = option("skip this many nearest documents, which may be relevant too", default=0)
    range_max: int | None = option("lowest rank of a hard negative; default as many ranks as are needed", default=None)
    absolute_margin: float | None = option(
        "a negative's similarity to the query is at least this much below the document's", default=None
    )
    relative_margin: float | None = option(
        "the same as a fraction of the document's similarity (0.05 in NV-Retriever)", default=0.05
    )
    reranker: str | None = option(
        "a CrossEncoder, id or folder, whose scores are used for the margins; default the embedder's scores",
        default=None,
        group="model",
    )
    seed: int = option("random seed of the pool", default=100)

    def __post_init__(self) -> None:
        """Check values."""
        require_least(self, keep_top_k=0, num_negatives=0, range_min=0, pool_size=1)
        if self.range_max is not None and self.range_max - self.range_min < self.num_negatives:
            raise DataError(
                f"--range_min {self.range_min} --range_max {self.range_max}: leave no room for "
                f"{self.num_negatives} negatives"
            )
        for name in ("absolute_margin", "relative_margin"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise DataError(f"--{name} {value}: must not be negative")
        if self.reranker and self.absolute_margin is None and self.relative_margin is None:
            raise DataError("--reranker: its scores are for the margins; set --absolute_margin or --relative_margin")

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change the pairs, for the fingerprint."""
        return asdict(self)


def filter_pairs(pairs: Sequence[Pair], embedded: EmbeddedTexts, settings: MineSettings) -> list[Pair]:
    """Keep the pairs whose document is among the nearest to its query in a random pool of documents.

    Consistency filtering of E5 (Wang et al., 2022, section 3.1): pairs that an embedder trained on
    noisy pairs does not find are considered noise. Other documents of the same query do not count against a pair.

    Args:
        pairs: Weak pairs.
        embedded: The vectors of their queries and documents, and of more documents for the pool.
        settings: `keep_top_k`, `pool_size` and the seed of the pool.
    """
    if not settings.keep_top_k:
        return list(pairs)
    documents = list(embedded.documents)
    rng = np.random.default_rng(settings.seed)
    pool_rows = np.sort(rng.permutation(len(documents))[: settings.pool_size])
    pool = np.stack([embedded.documents[documents[row]] for row in pool_rows])  # (n_pool, dim)
    place = {documents[row]: column for column, row in enumerate(pool_rows)}
    answers: dict[str, list[int]] = {}
    for pair in pairs:
        if pair.document in place:
            answers.setdefault(pair.query, []).append(place[pair.document])
    kept = []
    n_at_a_time = max(1, min(BLOCK_QUERIES, SCORES_AT_A_TIME // len(pool)))
    for start in tqdm(range(0, len(pairs), n_at_a_time), desc="ranking", unit="block"):
        block = pairs[start : start + n_at_a_time]
        queries = np.stack([embedded.queries[pair.query] for pair in block])
        documents_of_block = np.stack([embedded.documents[pair.document] for pair in block])
        scores = queries @ pool.T  # (n_block, n_pool)
        for row, pair in enumerate(block):
            scores[row, answers.get(pair.query, [])] = -np.inf
        n_nearer = (scores > (queries * documents_of_block).sum(axis=1, keepdims=True)).sum(axis=1)
        kept += [pair for pair, n in zip(block, n_nearer, strict=True) if n < settings.keep_top_k]
    logger.info(
        "%d of %d pairs kept: their document is among the top %d of %d; %d dropped",
        *(len(kept), len(pairs), settings.keep_top_k, len(pool_rows), len(pairs) - len(kept)),
    )
    return kept


def mine_negatives(
    pairs: Sequence[Pair],
    embedded: EmbeddedTexts,
    settings: MineSettings,
    reranker: CrossEncoder | None = None,
    dropped: Sequence[Pair] = (),
) -> list[Pair]:
    """Add to each pair the nearest documents that are not its query's as hard negatives.

    Uses `sentence_transformers.util.mine_hard_negatives`; the margins exclude documents so near that
    they are likely to be relevant: "NV-Retriever" (Moreira et al., 2024), section 4.2.

    Args:
        pairs: Hard negatives that a pair already has are kept, before the mined ones.
        embedded: The vectors of their queries and documents, and of more documents to choose from.
        settings: Number, ranks and margins.
        reranker: Scores query and document for the margins, instead of the embedder.
        dropped: Pairs that are not trained on, whose documents are no negatives of their queries either.

    Returns:
        The pairs in their order; some may have fewer negatives than `num_negatives`, or none.

    Raises:
        DataError: No hard negative was found at all.
    """
    if not settings.num_negatives or not pairs:
        return list(pairs)
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    distinct = list(dict.fromkeys((pair.query, pair.document) for pair in pairs))
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in distinct], "document": [text for _, text in distinct]}),
        embedded,
        corpus=list(embedded.documents),
        cross_encoder=reranker,
        range_min=settings.range_min,
        range_max=settings.range_max,
        absolute_margin=settings.absolute_margin,
        relative_margin=settings.relative_margin,
        num_negatives=settings.num_negatives,
        output_format="labeled-list",
        faiss_batch_size=max(1, SCORES_AT_A_TIME // len(embedded.documents)),  # used without faiss as well
        verbose=False,
    )
    found = {(row["query"], row["document"][0]): row["document"][1:] for row in mined}
    answers = {(pair.query, pair.document) for pair in dropped}
    result = []
    for pair in pairs:
        # A query that is also a document is its own nearest.
        new = [
            text
            for text in found.get((pair.query, pair.document), [])
            if text != pair.query and (pair.query, text) not in answers
        ]
        negatives = tuple(dict.fromkeys([*pair.hard_negatives, *new]))
        # A teacher's scores are of the earlier texts.
        scores = pair.scores if negatives == pair.hard_negatives else ()
        result.append(replace(pair, hard_negatives=negatives, scores=scores))
    n_with = sum(bool(pair.hard_negatives) for pair in result)
    if not n_with:
        raise DataError(
            "no hard negative was found; lower --relative_margin or --absolute_margin, or raise --range_max"
        )
    n_negatives = sum(len(pair.hard_negatives) for pair in result)
    logger.info("%d hard negatives; %d of %d pairs have some", n_negatives, n_with, len(result))
    return result
