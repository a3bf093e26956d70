"""Measure names of clusters with labels: is a name nearest to the name of the right class?

Clusters are k-means with the true number of classes on the vectors of the untouched embedder. A cluster's right class
is that of most of its texts. The embedder compares the cluster's name with the names of all classes.

Reads:  datasets/<dataset>/small.jsonl with labels; measures/<dataset>_small_embeds_<embedder>.npy, if there is one
Writes: measures/benchmark_naming.json, a row for each data set and LLM; rows that are there are kept; replies of the
        LLMs in measures/benchmark_naming.replies.jsonl

python -m perspective.benchmarks.clusters.naming --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from perspective.artifacts import read_json, read_vectors, write_text
from perspective.artifacts.names import slugify_model
from perspective.artifacts.writing import dump_json
from perspective.cli import entry_point, parse_settings
from perspective.clustering.kmeans import cluster_vectors
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.description.clusters import build_clustering
from perspective.description.edits import Edits
from perspective.description.records import Name
from perspective.errors import DataError
from perspective.evaluation.labels import load_labels
from perspective.judging.protocol import choose_wording
from perspective.layout import MEASURES, STUDY_DATASETS, Layout
from perspective.llm.replies import ReplyLog
from perspective.models.embedding import EmbedSettings, embed_texts, load_embedding
from perspective.naming.files import NO_LLM, summarize
from perspective.naming.llm import LocalNamer
from perspective.naming.naming import AskLLM, Embed, name_clusters
from perspective.naming.prompts import Ask
from perspective.options import OverwriteOptions, option

logger = logging.getLogger(__name__)

RESULTS = MEASURES / "benchmark_naming.json"
_DOMAIN = re.compile(r"(?:\.stackexchange|\.stackoverflow)?(?:\.com|\.net)?\.txt$")  # labels that are names of files


@dataclass(frozen=True)
class NamingBenchmark(OverwriteOptions):
    """What is measured."""

    datasets: list[str] = option(
        "data sets with labels", default=list(STUDY_DATASETS), group="input", aliases=("--dataset",)
    )
    llms: list[str] = option(
        "LLMs that name; none: keywords alone", default=[NO_LLM, "smollm2"], group="model", aliases=("--llm",)
    )
    embedder: str = option("makes the vectors and compares names", default="minilm", group="model")
    seed: int = option("of k-means", default=100)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(NamingBenchmark, argv, __doc__)
    rows: list[dict[str, Any]] = read_json(RESULTS) if RESULTS.exists() else []
    for dataset in settings.datasets:
        for llm in settings.llms:
            key = {"dataset": dataset, "llm": slugify_model(llm), "embedder": settings.embedder, "seed": settings.seed}
            there = [row for row in rows if key.items() <= row.items()]
            if there and not settings.overwrite:
                logger.info("%s, %s: measured already", dataset, llm)
                continue
            rows = [row for row in rows if row not in there]
            row = measure_names(dataset, llm, settings)
            rows.append({**key, **row})
            rows.sort(key=lambda row: (row["dataset"], row["llm"]))
            write_text(RESULTS, dump_json(rows))
            logger.info("%s, %s: %.1f%% of names are nearest to the right class", dataset, llm, 100 * row["right"])


def measure_names(dataset: str, llm: str, settings: NamingBenchmark) -> dict[str, Any]:
    """Name the clusters of a data set and compare the names with those of the classes.

    Returns:
        Shares of names that are nearest to the right class, and what `summarize` says.
    """
    corpus = CorpusSettings(dataset, "small")
    texts, labels = load_texts(corpus), [label for label in load_labels(corpus) or () if label is not None]
    if len(labels) < len(texts):
        raise DataError(f"{corpus.path}: not every text has a label to compare names with")
    model = load_embedding(settings.embedder, EmbedSettings(), None).model
    path = Layout(dataset, "small", settings.embedder).embeds
    vectors = read_vectors(path, len(texts)) if path.exists() else embed_texts(model, texts)
    classes = sorted(set(labels))
    found = cluster_vectors(vectors, len(classes), settings.seed)
    write: AskLLM | None = None
    is_chat, started = False, time.perf_counter()
    if llm != NO_LLM:
        from perspective.llm.loading import load_llm

        perspective = choose_wording(dataset).perspective
        namer = LocalNamer(load_llm(llm), perspective)
        log = ReplyLog(RESULTS.with_suffix(".replies.jsonl"), {"llm": llm, **namer.identity}, namer.facts, "naming")
        write, is_chat = partial(log.ask, namer), namer.is_chat

    def embed(names: Sequence[str]) -> np.ndarray:
        return np.asarray(model.encode(list(names), show_progress_bar=False), dtype=np.float32)

    names = name_found(vectors, texts, found, embed, write, is_chat)
    return {
        **score_names(names, found, labels, embed),
        "seconds": round(time.perf_counter() - started, 1),
    }


def name_found(
    vectors: np.ndarray,
    texts: Sequence[str],
    found: np.ndarray,
    embed: Embed,
    write: AskLLM | None = None,
    is_chat: bool = False,
) -> list[Name]:
    """Name clusters; branches are left out, and sentences, which are not measured.

    Args:
        vectors: `(n_texts, dim)`.
        texts: The texts.
        found: `(n_texts,)` cluster of each text.
        embed: Embeds names.
        write: Returns an LLM's replies; keywords name the clusters when None.
        is_chat: Whether these are replies of a chat model.
    """
    clustering, _, _ = build_clustering(vectors, texts, found, "kmeans", Edits())
    record = clustering.record.model_copy(update={"tree": []})
    ask = partial(_ask_for_names, write) if write else None
    return name_clusters(record, texts, found, vectors, embed, ask, is_chat)


def _ask_for_names(write: AskLLM, asks: Sequence[Ask]) -> list[str | None]:
    names = iter(write([one for one in asks if not one.name]))
    return ["" if one.name else next(names) for one in asks]


def score_names(names: Sequence[Name], found: np.ndarray, labels: Sequence[str], embed: Embed) -> dict[str, Any]:
    """Return the share of names that are nearest to the name of their cluster's most frequent class.

    Args:
        names: One for each cluster.
        found: `(n_texts,)` cluster of each text.
        labels: Class of each text.
        embed: Embeds names.
    """
    classes = sorted(set(labels))
    class_vectors = embed([read_class_name(label) for label in classes])
    nearest = (embed([name.name for name in names]) @ class_vectors.T).argmax(axis=1)
    majority = [
        Counter(label for label, cluster in zip(labels, found, strict=True) if cluster == name.id).most_common(1)[0][0]
        for name in names
    ]
    right = [classes[place] == label for place, label in zip(nearest, majority, strict=True)]
    by_source = {}
    for source in ("llm", "keywords"):
        of_source = [is_right for is_right, name in zip(right, names, strict=True) if name.source == source]
        if of_source:
            by_source[f"right_{source}"] = round(float(np.mean(of_source)), 4)
    return {"n_clusters": len(names), "right": round(float(np.mean(right)), 4), **by_source, **summarize(names)}


def read_class_name(label: str) -> str:
    """Return a label as words.

    >>> [read_class_name(label) for label in ("russian.stackexchange.com.txt", "superuser.com.txt", "top_up")]
    ['russian', 'superuser', 'top up']
    """
    return re.sub(r"[_.]+", " ", _DOMAIN.sub("", label)).strip()


if __name__ == "__main__":
    main()
