"""Measure M3: each way of one body alone and together, trained with and without self-distillation.

Each cell is a file of its own, from which a killed study resumes; training calls the entry script of stage 6.

Reads:  datasets/docstrings/ (make_docs_set.sh), datasets/gnome-help-*/ and datasets/libreoffice-help-*/
        (make_help_set.sh)
Writes: measures/benchmark_hybrid/, pairs, models and cells; measures/benchmark_hybrid.json, all cells

python -m perspective.benchmarks.retrieval.hybrid --sets docstrings
python -m perspective.benchmarks.retrieval.hybrid --sets help --help_embedder intfloat/multilingual-e5-small
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import Output, dump_json, read_facts, read_json, write_text
from perspective.benchmarks.cells import measure_cell
from perspective.benchmarks.decoders.measuring import sample_collection
from perspective.benchmarks.stages import run_stage
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import Collection, load_collection
from perspective.data.corpus import DATASETS
from perspective.data.docstrings import NAME
from perspective.data.pairs import Pair, load_pairs, save_pairs
from perspective.errors import require_known
from perspective.hybrid.encoding import encode_texts
from perspective.hybrid.search import HYBRID_WAYS, search_hybrid
from perspective.layout import MEASURES
from perspective.models.embedders import load_embedder
from perspective.models.embedding import EncoderSide, embed_texts
from perspective.models.hybrid_files import load_hybrid
from perspective.models.prompts import set_retrieval_prompts
from perspective.options import option
from perspective.retrieval.embedding import embed_sides
from perspective.retrieval.evaluation import score_all
from perspective.retrieval.metrics import bootstrap_interval, resample_means
from perspective.retrieval.mining import MineSettings, mine_negatives
from perspective.retrieval.search import Hits, fuse_rankings, search_bm25, search_dense

logger = logging.getLogger(__name__)

FOLDER = MEASURES / "benchmark_hybrid"
RESULTS = FOLDER.with_suffix(".json")
METRIC = "NDCG@10"
PUBLISHED_METRICS = ("NDCG@1", "F1@1", "NDCG@3", "F1@3")  # of KoE5
DEPTH = 100
BASE_WAYS = ("bm25", "untouched", "untouched+bm25")
N_QUERIES, N_DOCUMENTS = 300, 1000  # of the docstrings
N_PAIRS = {"docstrings": 512, "help": 252}  # of the help pages a third each: Korean, English, Korean to English
TRAIN_TOKENS = 96
SEARCH_TOKENS = {"docstrings": 128, "help": 256}
TRAINING = ("--per_device_train_batch_size", 32, "--learning_rate", 5e-5, "--max_source_length", TRAIN_TOKENS)
COLLECTIONS = {"docstrings": (NAME,), "help": ("gnome-help-ko", "gnome-help-en", "gnome-help-ko-en")}
SOURCES = {"docstrings": (NAME,), "help": ("libreoffice-help-ko", "libreoffice-help-en-us")}
ARMS = {"distilled": (), "plain": ("--no_distill",)}


@dataclass(frozen=True)
class HybridBenchmark:
    """What is measured."""

    sets: list[str] = option("docstrings, help", default=["docstrings"], group="input")
    help_embedder: str = option("the multilingual body", default="intfloat/multilingual-e5-small", group="model")
    seeds: list[int] = option("training seeds", default=[100, 13, 21])
    arms: list[str] = option("distilled, plain", default=list(ARMS))

    def __post_init__(self) -> None:
        """Check names."""
        require_known("sets", self.sets, COLLECTIONS)
        require_known("arms", self.arms, ARMS)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure every cell that is not finished, and gather all."""
    settings = parse_settings(HybridBenchmark, argv, __doc__)
    for name in settings.sets:
        embedder = {"docstrings": "minilm", "help": settings.help_embedder}[name]
        _keep_cell(name, embedder, "base", 0)
        for seed in settings.seeds:
            for arm in settings.arms:
                _keep_cell(name, embedder, arm, seed)
    sys.stdout.write(f"{RESULTS}: {len(read_json(RESULTS)['cells'])} cells\n")


def _keep_cell(name: str, embedder: str, arm: str, seed: int) -> None:
    """Measure a cell, if it is not finished: its scores by collection and way."""
    made_from: dict[str, Any] = {"set": name, "arm": arm, "seed": seed, "embedder": Path(embedder).name}
    made_from |= {"queries": N_QUERIES, "documents": N_DOCUMENTS}
    if arm != "base":
        made_from |= {"n_pairs": N_PAIRS[name], "training": list(TRAINING)}
    inputs = {collection: DATASETS / collection / "corpus.jsonl" for collection in COLLECTIONS[name]}
    cell = Output(FOLDER / f"cell-{name}-{arm}-{seed}.json", "hybrid cell", made_from, inputs)
    if not cell.is_finished():
        measure_cell(cell, lambda: {**made_from, **_measure(name, embedder, arm, seed)})
    write_text(RESULTS, dump_json(gather()))


