"""The study: the method, each ingredient taken away, and the controls, side by side.

Reads:  datasets/<dataset>/small.jsonl; recorded answers where --recorded names a folder of them
Writes: measures/benchmark_quality/, a file a cell the moment it is measured, so that a killed study
        goes on; into measures/benchmark_quality.json, where cells measured earlier stay, and .md, the
        table; another embedder or LLM than the default has its own, benchmark_quality-EMBEDDER-LLM

python -m perspective.benchmarks.quality --datasets banking77 stackexchange --seeds 100 13 21
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import (
    Judgment,
    Output,
    TrainingTriplet,
    dump_json,
    load_judgments,
    read_json,
    read_vectors,
    write_text,
)
from perspective.artifacts.markdown import format_table
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import DataError, suggest_name
from perspective.evaluation.clustering_scores import METRICS, score_clustering
from perspective.evaluation.labels import load_labels
from perspective.judging.answer import AnswerJudge
from perspective.judging.protocol import choose_wording
from perspective.judging.session import judge_at_once
from perspective.layout import PREDICT_STAGE, STUDY_PAIR, slugify_model, study_folder
from perspective.llm.loading import load_llm
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_by_name
from perspective.options import OverwriteOptions, option
from perspective.teacher.states import StateSettings, load_or_compute_states
from perspective.teacher.teacher import TeachSettings, blend_for_inference, make_teacher
from perspective.training.distillation import distill_embedder
from perspective.training.finetuning import finetune_embedder
from perspective.training.settings import RecipeName, TrainSettings
from perspective.triplets.conversion import convert_by_embedder, convert_judgments
from perspective.triplets.sampling import SampleSettings, sample_random_triplets, sample_triplets
from perspective.trust.stability import Trust

logger = logging.getLogger(__name__)

DATASETS = ("banking77", "few_nerd_nat", "mtop_domain", "stackexchange")
SEEDS = (100, 13, 21)
BASE = "untouched"


@dataclass(frozen=True)
class StudySettings(OverwriteOptions):
    """What is compared."""

    datasets: list[str] = option("data sets", default=list(DATASETS), group="input", aliases=("--dataset",))
    arms: list[str] | None = option("arms; default all", default=None, group="input", aliases=("--arm",))
    seeds: list[int] = option("of sampling and training", default=list(SEEDS))
    embedder: str = option("the embedder", default=STUDY_PAIR[0], group="model")
    llm: str = option("the LLM that reads the texts", default=STUDY_PAIR[1], group="model")
    recorded: str | None = option(
        "folder of <dataset>-starling-pred.json, for the arms that use them", default=None, group="input"
    )

    def __post_init__(self) -> None:
        """Check names."""
        for name_of, names, known in (("arm", self.arms or [], ARMS), ("dataset", self.datasets, DATASETS)):
            for name in names:
                if name not in known:
                    raise DataError(f'--{name_of} "{name}": {suggest_name(name, known)}')

    @property
    def folder(self) -> Path:
        """Where the cells lie; the results lie beside it."""
        return study_folder(self.embedder, self.llm)


class Case:
    """One data set as an arm may see it: texts, vectors, answer states, judged triplets; no labels."""

    def __init__(self, dataset: str, settings: StudySettings) -> None:
        self.dataset = dataset
        self.settings = settings
        self.folder = settings.folder
        self.corpus = CorpusSettings(dataset, "small", None, "input")
        self.texts = load_texts(self.corpus)
        self._taught: dict[tuple[TeachSettings, bool], tuple[np.ndarray | None, Trust]] = {}
        self._trained: set[Path] = set()  # in this process: arms share trainings, also those made anew

    @cached_property
    def vectors(self) -> np.ndarray:
        """The untouched embedder's vectors, made once."""
        name = slugify_model(self.settings.embedder)
        output = self.output(f"{self.dataset}-{name}.npy", "embeddings", {"embedder": self.settings.embedder})
        if not output.is_finished():
            output.write_vectors(embed_by_name(self.settings.embedder, self.texts))
        return read_vectors(output.path)

    @cached_property
    def states(self) -> np.ndarray:
        """The LLM's answer states, read once."""
        asked = StateSettings(choose_wording(PREDICT_STAGE / "prompts.json", self.dataset).perspective)
        name = f"{self.dataset}-{slugify_model(self.settings.llm)}-states.npy"
        output = self.output(name, "answer states", {"llm": self.settings.llm, **asdict(asked)})
        return load_or_compute_states(
            output,
            self.texts,
            asked,
            load=lambda: load_llm(self.settings.llm),
            embed=partial(embed_by_name, self.settings.embedder),
        )

    def teach(self, settings: TeachSettings, with_states: bool = True) -> tuple[np.ndarray | None, Trust]:
        """Return the teacher of an arm, made once: it is the same for all training seeds."""
        if (settings, with_states) not in self._taught:
            states = self.states if with_states else None
            self._taught[settings, with_states] = make_teacher(self.vectors, states, settings)
        return self._taught[settings, with_states]

    def judged(self, seed: int, n_triplets: int = 1024, uncertain: bool = True) -> list[Judgment]:
        """Return triplets judged by the answer states."""
        if uncertain:
            triplets, _ = sample_triplets(self.vectors, SampleSettings(max_query=n_triplets, seed=seed))
        else:
            triplets = sample_random_triplets(len(self.texts), n_triplets, seed)
        return judge_at_once(AnswerJudge(self.states, triplets, {}), triplets, self.texts)

    def recorded(self) -> list[Judgment]:
        """Return the recorded answers of a larger LLM.

        Raises:
            Unavailable: There are none for this data set.
        """
        path = self.recorded_path
        if path is None:
            raise Unavailable(f"{self.dataset}: no recorded answers")
        return load_judgments(path, len(self.texts), self.dataset)

    @property
    def recorded_path(self) -> Path | None:
        """The file of recorded answers, where there is one."""
        path = Path(self.settings.recorded or "") / f"{self.dataset}-starling-pred.json"
        return path if self.settings.recorded and path.exists() else None

    def output(self, name: str, schema: str, made_from: Mapping[str, Any], **inputs: Path) -> Output:
        """Return a file of the study, made from the texts and perhaps from more."""
        return Output(self.folder / name, schema, made_from, {"texts": self.corpus.path, **inputs})

    def cell(self, arm: str, seed: int) -> Output:
        """Return the file of a cell."""
        recorded = self.recorded_path if arm.startswith("starling") else None
        made_from = {"arm": arm, "embedder": self.settings.embedder, "llm": self.settings.llm}
        inputs = {"recorded": recorded} if recorded else {}
        return self.output(f"{self.dataset}-{arm}-{seed}.json", "study cell", made_from, **inputs)

    def distill(self, seed: int, settings: TeachSettings, with_states: bool = True) -> np.ndarray:
        """Train the embedder on an arm's teacher and return its vectors; untouched where it has none.

        Arms whose teachers are the same (weight 0 is that of an LLM not believed, and of none)
        share one training.
        """
        teacher, trust = self.teach(settings, with_states)
        logger.info("%s: %s", self.dataset, trust.describe())
        if teacher is None:
            return self.vectors
        train = TrainSettings(recipe="distill", seed=seed)
        name = f"taught-{trust.weight:g}" + ("" if settings.smoothed else "-unsmoothed")
        return self._train(
            name,
            train,
            hashlib.sha256(teacher.tobytes()).hexdigest(),
            lambda model, output: distill_embedder(model, self.texts, teacher, train, output),
        )

    def finetune(self, arm: str, triplets: Sequence[TrainingTriplet], train: TrainSettings) -> np.ndarray:
        """Train the embedder on triplets and return its vectors."""
        return self._train(
            arm,
            train,
            hashlib.sha256(repr(triplets).encode()).hexdigest(),
            lambda model, output: finetune_embedder(model, triplets, train, output),
        )

    def _train(self, name: str, train: TrainSettings, learnt: str, run: Callable[[Any, Output], None]) -> np.ndarray:
        """Train, where no finished model was taught the same; `learnt` is the hash of what it learns."""
        made_from = {"name": name, "learnt": learnt, **train.made_from()}
        output = self.output(f"{self.dataset}-{name}-{train.seed}", "embedder", made_from)
        if not output.is_finished(self.settings.overwrite and output.path not in self._trained):
            self._trained.add(output.path)
            run(load_embedder(self.settings.embedder), output)
        return embed_by_name(str(output.path), self.texts)


