"""Collect the retrieval results shown in docs/retrieval.md into one small JSON file.

Reads:  measures/retrieval/docstrings_*.json, from the commands in `RUNS`
Writes: measures/retrieval_docstrings.json

python -m perspective.leaderboard.retrieval_summary
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from perspective.artifacts import dump_json, read_facts, read_json, sidecar_path, write_text
from perspective.cli import entry_point, parse_settings
from perspective.leaderboard.measured import RETRIEVAL
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


def summarize_results() -> dict[str, Any]:
    """Return the rows and paired differences of the page, and the machine and versions used."""
    results = {name: load_result(RESULTS / f"{name}.json") for _, name, _ in RUNS}
    first = results[RUNS[0][1]]
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
            "training_dtype": trained["training_dtype"],
            "versions": sidecar["versions"],
        },
    }


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Gather."""
    parse_settings((), argv, __doc__)
    write_text(RETRIEVAL, dump_json(summarize_results()))


if __name__ == "__main__":
    main()
