"""Measure clustering tasks of mteb before and after adapting an embedder to each task's own texts.

For each task, the entry scripts of stages 1 and 2 adapt the embedder to texts of the task without their
labels. mteb loads the task, draws its samples and scores, before and after. No label is read here.

Reads:  tasks of mteb, which downloads them from the hub
Writes: measures/benchmark_mteb/, all files of the stages, a JSON file per task before and after, from
        which a killed benchmark resumes, and results/ in mteb's format:
        mteb.ResultCache("measures/benchmark_mteb").load_results();
        measures/benchmark_mteb.json and .md, the table. Other models than the default write to
        benchmark_mteb-EMBEDDER-LLM

python -m perspective.benchmarks.mteb_clustering --tasks StackExchangeClustering.v2
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import Output, dump_json, read_facts, read_json, read_record, write_text
from perspective.artifacts.jsonl import is_blank, write_jsonl
from perspective.artifacts.markdown import format_table
from perspective.artifacts.names import slugify_model
from perspective.artifacts.provenance import METHOD_VERSIONS
from perspective.benchmarks.stages import run_stage
from perspective.cli import entry_point, parse_settings
from perspective.data.mteb_tasks import REQUIREMENTS
from perspective.errors import DataError, require_least, suggest_name
from perspective.judging.settings import name_judge_files
from perspective.layout import STUDY_PAIR, Layout, states_path, study_folder
from perspective.models.embedding import EmbedSettings, load_embedding
from perspective.models.registry import EMBEDDERS, find_local
from perspective.options import OutputOptions, option
from perspective.runtime.devices import reading_precision

logger = logging.getLogger(__name__)

# The clustering tasks of MTEB(eng, v2), and what texts of one class share in each.
PERSPECTIVES = {
    "ArXivHierarchicalClusteringP2P": "field of research",
    "ArXivHierarchicalClusteringS2S": "field of research",
    "BiorxivClusteringP2P.v2": "field of biology",
    "MedrxivClusteringP2P.v2": "field of medicine",
    "MedrxivClusteringS2S.v2": "field of medicine",
    "StackExchangeClustering.v2": "topic",
    "StackExchangeClusteringP2P.v2": "topic",
    "TwentyNewsgroupsClustering.v2": "topic",
}
OTHER_PERSPECTIVE = "topic"  # of tasks that are not listed
STUDY = "benchmark_mteb"
WHEN = ("before", "after")


@dataclass(frozen=True)
class MtebSettings(OutputOptions):
    """Which tasks are measured, and how the embedder is adapted to each."""

    tasks: list[str] = option(
        "clustering tasks of mteb; default those of MTEB(eng, v2)", default=list(PERSPECTIVES), group="input"
    )
    embedder: str = option("the embedder", default=STUDY_PAIR[0], group="model")
    llm: str = option("the local LLM whose answer states are read", default=STUDY_PAIR[1], group="model")
    perspective: str | None = option(
        "what texts of one class share; default: what fits the task, topic for tasks that are not known", default=None
    )
    adapt_on: int = option("the most texts of a task that the embedder is adapted to, drawn at random", default=10_000)
    seed: int = option("random seed of the draw and of training", default=100)

    def __post_init__(self) -> None:
        """Check the range of numbers."""
        require_least(self, adapt_on=9)

    @property
    def folder(self) -> Path:
        """The folder of all files; the table is beside it, under the same name."""
        return study_folder(self.embedder, self.llm, STUDY, self.output_path)


class TaskRun:
    """One task: its texts, the embedder adapted to them, and its scores before and after."""

    def __init__(self, name: str, settings: MtebSettings) -> None:
        self.name = name
        self.settings = settings
        self.perspective = settings.perspective or PERSPECTIVES.get(name, OTHER_PERSPECTIVE)
        self.folder = settings.folder / name
        self._identity = {
            "task": name,
            "revision": find_task(name).metadata.revision,
            "mteb": importlib.metadata.version("mteb"),
        }

    def collect_texts(self) -> Path:
        """Write distinct texts of the task, without labels; return their file."""
        drawn = {"adapt_on": self.settings.adapt_on, "seed": self.settings.seed}
        output = Output(self.folder / "texts.jsonl", "texts", {**self._identity, **drawn})
        if not output.is_finished(self.settings.overwrite):
            found = list_texts(load_task(self.name))
            texts = list(dict.fromkeys(text for text in found if not is_blank(text)))
            output.facts["n_texts_of_task"] = len(texts)
            if len(texts) > self.settings.adapt_on:
                texts = random.Random(self.settings.seed).sample(texts, self.settings.adapt_on)
            output.facts["n_texts"] = len(texts)
            with output.open() as path:
                write_jsonl(path, ({"input": text} for text in texts))
        return output.path

    def adapt(self) -> Path:
        """Run the stages on the task's texts; return the folder of the adapted embedder."""
        texts, embedder, llm = self.collect_texts(), self.settings.embedder, self.settings.llm
        judge = name_judge_files(llm, "answer")
        layout = Layout(self.name, "small", embedder, seed=self.settings.seed, judge=judge)
        vectors, teacher = (self.folder / path.name for path in (layout.embeds, layout.teacher))
        states = states_path(self.name, "small", judge, self.folder)
        data, model, out = ("--data_path", texts), ("--embedder", embedder), ("--output_path", self.folder)
        self._call("2_finetune.get_embedding", *data, *model, *out, "--no_measure")
        self._call("1_predict_triplet.read_states", *data, *out, "--llm", llm, "--perspective", self.perspective)
        inputs = ("--feat_path", vectors, "--states_path", states)
        self._call("2_finetune.convert_states", *model, *inputs, *out, "--llm", judge)
        trained = ("--train_file", teacher, "--output_dir", self.folder / "embedder", "--seed", self.settings.seed)
        self._call("2_finetune.finetune", *data, *model, *trained)
        return self.folder / "embedder"

    def _call(self, stage: str, *options: object) -> None:
        overwrite = ["--overwrite"] if self.settings.overwrite else []
        run_stage(stage, "--dataset", self.name, *options, *overwrite)

    def measure(self, checkpoint: Path | None = None) -> None:
        """Score the untouched embedder or an adapted one with mteb, and write the result."""
        made_from = {
            **self._identity,
            "embedder": self.settings.embedder,
            "methods": {"embeddings": METHOD_VERSIONS.get("embeddings", 1)},
        }
        inputs = {"checkpoint": checkpoint} if checkpoint else find_local(embedder=self.settings.embedder)
        path = self.folder / f"{WHEN[checkpoint is not None]}.json"
        output = Output(path, "mteb result", made_from, inputs, precision=reading_precision())
        if not output.is_finished(self.settings.overwrite):
            embed = load_embedding(str(checkpoint or self.settings.embedder), EmbedSettings(), None)
            output.write_json(evaluate_task(self.name, embed).model_dump(mode="json"))
        publish(path, self.settings, adapted=checkpoint is not None)


