"""mteb: its retrieval tasks as collections, and results in its own format."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from perspective.data.collection import Collection, keep_answerable
from perspective.errors import DataError, suggest_name
from perspective.retrieval.search import REQUIREMENTS

logger = logging.getLogger(__name__)

# The three sets of the published Korean comparison; of several languages, the Korean part.
KOREAN = {"Ko-StrategyQA": "default", "AutoRAGRetrieval": "default", "PublicHealthQA": "korean"}


def load_task(name: str, known: Sequence[str] = ()) -> Collection:
    """Load a text retrieval task of mteb: "NFCorpus", or "MIRACLRetrieval:ko" for one of its subsets.

    As mteb does, title and text are joined by a space, and empty documents are kept.

    Args:
        name: Name of the task, with its subset where it has several.
        known: Other collections that the user may have meant.

    Raises:
        DataError: mteb is not installed, knows no such task, cannot reach the data, or the task is
            of another kind.
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
        raise DataError(f"{task_name}: a task of type {task.metadata.type}; only text retrieval is evaluated here")
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
    except (OSError, RuntimeError) as error:  # ConnectionError and the hub's own are OSErrors
        raise DataError(
            f"{metadata.name}: the hub cannot be reached ({' '.join(str(error).split())[:160]}); fetch "
            f"{metadata.dataset['path']} elsewhere and give a folder in the BEIR layout"
        ) from None
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    data = task.dataset[subset][split]
    if data.get("top_ranked") is not None:
        raise DataError(
            f"{metadata.name}: ranks a given list for each query; only search in a corpus is evaluated here"
        )
    corpus = {str(row["id"]): f"{row.get('title') or ''} {row['text'] or ''}".strip() for row in data["corpus"]}
    n_empty = sum(not text for text in corpus.values())
    if n_empty:
        logger.warning("%s: %d of %d documents are empty (kept, as mteb does)", metadata.name, n_empty, len(corpus))
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


def format_task_result(collection: Collection, scores: Mapping[str, float], seconds: float) -> dict[str, Any]:
    """Return an evaluation as mteb writes it (`mteb.TaskResult`), values from 0 to 1.

    Args:
        collection: What was evaluated on.
        scores: Percent, by names such as "NDCG@10".
        seconds: That it took.
    """
    version = importlib.metadata.version("mteb") if collection.revision else None
    values = {_mteb_name(name): round(value / 100, 6) for name, value in scores.items()}
    deepest = max(int(name.split("@")[1]) for name in scores)
    main = values.get("ndcg_at_10", values[f"ndcg_at_{deepest}"])
    languages = list(collection.languages) or ["und-Zyyy"]  # ISO 639 and 15924 for: not known
    part = {**values, "main_score": main, "hf_subset": collection.subset, "languages": languages}
    return {
        "dataset_revision": collection.revision or collection.fingerprint[:40],
        "task_name": collection.name.removesuffix(f"-{collection.subset}"),
        "mteb_version": version,
        "scores": {collection.split: [{**part, "mteb_version": version}]},
        "evaluation_time": seconds,
        "kg_co2_emissions": None,
        "date": datetime.now(UTC).timestamp(),
    }


def _mteb_name(name: str) -> str:
    metric, k = name.split("@")
    return f"{metric.lower()}_at_{k}"
