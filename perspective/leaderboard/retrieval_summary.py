"""Collect the retrieval results shown in docs/retrieval.md into small JSON files.

Reads:  measures/retrieval/docstrings_*.json, from the commands in `RUNS`, and gnome-help-*.json of
        `HELP_RUNS`; what was not measured here is left as it is
Writes: measures/retrieval_docstrings.json, measures/retrieval_help.json

python -m perspective.leaderboard.retrieval_summary
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perspective.artifacts import dump_json, read_facts, read_json, sidecar_path, write_text
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import QRELS_PLACES
from perspective.data.corpus import DATASETS
from perspective.errors import DataError
from perspective.leaderboard.measured import RETRIEVAL
from perspective.leaderboard.pages.reranking_tables import HELP_PAGES
from perspective.retrieval.layout import RESULTS, checkpoint_path
from perspective.retrieval.results import compare_results, load_result

SCRIPTS = "bash perspective/6_retrieval/scripts"
CHECKPOINTS = "perspective/6_retrieval/checkpoints"
SHOWN = ("NDCG@1", "NDCG@10")
# Rows of the table: name, result file, command.
RUNS = (
    ("BM25", "docstrings_bm25", f"{SCRIPTS}/run.sh"),
    ("MiniLM", "docstrings_minilm", f"{SCRIPTS}/run.sh"),
    ("MiniLM and BM25, hybrid", "docstrings_minilm-bm25-hybrid", f"{SCRIPTS}/evaluate.sh --retriever hybrid"),
    (
        "MiniLM trained without hard negatives",
        "docstrings_docstrings_minilm-nonegatives",
        f"{SCRIPTS}/finetune.sh --num_negatives 0 --variant nonegatives --max_pairs 1024 --max_source_length 128; "
        f"EMBEDDER={CHECKPOINTS}/docstrings_minilm-nonegatives {SCRIPTS}/evaluate.sh",
    ),
    ("MiniLM trained with a mined hard negative each", "docstrings_docstrings_minilm", f"{SCRIPTS}/run.sh"),
)
# Paired differences: key, result, result to subtract.
PAIRS = (
    ("training", "docstrings_docstrings_minilm", "docstrings_minilm"),
    ("hard_negatives", "docstrings_docstrings_minilm", "docstrings_docstrings_minilm-nonegatives"),
    ("hybrid", "docstrings_minilm-bm25-hybrid", "docstrings_minilm"),
)

HELP_SETS = ("gnome-help-ko", "gnome-help-en", "gnome-help-ko-en")
E5 = "EMBEDDER=intfloat/multilingual-e5-small "
E5_OPTIONS = '--query_prompt "query: " --document_prompt "passage: "'
# Rows of the help pages: name, end of the result's file name, embedder, options of evaluate.sh. The embedder is me5, a
# folder, or the hub's multilingual-e5-small.
HELP_RUNS = (
    ("BM25", "bm25", "", "--retriever bm25"),
    ("multilingual-e5-small", "me5", E5, E5_OPTIONS),
    ("both, hybrid", "me5-bm25-hybrid", E5, f"--retriever hybrid {E5_OPTIONS}"),
)


def summarize_help_pages() -> dict[str, Any]:
    """Return NDCG@10 of each retriever on each collection of help pages, and the packages that they come from.

    Raises:
        DataError: There is no result of BM25, or one is of another version of its collection.
    """
    rows = []
    of_bm25 = {collection: load_result(RESULTS / f"{collection}_bm25.json") for collection in HELP_SETS}
    for shown, name, embedder, options in HELP_RUNS:
        for collection, first in of_bm25.items():
            ends = (name, name.replace("me5", "multilingual-e5-small"))
            paths = [path for end in ends if (path := RESULTS / f"{collection}_{end}.json").exists()]
            for path in paths[:1]:
                result = load_result(path)
                _check_collection(path, result, first)
                found = {"score": result["scores"]["NDCG@10"], "interval": result["interval"]["NDCG@10"]}
                command = f"COLLECTION={collection} {embedder}{SCRIPTS}/evaluate.sh {options}"
                rows.append({"retriever": shown, "collection": collection, "command": command, **found})
    first = of_bm25[HELP_SETS[0]]
    packages = read_facts(DATASETS / HELP_SETS[0] / QRELS_PLACES[0]).get("packages")
    return {"n_queries": first["n_queries"], "n_documents": first["n_documents"], "packages": packages, "rows": rows}


def _check_collection(path: Path, result: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    if result["fingerprint"] != first["fingerprint"]:
        raise DataError(f"{path}: of other texts than BM25's result of this collection; evaluate both again")


def summarize_results() -> dict[str, Any]:
    """Return the rows and paired differences of the page, and the machine and versions used.

    Raises:
        DataError: A result is missing, or of another version of the collection.
    """
    results = {name: load_result(RESULTS / f"{name}.json") for _, name, _ in RUNS}
    first = results[RUNS[0][1]]
    for name, result in results.items():
        _check_collection(RESULTS / f"{name}.json", result, first)
    sidecar = read_json(sidecar_path(RESULTS / f"{RUNS[0][1]}.json"))
    trained = read_facts(checkpoint_path("docstrings", "minilm"))
    rows = [
        {
            "retriever": shown,
            "command": command,
            "scores": {metric: results[name]["scores"][metric] for metric in SHOWN},
            "interval": {metric: results[name]["interval"][metric] for metric in SHOWN},
        }
        for shown, name, command in RUNS
    ]
    differences = []
    for key, one, other in PAIRS:
        found = compare_results(results[one], results[other])
        differences.append(
            {"key": key, "metric": found.metric, "mean": found.mean, "interval": list(found.interval), "p": found.p}
        )
    return {
        "collection": first["collection"],
        "fingerprint": first["fingerprint"],
        "n_queries": first["n_queries"],
        "n_documents": first["n_documents"],
        "rows": rows,
        "differences": differences,
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "training_dtype": trained.get("training_dtype"),
            "versions": sidecar["versions"],
        },
    }


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Gather."""
    parse_settings((), argv, __doc__)
    if (RESULTS / f"{RUNS[0][1]}.json").exists():
        write_text(RETRIEVAL, dump_json(summarize_results()))
    if (RESULTS / f"{HELP_SETS[0]}_bm25.json").exists():
        write_text(HELP_PAGES, dump_json(summarize_help_pages()))


if __name__ == "__main__":
    main()
