"""Settings of a retrieval evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from perspective.artifacts.names import slugify_model
from perspective.errors import DataError
from perspective.models.embedding import BatchOptions
from perspective.models.registry import find_local
from perspective.options import EmbedderOptions, ModelOptions, PromptOptions, option

HYBRID_RETRIEVERS = ("sparse", "multi", "dense-sparse", "all")  # of an embedder with M3's heads


@dataclass(frozen=True)
class IndexSettings(EmbedderOptions, PromptOptions, ModelOptions, BatchOptions):
    """The embedder of an index."""

    repeat_cls: bool = option(
        "for long documents, with M3's heads on an embedder pooled at [CLS] (bge-m3): put a [CLS] before every 256 "
        "tokens; the dense vector is the mean of their states",
        default=False,
    )


@dataclass(frozen=True)
class EvaluationSettings(IndexSettings):
    """Retriever and metrics of an evaluation."""

    retriever: Literal["dense", "bm25", "hybrid", "sparse", "multi", "dense-sparse", "all"] = option(
        "hybrid fuses dense and bm25 by reciprocal rank; of an embedder with M3's heads (train_hybrid.sh, bge-m3): "
        "sparse (lexical weights), multi (token vectors, over the first 200 of dense), dense-sparse and all (sums)",
        default="dense",
    )
    reranker: str | None = option(
        "reranks the first hits: a folder of train_reranker, an id of a CrossEncoder, or a causal LM (smollm2), which "
        "is asked whether the document answers",
        default=None,
        group="model",
    )
    n_reranked: int = option("number of hits to rerank", default=50)
    cutoffs: list[int] = option("the k of the metrics", default=[1, 3, 5, 10])

    def __post_init__(self) -> None:
        """Check what argparse cannot.

        Raises:
            DataError: A number is too small, or fewer hits are reranked than scored.
        """
        super().__post_init__()
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise DataError(f"--cutoffs {self.cutoffs}: each must be at least 1")
        if self.repeat_cls and not self.uses_heads:
            raise DataError(f"--repeat_cls: of M3's ways, not of --retriever {self.retriever}")
        if self.reranker and self.n_reranked < max(self.cutoffs):
            raise DataError(f"--n_reranked {self.n_reranked}: must be at least the largest cutoff, {max(self.cutoffs)}")

    @property
    def uses_embedder(self) -> bool:
        """Whether an embedder is needed; plain BM25 needs none."""
        return self.retriever != "bm25"

    @property
    def uses_heads(self) -> bool:
        """Whether the embedder needs M3's heads."""
        return self.retriever in HYBRID_RETRIEVERS

    @property
    def kind(self) -> str:
        """Name of the retriever in results, followed by the reranker's as "+rerank-NAME"."""
        return self.retriever + (f"+rerank-{slugify_model(self.reranker)}" if self.reranker else "")

    @property
    def model(self) -> str:
        """Name of the embedder in results; "bm25" if there is none."""
        return self.embedder if self.uses_embedder else "bm25"

    def inputs(self) -> dict[str, Path]:
        """Return the models in local folders, whose content determines the result."""
        return find_local(embedder=self.embedder if self.uses_embedder else None, reranker=self.reranker)

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change a result."""
        names = ["retriever", "cutoffs"]
        names += ["embedder", "query_prompt", "document_prompt", "revision"] if self.uses_embedder else []
        names += ["repeat_cls"] if self.repeat_cls else []
        names += ["task"] if self.uses_embedder and self.task else []
        names += ["reranker", "n_reranked"] if self.reranker else []
        return {name: getattr(self, name) for name in names}
