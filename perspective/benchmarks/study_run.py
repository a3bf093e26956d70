"""Stages 1 and 2 as the studies call them: by their entry scripts, every file in a folder of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perspective.artifacts import Output, hash_file, load_judgments, read_record, read_vectors, save_training_triplets
from perspective.benchmarks.stages import run_stage
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.judging.settings import Kind, name_judge_files
from perspective.layout import (
    STUDY_PAIR,
    Layout,
    after_path,
    converted_path,
    predictions_path,
    states_path,
    study_folder,
)
from perspective.options import OutputOptions, option
from perspective.teacher.teacher import blend_for_inference
from perspective.triplets.conversion import convert_judgments


@dataclass(frozen=True)
class StudyOptions(OutputOptions):
    """The models of a study, and its folder."""

    embedder: str = option("the embedder", default=STUDY_PAIR[0], group="model")
    llm: str = option("the LLM whose answer states are read", default=STUDY_PAIR[1], group="model")

    @property
    def folder(self) -> Path:
        """The folder of the cells; the results are beside it, under the same name."""
        return study_folder(self.embedder, self.llm, parent=self.output_path)


class StudyRun:
    """Stages 1 and 2 on one data set, with all files in the study's folder; no label is read here.

    Args:
        dataset: Name of the data set.
        settings: Models and folder.
        first: The round before, whose answer states are used; a second round writes into a folder of its own.
        recorded: Folder of the recorded answers of a larger LLM, for the arms that use them.

    Attributes:
        recorded: The file of these; it need not exist.
    """

    def __init__(
        self, dataset: str, settings: StudyOptions, first: StudyRun | None = None, recorded: str | None = None
    ) -> None:
        self.dataset = dataset
        self.recorded = Path(recorded or "") / f"{dataset}-starling-pred.json"
        self.settings = settings
        self.folder: Path = first.folder / "second_round" if first else settings.folder
        self.corpus = CorpusSettings(dataset)
        self.judge_name = name_judge_files(settings.llm, "answer")
        self._first = first
        self._called: set[tuple[str, ...]] = set()

    def call(self, stage: str, *options: object) -> None:
        """Call the entry script of a stage; a call with the same options is made once."""
        call = (stage, *map(str, options))
        if call not in self._called:
            overwrite = ["--overwrite"] if self.settings.overwrite else []
            run_stage(stage, "--dataset", self.dataset, *options, *overwrite)
            self._called.add(call)

    def embed(self, checkpoint: Path | None = None) -> Path:
        """Return the vectors of the embedder, or of a fine-tuned one."""
        options = ("--checkpoint", checkpoint) if checkpoint else ()
        embedder = ("--embedder", self.settings.embedder)
        self.call("2_finetune.get_embedding", *embedder, *options, "--no_measure", "--output_path", self.folder)
        return after_path(checkpoint, self.dataset, "small", self.folder) if checkpoint else self._find("embeds")

    def read_states(self) -> Path:
        """Return the LLM's answer states."""
        if self._first:
            return self._first.read_states()
        self.call("1_predict_triplet.read_states", "--llm", self.settings.llm, "--output_path", self.folder)
        return states_path(self.dataset, "small", self.judge_name, self.folder)

    def teach(self, *options: str, judged: Path | None = None) -> Path:
        """Return the teacher that `convert_states` makes with these options.

        Args:
            *options: Of `convert_states`.
            judged: Vectors of an embedder that was trained on judged triplets.
        """
        parts = ("teacher", *(name.lstrip("-") for name in options), *([judged.stem] if judged else []))
        folder = self.folder / "-".join(parts)
        without_states = "--by_embedder" in options or "none" in options
        states = () if without_states else ("--states_path", self.read_states())
        started = ("--judged_path", judged) if judged else ()
        models = ("--embedder", self.settings.embedder, "--llm", self.settings.llm)
        inputs = ("--feat_path", self.embed(), *states, *started)
        self.call("2_finetune.convert_states", *models, *inputs, "--output_path", folder, *options)
        kind = "judged_teacher" if judged else "self_teacher" if "--by_embedder" in options else "teacher"
        return folder / self._find(kind).name

    def judge(self, seed: int, max_query: int = 1024, at_random: bool = False, kind: Kind = "answer") -> Path:
        """Return triplets judged by a judge of a kind; by default by the answer states."""
        draw = ("--max_query", max_query, "--seed", seed, "--out_dir", self.folder)
        if at_random:
            self.call("1_predict_triplet.random_triplet_sampling", *draw)
        else:
            vectors = ("--embedder", self.settings.embedder, "--feat_path", self.embed())
            self.call("1_predict_triplet.triplet_sampling", *vectors, *draw)
        embedder = "random" if at_random else self.settings.embedder
        triplets = self._find("triplets", embedder, max_query, seed)
        judge = ("--llm", self.settings.llm, "--judge", kind)
        states = ("--states_path", self.read_states()) if kind == "answer" else ()
        output = ("--triplet_path", triplets, "--output_path", self.folder)
        self.call("1_predict_triplet.predict_triplet", *judge, *states, *output)
        return predictions_path(triplets, name_judge_files(self.settings.llm, kind), self.folder)

    def convert(self, judgments: Path, forced: bool = False) -> Path:
        """Return the training triplets of all judgments.

        Not by `convert_triplet`, which leaves out an unreliable judge: an ablation trains on whatever was judged.

        Args:
            judgments: Ours or published.
            forced: Whether an abstention counts as the likelier choice.
        """
        path = converted_path(judgments, self.folder)
        path = path.with_name(f"forced-{path.name}") if forced else path
        output = Output(path, "training triplets", {"forced": forced}, {"judgments": judgments})
        texts = load_texts(self.corpus)
        judged = load_judgments(judgments, texts, self.dataset)
        if forced:
            judged = [replace(one, prediction=(one.leaning,)) for one in judged if one.leaning]
        save_training_triplets(output, convert_judgments(judged, texts), self.dataset)
        return path

    def convert_by_embedder(self, judgments: Path) -> Path:
        """Return training triplets with the embedder's own choices in place of the judge's."""
        inputs = ("--pred_path", judgments, "--feat_path", self.embed())
        self.call("2_finetune.convert_triplet_self", *inputs, "--output_path", self.folder)
        return converted_path(judgments, self.folder, by_embedder=True)

    def train(self, train_file: Path, recipe: str, seed: int) -> np.ndarray:
        """Return the vectors of the embedder trained on a file; the same content is trained on once."""
        return read_vectors(self.embed(self._finetune(train_file, recipe, seed)))

    def train_twice(self, seed: int) -> np.ndarray:
        """Return the vectors of the embedder after a second round, which starts from the first one's."""
        first = self._finetune(self.teach(), "distill", seed)
        again = StudyRun(self.dataset, replace(self.settings, embedder=str(first)), self)
        return again.train_on_teacher(seed)

    def train_on_teacher(self, seed: int, *options: str, triplets: Path | None = None) -> np.ndarray:
        """Return the vectors of the embedder trained on a teacher; of one trained on triplets, where there are any."""
        judged = self.embed(self._finetune(triplets, "standard", seed)) if triplets else None
        return self.train(self.teach(*options, judged=judged), "distill", seed)

    def blend(self, seed: int) -> np.ndarray:
        """Return the method's vectors with the answer states beside them, where these are trusted."""
        vectors, weight = self.train_on_teacher(seed), read_record(self.teach()).llm_weight
        return blend_for_inference(vectors, read_vectors(self.read_states()), weight) if weight else vectors

    def _finetune(self, train_file: Path, recipe: str, seed: int) -> Path:
        folder = self.folder / f"{self.dataset}_small_{hash_file(train_file)[:12]}-{recipe}_seed={seed}"
        model = ("--embedder", self.settings.embedder, "--output_dir", folder)
        self.call("2_finetune.finetune", *model, "--train_file", train_file, "--recipe", recipe, "--seed", seed)
        return folder

    def _find(self, kind: str, embedder: str | None = None, max_query: int = 1024, seed: int = 100) -> Path:
        """Return where a file of `Layout` is in the study's folder."""
        layout = Layout(self.dataset, "small", embedder or self.settings.embedder, max_query, seed, self.settings.llm)
        path: Path = getattr(layout, kind)
        return self.folder / path.name