class Unavailable(Exception):
    """An arm has no data on this data set."""


def _show_teacher(case: Case) -> np.ndarray:
    """The teacher itself, which only texts known beforehand have."""
    teacher, _ = case.teach(TeachSettings())
    return case.vectors if teacher is None else teacher


def _blend(case: Case, seed: int) -> np.ndarray:
    """The method with the LLM at inference too; its embedder is that of the method."""
    vectors = case.distill(seed, TeachSettings())
    _, trust = case.teach(TeachSettings())
    return blend_for_inference(vectors, case.states, trust.weight) if trust.weight else vectors


def _on_triplets(
    case: Case, arm: str, seed: int, judgments: Sequence[Judgment], recipe: RecipeName = "standard"
) -> np.ndarray:
    return case.finetune(arm, convert_judgments(judgments, case.texts), TrainSettings(recipe=recipe, seed=seed))


def _force(judgments: Sequence[Judgment]) -> list[Judgment]:
    """Have the judge name a choice where it said that neither is near."""
    return [replace(one, prediction=(one.leaning,)) for one in judgments if one.leaning]


def _on_own_opinion(case: Case, arm: str, seed: int, judgments: Sequence[Judgment]) -> np.ndarray:
    triplets = convert_by_embedder(judgments, case.texts, case.vectors)
    return case.finetune(arm, triplets, TrainSettings(recipe="standard", seed=seed))


