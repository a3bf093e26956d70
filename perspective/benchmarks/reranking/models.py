"""The samples and models of the study of rerankers, each made once by the entry scripts of stage 6."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from perspective.artifacts import Output
from perspective.artifacts.names import slugify_model
from perspective.benchmarks.decoders.measuring import sample_collection
from perspective.benchmarks.reranking.samples import (
    N_NEGATIVES,
    N_RERANKER,
    N_STUDENT,
    draw_negatives,
    keep_negatives,
    sample_pairs,
    shuffle_scores,
)
from perspective.benchmarks.stages import run_stage
from perspective.data.collection import QRELS_PLACES, save_collection
from perspective.data.corpus import DATASETS
from perspective.data.docstrings import NAME
from perspective.data.pairs import Pair, load_pairs, save_pairs
from perspective.layout import MEASURES
from perspective.models.embedders import load_embedder
from perspective.models.registry import find_local
from perspective.retrieval.layout import mined_path, results_path, scored_path
from perspective.retrieval.results import load_result

FOLDER = MEASURES / "benchmark_reranking"
EMBEDDER = "minilm"

N_QUERIES, N_DOCUMENTS, N_RERANKED = 200, 600, 20
N_MINED = 10
MAX_TOKENS, MAX_PAIR_TOKENS = 64, 96  # of a text, of a query with a document
N_EPOCHS = 3  # of the student
M3_LEARNING_RATE = 5e-5  # as in the benchmark of its three ways
SHOWN = ("NDCG@1", "NDCG@10")

Options = tuple[object, ...]


class RerankingStudy:
    """The samples and models of the study, each made once.

    Args:
        student: The embedder, or encoder's body, that learns from the reranker and from noisy pairs.
        learning_rate: Of its training.
    """

    def __init__(self, student: str, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self._student = student

    @cached_property
    def base(self) -> Path:
        """The retriever that is reranked, with the text length of all that is trained here."""
        return self._shorten(EMBEDDER, "base")

    @cached_property
    def student(self) -> Path:
        """The embedder that learns."""
        return self.base if self._student == EMBEDDER else self._shorten(self._student, "student")

    def _shorten(self, embedder: str, name: str) -> Path:
        made_from = {"embedder": embedder, "max_tokens": MAX_TOKENS}
        output = Output(FOLDER / name, "embedder", made_from, find_local(embedder=embedder))
        if not output.is_finished(quiet=True):
            model = load_embedder(embedder)
            model.max_seq_length = MAX_TOKENS
            with output.open() as folder:
                model.save_pretrained(str(folder), create_model_card=False)
        return output.path

    def collection(self) -> Path:
        """A sample of the test collection: queries, their documents and others."""
        source = DATASETS / NAME
        made_from = {"n_queries": N_QUERIES, "n_documents": N_DOCUMENTS}
        inputs = {"qrels": source / QRELS_PLACES[0], "corpus": source / "corpus.jsonl"}
        output = Output(FOLDER / f"docstrings-{N_QUERIES}" / QRELS_PLACES[0], "collection", made_from, inputs)
        if not output.is_finished(quiet=True):
            save_collection(output, sample_collection(N_QUERIES, N_DOCUMENTS))
        return output.path.parent

    def pairs(self, name: str, make: Callable[[], list[Pair]], **settings: object) -> Path:
        """A file of training pairs, made by `make` if it is not there."""
        output = Output(FOLDER / f"{name}.jsonl", "pairs", settings, {"pairs": DATASETS / NAME / "train.jsonl"})
        if not output.is_finished(quiet=True):
            save_pairs(output, make())
        return output.path

    @cached_property
    def mined(self) -> Path:
        """Pairs with the retriever's hard negatives."""
        pairs = self.pairs("pairs", lambda: sample_pairs()[:N_RERANKER], n=N_RERANKER)
        call = ("--train_file", pairs, "--num_negatives", N_MINED, "--output_path", FOLDER)
        run_stage("6_retrieval.mine_negatives", *call, *self._set)
        return mined_path(NAME, str(self.base), FOLDER)

    @cached_property
    def reranker(self) -> Path:
        """The reranker of the retriever's hits, from the same body."""
        call = ("--train_file", self.mined, "--num_negatives", N_NEGATIVES, "--max_source_length", MAX_PAIR_TOKENS)
        run_stage("6_retrieval.train_reranker", *call, "--output_dir", FOLDER / "reranker", *self._set)
        return FOLDER / "reranker"

    @cached_property
    def m3(self) -> Path:
        """The retriever with M3's heads, trained on the pairs that the reranker learns from."""
        call = ("--train_file", self.mined, "--max_source_length", MAX_TOKENS, "--learning_rate", M3_LEARNING_RATE)
        run_stage("6_retrieval.train_hybrid", *call, "--output_dir", FOLDER / "m3", *self._set)
        return FOLDER / "m3"

    def scored(self, negatives: str) -> Path:
        """Pairs with the reranker's scores: with hard negatives, mined or random ones."""
        mined = load_pairs(self.mined)
        makers = {"mined": lambda: keep_negatives(mined), "random": lambda: draw_negatives(mined)}
        pairs = self.pairs(f"student-{negatives}", makers[negatives], n=N_STUDENT, n_negatives=N_NEGATIVES)
        folder = FOLDER / f"scored-{negatives}"
        call = ("--train_file", pairs, "--reranker", self.reranker, "--output_path", folder)
        run_stage("6_retrieval.score_pairs", *call, *self._set)
        return scored_path(NAME, str(self.base), folder)

    def shuffled(self) -> Path:
        """The scored pairs with each group's scores in another order."""
        scored = load_pairs(self.scored("mined"))
        return self.pairs("shuffled", lambda: shuffle_scores(scored), n=N_STUDENT, of="scores")

    def train(self, name: str, pairs: Path, seed: int, *options: object) -> Path:
        """Return the folder of a retriever trained on pairs."""
        call: Options = (
            *("--train_file", pairs, "--output_dir", FOLDER / f"{name}-{seed}", "--seed", seed),
            *("--max_source_length", MAX_TOKENS, "--per_device_train_batch_size", 32, "--mini_batch_size", 0),
            *("--learning_rate", self.learning_rate, "--num_train_epochs", N_EPOCHS, *options),
        )
        run_stage("6_retrieval.train", "--dataset", NAME, "--embedder", self.student, *call)
        return FOLDER / f"{name}-{seed}"

    def evaluate(self, embedder: Path, *options: str) -> dict[str, Any]:
        """Return scores, interval and the queries' NDCG@10 of a retriever, from the result file of `evaluate`."""
        folder = FOLDER / "results"
        call = ("--collection", self.collection(), "--embedder", embedder, "--output_path", folder)
        run_stage("6_retrieval.evaluate", *call, "--cutoffs", 1, 10, *options)
        kind = options[options.index("--retriever") + 1] if "--retriever" in options else "dense"
        if "--reranker" in options:
            kind += f"+rerank-{slugify_model(options[options.index('--reranker') + 1])}"
        result = load_result(results_path(f"docstrings-{N_QUERIES}", str(embedder), kind, folder))
        return {
            "scores": {metric: result["scores"][metric] for metric in SHOWN},
            "interval": {metric: result["interval"][metric] for metric in SHOWN},
            "per_query": list(result["per_query"]["NDCG@10"].values()),
            **({"first_stage": _strip_folder(result["first_stage"])} if "first_stage" in result else {}),
        }

    @cached_property
    def _set(self) -> Options:
        return ("--dataset", NAME, "--embedder", self.base)


def _strip_folder(first_stage: dict[str, Any]) -> dict[str, Any]:
    """Name the reranker as in file names: the folder is a different one on every machine."""
    return {**first_stage, "reranker": slugify_model(first_stage["reranker"])}
