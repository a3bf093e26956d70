"""Load retrieval tasks of mteb as collections."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perspective.data.collection import QRELS_PLACES, Collection, keep_answerable, load_collection
from perspective.data.corpus import DATASETS
from perspective.errors import DataError, suggest_name

logger = logging.getLogger(__name__)

# The three sets of the published Korean comparison, with their Korean subsets.
KOREAN = {"Ko-StrategyQA": "default", "AutoRAGRetrieval": "default", "PublicHealthQA": "korean"}


def load_task(name: str, known: Sequence[str] = ()) -> Collection:
    """Load a text retrieval task of mteb: "NFCorpus", or "MIRACLRetrieval:ko" for one of its subsets.

    As in mteb, title and text are joined by a space, and empty documents are kept.

    Args:
        name: Name of the task, with its subset if it has several.
        known: Names of other collections, for suggestions.

    Raises:
        DataError: mteb is not installed, has no such task or cannot reach the data, or the task is not
            text retrieval.
    """
    task_name, _, subset = name.partition(":")
    if importlib.util.find_spec("mteb") is None:
        raise DataError(
            f'no collection "{name}" in datasets/ ({", ".join(known) or "none there"}); '
            f"for the tasks of mteb run: pip install -r {REQUIREMENTS}"
        )
    import mteb

    try:
        task = mteb.get_task(task_name)
    except KeyError:
        names = [*known, *KOREAN, *(task.metadata.name for task in mteb.get_tasks(task_types=["Retrieval"]))]
        near = suggest_name(task_name, names)
        hint = near if near.startswith("did") else "give a folder, a name in datasets/, or a retrieval task of mteb"
        raise DataError(f'unknown collection "{name}": {hint}') from None
    if task.metadata.type != "Retrieval" or task.metadata.modalities != ["text"]:
        raise DataError(f"{task_name}: a task of type {task.metadata.type}; only text retrieval is supported")
    subsets = list(task.hf_subsets)
    subset = subset or KOREAN.get(task_name) or (subsets[0] if len(subsets) == 1 else "")
    if subset not in subsets:
        raise DataError(f"{task_name}: give one of its subsets as {task_name}:SUBSET ({', '.join(subsets)})")
    return _read_task(mteb.get_task(task_name, hf_subsets=[subset]), subset)


def _read_task(task: Any, subset: str) -> Collection:  # noqa: ANN401  a mteb.AbsTask
    metadata = task.metadata
    split = "test" if "test" in task.eval_splits else task.eval_splits[0]
    try:
        task.load_data()
    except (OSError, RuntimeError) as error:  # ConnectionError and hub errors are OSErrors
        raise DataError(
            f"{metadata.name}: the hub cannot be reached ({' '.join(str(error).split())[:160]}); download "
            f"{metadata.dataset['path']} elsewhere and give a folder in the BEIR layout"
        ) from None
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    data = task.dataset[subset][split]
    if data.get("top_ranked") is not None:
        raise DataError(f"{metadata.name}: reranks a given list per query; only search in a corpus is supported")
    corpus = {str(row["id"]): f"{row.get('title') or ''} {row['text'] or ''}".strip() for row in data["corpus"]}
    n_empty = sum(not text for text in corpus.values())
    if n_empty:
        logger.warning(
            "%s: %d of %d documents are empty (kept, as mteb does, and never found)",
            metadata.name,
            n_empty,
            len(corpus),
        )
    is_whole = subset == KOREAN.get(metadata.name, "default")
    languages = metadata.hf_subsets_to_langscripts[subset]
    return keep_answerable(
        Collection(
            name=metadata.name if is_whole else f"{metadata.name}-{subset}",
            corpus=corpus,
            queries={str(row["id"]): row["text"] for row in data["queries"]},
            qrels={str(key): dict(grades) for key, grades in data["relevant_docs"].items()},
            origin=f"{metadata.dataset['path']}@{metadata.dataset['revision']}",
            revision=metadata.dataset["revision"],
            split=split,
            subset=subset,
            languages=tuple(languages),
            skip_same_id=task.ignore_identical_ids,
        )
    )


REQUIREMENTS = "requirements-retrieval.txt"


def find_collection(name: str) -> Collection:
    """Load a collection by folder, by name in datasets/, or as a retrieval task of mteb.

    Raises:
        DataError: No collection of that name, invalid files, or mteb cannot load it.
    """
    for folder in (Path(name), DATASETS / name):
        if any((folder / place).is_file() for place in QRELS_PLACES):
            return load_collection(folder)
    if Path(name).is_dir():
        raise DataError(f"{name}: holds no {' or '.join(QRELS_PLACES)}; a collection has the BEIR layout")
    return load_task(name, known=[path.parent.name for path in DATASETS.glob("*/qrels.tsv")])
