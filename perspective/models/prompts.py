"""Prompts of embedders: prefixes of each text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from perspective.artifacts import ROOT, read_json, read_record
from perspective.artifacts.names import slugify_model, source_dataset
from perspective.errors import DataError, suggest_name
from perspective.models.decoders import write_instruction
from perspective.models.registry import EMBEDDERS
from perspective.options import PromptOptions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PROMPTS = ROOT / "perspective" / "2_finetune" / "prompts.json"
PROMPT_NAME = "clustering"  # key of the embedder's default prefix


def set_prompt(model: SentenceTransformer, prompt: str) -> None:
    """Set the prefix of every text that the model encodes; it is saved with the model."""
    model.prompts[PROMPT_NAME] = prompt
    model.default_prompt_name = PROMPT_NAME


def get_prompt(model: SentenceTransformer) -> str:
    """Return the prefix that the model puts before every text."""
    return model.prompts.get(model.default_prompt_name) or "" if model.default_prompt_name else ""


def choose_instruction(embedder: str, dataset: str, instructed: bool) -> str:
    """Return the instruction to prepend to each text in training.

    Only embedders trained with instructions benefit from one: `instructed` uses the data set's
    instruction from `prompts.json`. E5 keeps its plain prefix, as in the published conversion. GTE and
    MiniLM get no instruction; GTE's own prefix is added whenever it encodes, including training.

    Raises:
        DataError: The data set has no instruction.
    """
    if instructed:
        return read_prompt(PROMPTS, dataset)
    return EMBEDDERS["e5"].prompt if embedder == "e5" else ""


def read_prompt(path: Path, dataset: str) -> str:
    """Return a data set's prompt from a `prompts.json`.

    Raises:
        DataError: The data set has no prompt.
    """
    prompts, dataset = read_json(path), source_dataset(dataset)
    if dataset not in prompts:
        raise DataError(
            f'{path}: no prompt for "{dataset}": {suggest_name(dataset, prompts)}; add one line for your data'
        )
    return str(prompts[dataset])


def choose_prompts(options: PromptOptions) -> tuple[str | None, str | None]:
    """Return the prefixes of queries and documents that the user gives; None for the model's own.

    Raises:
        DataError: The query's prefix is given twice.
    """
    if options.task is None:
        return options.query_prompt, options.document_prompt
    if options.query_prompt is not None:
        raise DataError(f'--task "{options.task}": --query_prompt is given too; leave one out')
    return write_instruction(options.task), options.document_prompt or ""


# As in jina-embeddings-v3, stella and e5-mistral.
QUERY_NAMES = ("query", "retrieval.query", "s2p_query", "web_search_query")
DOCUMENT_NAMES = ("document", "passage", "corpus", "retrieval.passage")


def find_prompts(
    model: SentenceTransformer, name: str, query_prompt: str | None = None, document_prompt: str | None = None
) -> tuple[str, str]:
    """Return the prefixes of queries and documents.

    In order of priority: the options; the prompts that our retriever was trained with; the model's
    prompts by the names that models give them; the prompts of E5 and nomic-embed-text, which do not store them, by
    the model's name; the model's default prompt, except for short names, whose prompt is for clustering.
    """
    stored = model.prompts
    query = next((stored[one] for one in QUERY_NAMES if stored.get(one)), None)
    document = next((stored[one] for one in DOCUMENT_NAMES if stored.get(one)), None)
    # All models have empty prompts; the sidecar shows whether a retriever was trained with them.
    trained = read_record(Path(name).resolve()).prompts
    if trained:
        query, document = trained
    elif not query and not document:
        slug = slugify_model(name)
        # e5, multilingual-e5-large, KoE5; e5-mistral and those with "instruct" take instructions.
        is_e5 = re.search(r"(?<![a-z])(ko)?e5(?!\d)", slug) and not re.search("instruct|mistral", slug)
        default = "" if name in EMBEDDERS else get_prompt(model)
        query, document = ("query: ", "passage: ") if is_e5 else (default, default)
        if "nomic-embed-text" in slug:
            query, document = "search_query: ", "search_document: "
    query_prompt = (query or "") if query_prompt is None else query_prompt
    return query_prompt, (document or "") if document_prompt is None else document_prompt


def set_retrieval_prompts(
    model: SentenceTransformer, embedder: str, query_prompt: str | None = None, document_prompt: str | None = None
) -> tuple[str, str]:
    """Set the prefixes of queries and documents in the model, chosen by `find_prompts`.

    Args:
        model: Its prompts are changed in place and saved with it.
        embedder: Its name, hub id or folder, which identifies E5 models.
        query_prompt: The user's prefix; empty for no prefix, None for the model's own.
        document_prompt: The same for documents.

    Returns:
        The two prompts.
    """
    prompts = find_prompts(model, embedder, query_prompt, document_prompt)
    model.prompts["query"], model.prompts["document"] = prompts
    if not any(prompts):
        model.default_prompt_name = None  # otherwise it would replace empty prompts
    return prompts
