"""Settings of a retrieval evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perspective.errors import DataError
from perspective.models.registry import find_local


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and how."""

    embedder: str = field(
        default="minilm",
        metadata={"help": "gte, e5, minilm, a sentence-transformers id, or a folder", "aliases": ["--embed_method"]},
    )
    retriever: str = field(
        default="dense",
        metadata={
            "help": "dense, bm25, or hybrid of both by reciprocal rank",
            "choices": ["dense", "bm25", "hybrid"],
        },
    )
    reranker: str | None = field(default=None, metadata={"help": "a CrossEncoder that orders the first hits anew"})
    n_reranked: int = field(default=50, metadata={"help": "hits of a query that the reranker reads"})
    cutoffs: list[int] = field(default_factory=lambda: [1, 3, 5, 10], metadata={"help": "the k of the metrics"})
    query_prompt: str | None = field(
        default=None, metadata={"help": "put before a query; default the model's own, or E5's for an E5"}
    )
    document_prompt: str | None = field(default=None, metadata={"help": "put before a document; likewise"})
    batch_size: int | None = field(
        default=None, metadata={"help": "texts encoded at a time; left out, 64 on a CPU, by its memory on a GPU"}
    )
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of the embedder on the hub"})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "run code from the embedder's repository; only where you trust it"}
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot.

        Raises:
            DataError: A number is too small, or the reranker reads fewer hits than are scored.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise DataError(f"--batch_size {self.batch_size}: must be at least 1")
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise DataError(f"--cutoffs {self.cutoffs}: each must be at least 1")
        if self.reranker and self.n_reranked < max(self.cutoffs):
            raise DataError(f"--n_reranked {self.n_reranked}: must reach the largest cutoff, {max(self.cutoffs)}")

    @property
    def uses_embedder(self) -> bool:
        """Whether anything is embedded: plain BM25 needs no model."""
        return self.retriever != "bm25"

    @property
    def kind(self) -> str:
        """The retriever as results name it: with "+rerank" where a reranker follows."""
        return self.retriever + ("+rerank" if self.reranker else "")

    @property
    def model(self) -> str:
        """The embedder as results name it; "bm25" where there is none."""
        return self.embedder if self.uses_embedder else "bm25"

    def inputs(self) -> dict[str, Path]:
        """Return the models that lie here: their content decides the result."""
        return find_local(embedder=self.embedder if self.uses_embedder else None, reranker=self.reranker)

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change a result."""
        names = ["retriever", "cutoffs"]
        names += ["embedder", "query_prompt", "document_prompt", "revision"] if self.uses_embedder else []
        names += ["reranker", "n_reranked"] if self.reranker else []
        return {name: getattr(self, name) for name in names}
