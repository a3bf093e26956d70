"""Evaluate an embedder, BM25, both, or a way of M3 on a retrieval collection, and compare with another result.

Reads:  a collection: a folder in the BEIR layout, a name in datasets/, or a retrieval task of mteb
        (Ko-StrategyQA, AutoRAGRetrieval, PublicHealthQA, ...; a subset as TASK:SUBSET)
Writes: measures/retrieval/<collection>_<model>[-<retriever>][-rerank-<reranker>].json, and the same in mteb's own
        format in measures/retrieval/mteb/; embeddings in vectors/, those of M3's ways in indexes/

python -m perspective.6_retrieval.evaluate --collection docstrings --embedder minilm
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perspective.artifacts import Output, dump_json, write_text
from perspective.cli import entry_point, parse_settings
from perspective.data.mteb_tasks import find_collection
from perspective.models.registry import describe_model
from perspective.options import OutputOptions, option
from perspective.retrieval.layout import mteb_path, results_path
from perspective.retrieval.results import compare_results, format_scores, format_task_result, load_result
from perspective.retrieval.settings import EvaluationSettings
from perspective.runtime.devices import reading_precision


@dataclass(frozen=True)
class CollectionSettings:
    """The collection, and the result to compare with."""

    collection: str = option("a folder, a name in datasets/, or a retrieval task of mteb", group="input")
    compare: str | None = option("another result file, compared query by query", default=None)
    metric: str = option("metric of the comparison: NDCG or F1 at a cutoff", default="NDCG@10")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, then compare."""
    kinds = (CollectionSettings, EvaluationSettings, OutputOptions)
    files, settings, out = parse_settings(kinds, argv, __doc__)
    other = load_result(Path(files.compare)) if files.compare else None
    collection = find_collection(files.collection)
    path = results_path(collection.name, settings.model, settings.kind, out.folder)
    made_from = {**settings.made_from(), "collection": collection.fingerprint}
    if not all(collection.corpus.values()):
        made_from["empty_documents"] = "never found"  # earlier versions found those of mteb
    precision = reading_precision() if settings.uses_heads or settings.reranker else None
    output = Output(path, "retrieval result", made_from, settings.inputs(), precision=precision)
    if not output.is_finished(out.overwrite):
        started = time.perf_counter()
        from perspective.retrieval.evaluation import evaluate_retriever

        search = None
        if settings.uses_heads:
            from perspective.hybrid.evaluation import search_ways

            search = partial(search_ways, overwrite=out.overwrite)
        result = evaluate_retriever(collection, settings, search)
        task_result = format_task_result(collection, result["scores"], time.perf_counter() - started)
        write_text(mteb_path(path), dump_json(task_result))
        output.facts |= {**describe_model(settings.model), "origin": collection.origin}
        output.write_json(result)
    result = load_result(path)
    sys.stdout.write(f"{format_scores(result)}\n")
    if other is not None:
        found = compare_results(result, other, files.metric)
        sys.stdout.write(
            f"{found.metric} against {Path(files.compare).stem}: {found.mean:+.2f} points, "
            f"95% interval {found.interval[0]:+.2f} to {found.interval[1]:+.2f}, p = {found.p:.4f}\n"
        )


if __name__ == "__main__":
    main()