def _measure(name: str, embedder: str, arm: str, seed: int) -> dict[str, Any]:
    if arm == "base":
        return {"scores": measure_base(name, embedder)}
    folder = train(name, embedder, arm, seed)
    facts = read_facts(folder)
    losses = {key: facts[key] for key in ("n_pairs", "n_steps", "first_loss", "final_loss", "training_dtype")}
    scores = measure_hybrid(name, folder)
    shutil.rmtree(folder)
    folder.with_name(f"{folder.name}.meta.json").unlink()
    return {"scores": scores, **losses}


# training


def train(name: str, embedder: str, arm: str, seed: int) -> Path:
    """Return the folder of a model, trained with the prompts of its family."""
    folder = FOLDER / f"model-{name}-{arm}-{seed}"
    call: tuple[object, ...] = (
        *("--dataset", name, "--train_file", find_pairs(name, embedder), "--embedder", embedder),
        *("--output_dir", folder, "--seed", seed, *TRAINING, *choose_prompt_options(name), *ARMS[arm]),
    )
    run_stage("6_retrieval.train_hybrid", *call)
    return folder


def choose_prompt_options(name: str) -> tuple[str, ...]:
    """Return the prompts: E5's, given since the name of a folder need not tell the family."""
    return ("--query_prompt", "query: ", "--document_prompt", "passage: ") if name == "help" else ()


def find_pairs(name: str, embedder: str) -> Path:
    """Return the training pairs, each with a hard negative that the untouched embedder finds."""
    inputs = {source: DATASETS / source / "train.jsonl" for source in SOURCES[name]}
    output = Output(FOLDER / f"pairs-{name}.jsonl", "mined pairs", {"n_pairs": N_PAIRS[name]}, inputs)
    if not output.is_finished(quiet=True):
        pairs = draw_pairs(name)
        model = load_body(name, embedder)
        model.max_seq_length = TRAIN_TOKENS
        embedded = embed_sides(model, (pair.query for pair in pairs), (pair.document for pair in pairs))
        save_pairs(output, mine_negatives(pairs, embedded, MineSettings(num_negatives=1, range_min=1)))
    return output.path


def draw_pairs(name: str) -> list[Pair]:
    """Return a random sample of the pairs; of the help pages, each page in one of three roles."""
    rng = np.random.default_rng(0)
    first, *others = (load_pairs(DATASETS / source / "train.jsonl") for source in SOURCES[name])
    rows = rng.permutation(len(first))[: N_PAIRS[name]].tolist()
    if not others:
        return [first[row] for row in rows]
    english = {pair.source: pair for pair in others[0]}
    third = len(rows) // 3
    korean = [first[row] for row in rows]
    return [
        *korean[:third],
        *(english[pair.source] for pair in korean[third : 2 * third]),
        *(Pair(pair.query, english[pair.source].document) for pair in korean[2 * third :]),
    ]


def load_body(name: str, embedder: str) -> Any:  # noqa: ANN401  a SentenceTransformer
    """Return the untouched embedder with its prompts."""
    model = load_embedder(embedder)
    set_retrieval_prompts(model, embedder, *choose_prompt_options(name)[1::2])
    return model


# measuring


def load_searched(name: str) -> Collection:
    """Return a collection: of the docstrings a sample."""
    return sample_collection(N_QUERIES, N_DOCUMENTS) if name == NAME else load_collection(DATASETS / name)


def measure_base(name: str, embedder: str) -> dict[str, Any]:
    """Return the scores of BM25, of the untouched embedder, and of both fused by rank."""
    model = load_body(name, embedder)
    model.max_seq_length = SEARCH_TOKENS[name]
    found = {}
    for collection in map(load_searched, COLLECTIONS[name]):
        ids, queries, documents = list(collection.corpus), list(collection.queries.values()), collection.corpus.values()
        sides = (
            EncoderSide(model, partial(encode, normalize_embeddings=True))
            for encode in (model.encode_query, model.encode_document)
        )
        asked, searched = (
            embed_texts(side, list(texts)) for side, texts in zip(sides, (queries, documents), strict=True)
        )
        dense = search_dense(asked, searched, ids, DEPTH)
        bm25 = search_bm25(queries, list(documents), ids, DEPTH)
        hits = dict(zip(BASE_WAYS, (bm25, dense, fuse_rankings([dense, bm25], ids, DEPTH)), strict=True))
        found[collection.name] = {way: describe_hits(collection, one) for way, one in hits.items()}
    return found