Arm = Callable[[Case, str, int], np.ndarray]

# Each returns vectors of all texts; the labels join only when these are scored.
ARMS: dict[str, Arm] = {
    BASE: lambda case, arm, seed: case.vectors,
    "method": lambda case, arm, seed: case.distill(seed, TeachSettings()),
    "method+llm": lambda case, arm, seed: _blend(case, seed),
    "no_llm": lambda case, arm, seed: case.distill(seed, TeachSettings(), with_states=False),
    "no_guard": lambda case, arm, seed: case.distill(seed, TeachSettings(weight=1.0)),
    "no_smoothing": lambda case, arm, seed: case.distill(seed, TeachSettings(smoothed=False)),
    "no_training": lambda case, arm, seed: _show_teacher(case),
    "triplets": lambda case, arm, seed: _on_triplets(case, arm, seed, case.judged(seed)),
    "more_triplets": lambda case, arm, seed: _on_triplets(case, arm, seed, case.judged(seed, 4 * 1024)),
    "no_neither": lambda case, arm, seed: _on_triplets(case, arm, seed, _force(case.judged(seed))),
    "random_triplets": lambda case, arm, seed: _on_triplets(case, arm, seed, case.judged(seed, uncertain=False)),
    "self_triplets": lambda case, arm, seed: _on_own_opinion(case, arm, seed, case.judged(seed)),
    # As published, an answer is believed always.
    "published_recipe": lambda case, arm, seed: _on_triplets(case, arm, seed, _force(case.judged(seed)), "published"),
    "starling": lambda case, arm, seed: _on_triplets(case, arm, seed, case.recorded()),
    "starling_published_recipe": lambda case, arm, seed: _on_triplets(case, arm, seed, case.recorded(), "published"),
    "starling_self": lambda case, arm, seed: _on_own_opinion(case, arm, seed, case.recorded()),
}
ONE_SEED = (BASE, "no_training")  # nothing in them is trained or drawn


