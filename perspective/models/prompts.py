"""Prompts of embedders: what is put before each text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from perspective.artifacts import ROOT, read_json, read_record
from perspective.errors import DataError, suggest_name
from perspective.layout import slugify_model
from perspective.models.registry import EMBEDDERS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PROMPTS = ROOT / "perspective" / "2_finetune" / "prompts.json"
PROMPT_NAME = "clustering"  # under which an embedder keeps the prefix that it is used with


def set_prompt(model: SentenceTransformer, prompt: str) -> None:
    """Make `prompt` stand before every text that the model encodes; saved with the model."""
    model.prompts[PROMPT_NAME] = prompt
    model.default_prompt_name = PROMPT_NAME


def get_prompt(model: SentenceTransformer) -> str:
    """Return what the model puts before every text."""
    return model.prompts.get(model.default_prompt_name) or "" if model.default_prompt_name else ""


def choose_instruction(embedder: str, dataset: str, instructed: bool) -> str:
    """Decide what stands before each text in training.

    Only an embedder trained with instructions gains from one: `instructed` takes the data set's
    from `prompts.json`. E5 keeps its plain prefix, as the published conversion writes it. GTE and
    MiniLM get nothing here; GTE's own prefix is put before every text when it encodes, in training
    too.

    Raises:
        DataError: The data set has no instruction.
    """
    if instructed:
        return read_prompt(PROMPTS, dataset)
    return EMBEDDERS["e5"].prompt if embedder == "e5" else ""


def read_prompt(path: Path, dataset: str) -> str:
    """Return a data set's sentence from a `prompts.json`.

    Raises:
        DataError: There is none.
    """
    prompts = read_json(path)
    if dataset not in prompts:
        raise DataError(
            f'{path}: no prompt for "{dataset}": {suggest_name(dataset, prompts)}; add one line for your data'
        )
    return str(prompts[dataset])


def find_prompts(
    model: SentenceTransformer, name: str, query_prompt: str | None = None, document_prompt: str | None = None
) -> tuple[str, str]:
    """Return what stands before a query and before a document.

    In this order: the options; those that a retriever of ours was trained with; the prompts "query"
    and "document" (or "passage") that the model carries; E5's own for a model with E5 in its name,
    unless it takes instructions; the model's default prompt, but not that of a short name, which is
    for clustering.
    """
    carried = model.prompts
    query = carried.get("query")
    document = carried.get("document") or carried.get("passage") or carried.get("corpus")
    # Every model carries empty prompts; the sidecar tells of a retriever that was trained with them.
    trained = read_record(Path(name).resolve()).prompts
    if trained:
        query, document = trained
    elif not query and not document:
        slug = slugify_model(name)
        # e5, multilingual-e5-large, KoE5; e5-mistral and those with "instruct" take instructions.
        is_e5 = re.search(r"(?<![a-z])(ko)?e5(?!\d)", slug) and not re.search("instruct|mistral", slug)
        default = "" if name in EMBEDDERS else get_prompt(model)
        query, document = ("query: ", "passage: ") if is_e5 else (default, default)
    given = query_prompt, document_prompt
    return tuple(own or "" if chosen is None else chosen for chosen, own in zip(given, (query, document), strict=True))  # type: ignore[return-value]


def set_retrieval_prompts(
    model: SentenceTransformer, embedder: str, query_prompt: str | None = None, document_prompt: str | None = None
) -> tuple[str, str]:
    """Decide what stands before queries and before documents, as evaluation does, and keep it in the model.

    Args:
        model: Its prompts are changed in place, and saved with it.
        embedder: Its name, hub id or folder, by which E5 is known.
        query_prompt: Given; may be empty for none. None for the model's own.
        document_prompt: Likewise.

    Returns:
        The two prompts.
    """
    prompts = find_prompts(model, embedder, query_prompt, document_prompt)
    model.prompts["query"], model.prompts["document"] = prompts
    if not any(prompts):
        model.default_prompt_name = None  # it would take the place of prompts that are empty
    return prompts