class StageEncoder:
    """An embedder as mteb calls it; it embeds as stage 2 does, with the embedder's own prompt."""

    def __init__(self, embed: Callable[[Sequence[str]], np.ndarray]) -> None:
        from mteb.models import ModelMeta

        self._embed = embed
        self.mteb_model_meta = ModelMeta.create_empty()  # the results are written under another, see `publish`

    def encode(self, inputs: Iterable[Mapping[str, Any]], **options: object) -> np.ndarray:
        """Return one vector a text of mteb's batches."""
        return self._embed([text for batch in inputs for text in batch["text"]])

    def similarity(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """Return the cosines of all pairs; mteb demands it of every encoder."""
        from sklearn.metrics.pairwise import cosine_similarity

        return cosine_similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """Return the cosine of each pair; mteb demands it of every encoder."""
        from sklearn.metrics.pairwise import paired_cosine_distances

        return 1 - paired_cosine_distances(embeddings1, embeddings2)


def find_task(name: str) -> Any:  # noqa: ANN401  a mteb.AbsTask
    """Return a new text clustering task of mteb; a used one would draw other samples.

    Raises:
        DataError: mteb is not installed, has no such task, or the task is not text clustering.
    """
    if importlib.util.find_spec("mteb") is None:
        raise DataError(f"mteb is not installed; run: pip install -r {REQUIREMENTS}")
    import mteb

    try:
        task = mteb.get_task(name)
    except KeyError:
        known = [task.metadata.name for task in mteb.get_tasks(task_types=["Clustering"])]
        near = suggest_name(name, known)
        hint = near if near.startswith("did") else f"give clustering tasks of mteb, such as {', '.join(PERSPECTIVES)}"
        raise DataError(f'--tasks "{name}": {hint}') from None
    if task.metadata.type != "Clustering" or task.metadata.modalities != ["text"]:
        raise DataError(f"--tasks {name}: a task of type {task.metadata.type}; only clustering of texts is supported")
    return task


def load_task(name: str) -> Any:  # noqa: ANN401  a mteb.AbsTask
    """Return a new task with its texts and labels.

    Raises:
        DataError: As `find_task`; or the hub cannot be reached.
    """
    task = find_task(name)
    try:
        task.load_data()
    except (OSError, RuntimeError) as error:  # ConnectionError and the hub's errors are OSErrors
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{name}: its texts cannot be loaded from the hub ({reason})") from None
    return task


def list_texts(task: Any) -> Iterator[str]:  # noqa: ANN401  a mteb.AbsTask
    """Yield the texts of the parts of a loaded task that mteb evaluates; its labels are not read."""
    for subset in task.hf_subsets:
        data = task.dataset.get(subset, task.dataset)
        for split in task.eval_splits:
            for cell in data[split][task.input_column_name]:
                # Tasks before "v2" hold one list of texts a row, a set to cluster.
                yield from [cell] if isinstance(cell, str) else cell


def evaluate_task(name: str, embed: Callable[[Sequence[str]], np.ndarray]) -> Any:  # noqa: ANN401  a mteb.TaskResult
    """Return mteb's result of an embedder."""
    import mteb

    found = mteb.evaluate(StageEncoder(embed), load_task(name), cache=None, co2_tracker=False, show_progress_bar=False)
    return found.task_results[0]


def publish(path: Path, settings: MtebSettings, adapted: bool) -> None:
    """Write a result into the folder that mteb loads, with what mteb needs to know of the model.

    An adapted model is named as such, names the model that it was made from, and lists the tasks whose texts
    it was trained on, by which mteb no longer counts it as zero-shot there.
    """
    from mteb import ResultCache, TaskResult
    from mteb.models import ModelMeta

    spec = EMBEDDERS.get(settings.embedder)
    hub = spec.hub if spec else settings.embedder
    is_local = bool(find_local(embedder=settings.embedder)) or "/" not in hub
    base = f"local/{slugify_model(settings.embedder)}" if is_local else hub
    described: dict[str, Any] = {"name": base, "revision": "untouched"}
    cache = ResultCache(settings.folder)
    if adapted:
        name = f"{slugify_model(settings.embedder)}-{slugify_model(settings.llm)}-adapted-to-texts-of-each-task"
        described = {"name": f"local/{name}", "revision": f"seed={settings.seed}", "adapted_from": base}
    meta = ModelMeta.create_empty(described)
    result = TaskResult.model_validate(read_json(path))
    if adapted:
        beside = cache.get_task_result_path(result.task_name, meta).parent.glob("*.json")
        trained_on = {result.task_name} | {file.stem for file in beside if file.name != "model_meta.json"}
        meta = meta.model_copy(update={"training_datasets": trained_on})
    cache.save_to_cache(result, meta)


def run_benchmark(settings: MtebSettings) -> dict[str, Any]:
    """Measure every task that is not finished; return the main score (V-measure) of all, in percent."""
    runs = [TaskRun(name, settings) for name in dict.fromkeys(settings.tasks)]  # all names are checked first
    path = settings.folder.with_name(f"{settings.folder.name}.json")
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    for run in runs:
        run.measure()
        checkpoint = run.adapt()
        run.measure(checkpoint)
        scores = {when: 100 * _read_score(run.folder / f"{when}.json") for when in WHEN}
        record = read_record(checkpoint)
        results[run.name] = {
            **{when: round(score, 2) for when, score in scores.items()},
            "perspective": run.perspective,
            "n_texts": read_facts(run.folder / "texts.jsonl")["n_texts"],
            "llm_weight": record.llm_weight,
            "unchanged": record.unchanged,
        }
        logger.info("%s: %.2f before, %.2f after", run.name, scores["before"], scores["after"])
        write_text(path, dump_json(results))
        write_text(path.with_suffix(".md"), format_results(results))
    return results


def _read_score(path: Path) -> float:
    from mteb import TaskResult

    return float(TaskResult.model_validate(read_json(path)).get_score())


def format_results(results: Mapping[str, Any]) -> str:
    """Return the table of all measured tasks.

    >>> one = {"before": 45.2, "after": 47.0, "perspective": "topic", "n_texts": 2048, "llm_weight": 0.5}
    >>> print(format_results({"X": one}).splitlines()[-1])
    | X | topic | 2048 | 0.5 | 45.20 | 47.00 | +1.80 |
    """
    rows = [
        [
            *(name, one["perspective"], one["n_texts"], one["llm_weight"]),
            *(f"{one['before']:.2f}", f"{one['after']:.2f}", f"{one['after'] - one['before']:+.2f}"),
        ]
        for name, one in results.items()
    ]
    header = ["task", "perspective", "adapted to", "weight of the LLM", "V-measure before", "after", "gain"]
    return format_table(header, rows)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    settings = parse_settings(MtebSettings, argv, __doc__)
    sys.stdout.write(format_results(run_benchmark(settings)))


if __name__ == "__main__":
    main()