def run_study(settings: StudySettings, results_path: Path | None = None) -> dict[str, Any]:
    """Measure every cell that is not there yet.

    Each cell is a file of its own, so that several processes may share the work, a data set each.

    Args:
        settings: What is compared.
        results_path: The file that gathers the cells; the table goes beside it. Left out, beside
            the folder of the cells.

    Returns:
        `{dataset: {arm: {seed: {"ACC": [per k-means seed], "NMI": [...], "ARI": [...]}}}}`.
    """
    results_path = results_path or settings.folder.with_name(f"{settings.folder.name}.json")
    get_case = cache(lambda dataset: Case(dataset, settings))
    for arm, dataset, seed in _list_cells(settings):
        case = get_case(dataset)
        cell = case.cell(arm, seed)
        if cell.is_finished(settings.overwrite):
            continue
        try:
            vectors = ARMS[arm](case, arm, seed)
        except Unavailable as reason:
            logger.info("%s", reason)
            continue
        labels = load_labels(case.corpus)  # measuring is what labels are for
        if labels is None:
            raise DataError(f"{case.corpus.path}: the study needs labels to measure by")
        measures = score_clustering(vectors, labels, "small")
        cell.write_json({metric: measures[metric] for metric in METRICS})
        logger.info("%s %s %d: ACC %.2f NMI %.2f", dataset, arm, seed, measures["ACC_mean"], measures["NMI_mean"])
    results = _gather(settings.folder, read_json(results_path) if results_path.exists() else {})
    write_text(results_path, dump_json(results))
    write_text(results_path.with_suffix(".md"), format_study(results))
    return results


def _gather(folder: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return all cells: those measured earlier, elsewhere too, and in their place those of the folder."""
    results: dict[str, Any] = {}
    for dataset in DATASETS:
        for arm in ARMS:
            cells = dict(earlier.get(dataset, {}).get(arm, {}))
            for path in sorted(folder.glob(f"{dataset}-{arm}-*.json")):
                seed = path.stem.removeprefix(f"{dataset}-{arm}-")
                if seed.isdigit():
                    cells[seed] = read_json(path)
            if cells:
                results.setdefault(dataset, {})[arm] = cells
    return results


def _list_cells(settings: StudySettings) -> Iterable[tuple[str, str, int]]:
    for arm in dict.fromkeys([BASE, *(settings.arms or ARMS)]):  # gains are told against the untouched
        for seed in SEEDS[:1] if arm in ONE_SEED else settings.seeds:
            for dataset in settings.datasets:
                yield arm, dataset, seed


def format_study(results: Mapping[str, Any]) -> str:
    """Return the table: mean gain over the untouched embedder, and its spread.

    A gain is paired: each k-means seed of each training seed against the same k-means seed of the
    untouched embedder. After ± stands the standard deviation of those differences.
    """
    datasets = [name for name in DATASETS if BASE in results.get(name, {})]
    rows = [[f"{BASE} (ACC / NMI)", "", *(_format_base(results[name][BASE]) for name in datasets), ""]]
    for arm in ARMS:
        if arm == BASE or not any(results[name].get(arm) for name in datasets):
            continue
        gains = {name: _gains(results[name], arm) for name in datasets if results[name].get(arm)}
        cells = [_format_gain(gains[name]) if name in gains else "" for name in datasets]
        n_seeds = sorted({len(results[name][arm]) for name in gains})
        mean = " / ".join(f"{np.mean([gain[m].mean() for gain in gains.values()]):+.2f}" for m in ("ACC", "NMI"))
        rows.append([arm, "-".join(map(str, n_seeds)), *cells, mean if len(gains) == len(datasets) else ""])
    return format_table(["arm", "seeds", *datasets, "mean of the sets"], rows)


def _gains(of_dataset: Mapping[str, Any], arm: str) -> dict[str, np.ndarray]:
    base = next(iter(of_dataset[BASE].values()))
    return {
        metric: np.concatenate([np.array(cell[metric]) - np.array(base[metric]) for cell in of_dataset[arm].values()])
        for metric in METRICS
    }


def _format_base(cells: Mapping[str, Any]) -> str:
    (cell,) = cells.values()
    return " / ".join(f"{np.mean(cell[metric]):.2f} ± {np.std(cell[metric]):.2f}" for metric in ("ACC", "NMI"))


def _format_gain(gains: Mapping[str, np.ndarray]) -> str:
    return " / ".join(f"{gains[metric].mean():+.2f} ± {gains[metric].std():.2f}" for metric in ("ACC", "NMI"))


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Study."""
    settings = parse_settings(StudySettings, argv, __doc__)
    sys.stdout.write(format_study(run_study(settings)))


if __name__ == "__main__":
    main()