def measure_hybrid(name: str, folder: Path) -> dict[str, Any]:
    """Return the scores of each way alone and together."""
    model = load_hybrid(str(folder), reading=True)
    model.max_seq_length = SEARCH_TOKENS[name]
    found = {}
    encoded: dict[tuple[str, ...], Any] = {}
    for collection in map(load_searched, COLLECTIONS[name]):
        ids = list(collection.corpus)
        parts = []
        for side, texts in (("query", collection.queries), ("document", collection.corpus)):
            key = (side, *texts.values())  # two collections may share their documents
            if key not in encoded:
                encoded[key] = encode_texts(model, list(texts.values()), model.prompts.get(side) or "")
            parts.append(encoded[key])
        queries, documents = parts
        found[collection.name] = {
            way: describe_hits(collection, search_hybrid(queries, documents, ids, way, DEPTH)) for way in HYBRID_WAYS
        } | {"sparse terms": round(documents.lexical.nnz / len(documents), 1)}
        logger.info("%s: %s", collection.name, {way: found[collection.name][way][METRIC] for way in HYBRID_WAYS})
    return found


def describe_hits(collection: Collection, hits: Hits) -> dict[str, Any]:
    """Return NDCG@10 in percent, the mean and each query's, and the means that KoE5 publishes."""
    values = score_all(collection, hits, (1, 3, 10))
    return {
        METRIC: round(float(values[METRIC].mean()), 4),
        "per_query": [round(float(value), 2) for value in values[METRIC]],
        "published metrics": {name: round(float(values[name].mean()), 4) for name in PUBLISHED_METRICS},
    }


# gathering


def gather() -> dict[str, Any]:
    """Return all cells without each query's scores, and a summary by collection; of other sets the earlier ones."""
    cells = [read_json(path) for path in sorted(FOLDER.glob("cell-*.json")) if not path.name.endswith(".meta.json")]
    earlier = read_json(RESULTS) if RESULTS.exists() else {"summary": {}, "cells": []}
    measured = {cell["set"] for cell in cells}
    summary = {}
    for name, collections in COLLECTIONS.items():
        for collection in collections:
            of_set = [cell for cell in cells if cell["set"] == name]
            summary[collection] = summarize(of_set, collection) if of_set else earlier["summary"].get(collection, {})
    cells = [*(cell for cell in earlier["cells"] if cell["set"] not in measured), *map(_without_queries, cells)]
    sizes = {"queries": N_QUERIES, "documents": N_DOCUMENTS, "tokens": TRAIN_TOKENS}
    sizes |= {f"{name} pairs": n for name, n in N_PAIRS.items()}
    sizes |= {f"{name} tokens searched": n for name, n in SEARCH_TOKENS.items()}
    return {"sizes": sizes, "summary": summary, "cells": cells}


def _without_queries(cell: dict[str, Any]) -> dict[str, Any]:
    scores = {
        collection: {way: one[METRIC] if isinstance(one, dict) else one for way, one in ways.items()}
        for collection, ways in cell["scores"].items()
    }
    return {**cell, "scores": scores}


def summarize(cells: Sequence[dict[str, Any]], collection: str) -> dict[str, Any]:
    """Return, by arm and way, the mean over seeds, its deviation, a 95% interval over queries, and differences.

    The differences are to the same arm's dense way, of the mean over seeds, with intervals over queries.
    """
    summary: dict[str, Any] = {}
    for arm in ("base", *ARMS):
        found = [cell["scores"][collection] for cell in cells if cell["arm"] == arm]
        if not found:
            continue
        ways = BASE_WAYS if arm == "base" else HYBRID_WAYS
        values = {way: np.array([one[way]["per_query"] for one in found]) for way in ways}  # (n_seeds, n_queries)
        reference = values["untouched" if arm == "base" else "dense"].mean(axis=0)
        summary[arm] = {
            way: {
                "mean": round(float(runs.mean()), 3),
                "std": round(float(runs.mean(axis=1).std()), 3),
                "interval": _interval(runs.mean(axis=0)),
                "against_dense": [round(float((runs.mean(axis=0) - reference).mean()), 3)]
                + _interval(runs.mean(axis=0) - reference),
                "n_seeds": len(runs),
                "published metrics": {
                    name: round(float(np.mean([one[way]["published metrics"][name] for one in found])), 3)
                    for name in PUBLISHED_METRICS
                },
            }
            for way, runs in values.items()
        }
    return summary


def _interval(values: np.ndarray) -> list[float]:
    low, high = bootstrap_interval(resample_means(values[:, None]))
    return [round(float(low[0]), 3), round(float(high[0]), 3)]


if __name__ == "__main__":
    main()
