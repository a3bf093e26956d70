"""Read what names are made from, and write them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from perspective.artifacts import Output, read_vectors
from perspective.description.edits import load_edits
from perspective.description.files import check_embeddings, find_embeddings, read_clustering, read_rows
from perspective.description.records import Name, Names
from perspective.errors import DataError, JudgeError
from perspective.layout import ClusterFiles
from perspective.llm.replies import ReplyLog
from perspective.llm.server.settings import ServerSettings
from perspective.models.embedding import EmbedSettings, load_embedding
from perspective.models.registry import describe_model
from perspective.naming.llm import LocalNamer, NamingLLM, ServerNamer
from perspective.naming.naming import AskLLM, Embed, name_clusters
from perspective.naming.prompts import Ask
from perspective.options import LLMOptions

logger = logging.getLogger(__name__)

NO_LLM = "none"  # names by keywords alone


def write_names(
    output: Output,
    files: ClusterFiles,
    checkpoint: str,
    perspective: str,
    llm_name: str,
    llm: LLMOptions,
    server: ServerSettings,
    embedding: EmbedSettings,
    or_keywords: bool = False,
) -> None:
    """Name the clusters and write the names.

    Args:
        output: The file of names, with the record of the LLM.
        files: The clusters.
        checkpoint: Embedder of the clustered vectors.
        perspective: What texts of one cluster share.
        llm_name: The LLM that names; `NO_LLM` for keywords alone.
        llm: How a local LLM is loaded.
        server: Settings of the server, if there is one.
        embedding: How the embedder is loaded.
        or_keywords: Whether keywords stand in when the server fails; what it did not answer stays open.

    Raises:
        DataError: The embedder does not fit the vectors.
        JudgeError: The server fails, and keywords shall not stand in.
    """
    clustering = read_clustering(files)
    check_embeddings(files)
    texts, clusters = list(clustering.texts), clustering.assignment.cluster
    vectors = read_vectors(find_embeddings(files), len(texts))
    embed = _load_embed(checkpoint, embedding, vectors.shape[1])
    if files.added.exists():  # examples of clusters that were added later; their vectors are not kept
        added, assignment = read_rows(files.added)
        texts += added
        clusters = np.concatenate([clusters, assignment.cluster])
        vectors = np.vstack([vectors, embed(added)]) if added else vectors
    facts = output.facts
    ask: AskLLM | None = None
    is_chat = False
    if llm_name != NO_LLM:
        namer = _load_namer(llm_name, perspective, llm, server)
        identity = {**(output.record.judge.asked if output.record.judge else {}), **namer.identity}
        log = ReplyLog(output.path.with_name(f"{output.path.name}.replies.jsonl"), identity, namer.facts, "naming")
        facts, is_chat = namer.facts, namer.is_chat

        has_failed = False

        def ask(asks: Sequence[Ask]) -> Sequence[str | None]:
            nonlocal has_failed
            if not has_failed:
                try:
                    return log.ask(namer, asks)
                except JudgeError as error:
                    if not or_keywords:
                        raise
                    has_failed = True
                    logger.warning("%s. Until then, keywords stand in for the names that are open", error)
            replies = log.find(namer, asks)
            facts["n_unanswered"] += replies.count("")
            return replies

    names = name_clusters(
        *(clustering.record, texts, clusters, vectors, embed, ask), is_chat, load_edits(files.edits).rename
    )
    if output.record.judge:
        output.record.judge = output.record.judge.model_copy(update={"figures": dict(facts)})
    n_leaves = len(clustering.record.clusters)
    output.facts |= summarize(names[:n_leaves])
    _report(names[:n_leaves], output)
    output.write_json(Names(perspective=perspective, llm=llm_name, names=names).model_dump())


def summarize(names: Sequence[Name]) -> dict[str, float | int]:
    """Return how many names are from whom, and how often a text is nearer to its name than another text is."""
    n_checked = sum(name.n_checked for name in names)
    return {
        **{f"n_{source}": sum(name.source == source for name in names) for source in ("llm", "keywords", "edit")},
        "n_to_merge": sum(bool(name.merge_with) for name in names),
        "share_nearest": round(sum(name.n_nearest for name in names) / n_checked, 4) if n_checked else 0.0,
    }


def _report(names: Sequence[Name], output: Output) -> None:
    if not names:
        return
    logger.info(
        "%d clusters named: %d by the LLM, %d by keywords, %d by a person",
        len(names),
        *(output.facts[f"n_{source}"] for source in ("llm", "keywords", "edit")),
    )
    if any(name.n_checked for name in names):  # a single cluster is compared with no other
        share = 100 * output.facts["share_nearest"]
        logger.info(
            "a text is nearer to its cluster's name than a text of another cluster in %.0f%% of the checks", share
        )
    for name in names:
        if name.merge_with and name.id < min(name.merge_with):
            logger.info('clusters %s are all called "%s"; merge them?', [name.id, *name.merge_with], name.name)


def _load_namer(name: str, perspective: str, llm: LLMOptions, server: ServerSettings) -> NamingLLM:
    if server.base_url:
        return ServerNamer(server, name, perspective)
    from perspective.llm.loading import load_llm

    namer = LocalNamer(load_llm(name, **llm.loading()), perspective)
    namer.facts |= describe_model(name)
    return namer


def _load_embed(checkpoint: str, settings: EmbedSettings, dim: int) -> Embed:
    model = load_embedding(checkpoint, settings, None).model

    def embed(texts: Sequence[str]) -> np.ndarray:
        found = np.asarray(
            model.encode(list(texts), batch_size=settings.batch_size or 64, show_progress_bar=False), dtype=np.float32
        )
        if found.shape[1] != dim:
            raise DataError(
                f"{checkpoint}: gives {found.shape[1]} numbers a text, the clustered vectors have {dim}; name their "
                "embedder with --checkpoint"
            )
        return found

    return embed
