"""Paths of the files of a run. File names are short; the settings are in the sidecars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from perspective.artifacts import ROOT
from perspective.artifacts.names import name_dataset, shorten_name, slugify_model
from perspective.options import DatasetOptions, RecipeOptions, RunOptions

MEASURES = ROOT / "measures"
AFTER_MEASURES = ROOT / "after_measures"
PREDICT_STAGE = ROOT / "perspective" / "1_predict_triplet"
FINETUNE_STAGE = ROOT / "perspective" / "2_finetune"
DESCRIBE_STAGE = ROOT / "perspective" / "3_describe"
JUDGED_TEACHER = "-judged-teacher"  # end of the names of teachers made from judged triplets
STUDY = "benchmark_quality"
PUBLISHED_DATASETS = ("banking77", "few_nerd_nat", "mtop_domain", "stackexchange")
STUDY_DATASETS = (*PUBLISHED_DATASETS, "clinc", "massive_scenario", "go_emotion", "reddit")
STUDY_BASE = "untouched"  # the arm that gains are measured against
STUDY_PAIR = ("minilm", "smollm2")  # the default embedder and LLM, which file names leave out


@dataclass(frozen=True)
class Layout:
    """The files of one run.

    A name lists only what made the file: files from triplets have `m=` and the sampling seed (the
    published names), trained models have the training seed.

    Attributes:
        dataset: Name of the data set.
        scale: "small" or "large".
        embedder: Embedder as given by the user.
        max_query: Requested number of triplets.
        seed: Seed of sampling and training.
        judge: Name of the judge, or the LLM as given by the user.
        recipe: Training recipe: "distill" learns from a teacher, the others from triplets; None means
            "distill" if a teacher exists.
    """

    dataset: str
    scale: str
    embedder: str
    max_query: int = 1024
    seed: int = 100
    judge: str = "smollm2"
    recipe: str | None = None

    @classmethod
    def of(cls, data: DatasetOptions, run: RunOptions) -> Layout:
        """Return the files of the run that the options identify."""
        recipe = run.recipe if isinstance(run, RecipeOptions) else None
        return cls(data.dataset, data.scale, run.embedder, run.max_query, run.seed, run.llm, recipe)

    @property
    def embedder_name(self) -> str:
        """The embedder in file names; without the data set if it was adapted to these texts."""
        return shorten_name(slugify_model(self.embedder).removeprefix(f"{self.dataset}_{self.scale}_"))

    @property
    def name(self) -> str:
        """Data set, scale and embedder: the start of all file names of the run."""
        return f"{self.dataset}_{self.scale}_{self.embedder_name}"

    @property
    def run(self) -> str:
        """Name of the sampled triplets: the start of all file names made from triplets."""
        return f"{self.name}_m={self.max_query}_seed={self.seed}"

    @property
    def embeds(self) -> Path:
        """Vectors of the embedder before fine-tuning."""
        return MEASURES / f"{self.dataset}_{self.scale}_embeds_{self.embedder_name}.npy"

    @property
    def triplets(self) -> Path:
        """Sampled triplets."""
        return PREDICT_STAGE / "sampled_triplet_results" / f"{self.run}.json"

    @property
    def judgments(self) -> Path:
        """Judged triplets."""
        return predictions_path(self.triplets, self.judge)

    @property
    def states(self) -> Path:
        """Answer states of the judge; they depend on the texts, not on the triplets."""
        return states_path(self.dataset, self.scale, self.judge)

    @property
    def teacher(self) -> Path:
        """Teacher vectors made from the answer states."""
        return FINETUNE_STAGE / "converted_triplet_results" / f"{self.name}-{slugify_model(self.judge)}-teacher.npy"

    @property
    def self_teacher(self) -> Path:
        """Teacher vectors made without an LLM: the self-training control."""
        return self.teacher.with_name(f"{self.name}-self-teacher.npy")

    @property
    def training_triplets(self) -> Path:
        """Training triplets of the judge."""
        return converted_path(self.judgments)

    @property
    def judged_teacher(self) -> Path:
        """Teacher vectors of the embedder that learned judged triplets, and of answer states if there are any."""
        return self.teacher.with_name(f"{self.judgments.stem.removesuffix('-pred')}{JUDGED_TEACHER}.npy")

    @property
    def train_file(self) -> Path:
        """File that the embedder is trained on: a teacher or the training triplets."""
        teachers = [path for path in (self.judged_teacher, self.teacher) if path.exists()]
        if self.recipe == "distill" or (self.recipe is None and teachers):
            return teachers[0] if teachers else self.teacher
        return self.training_triplets

    @property
    def checkpoint(self) -> Path:
        """The fine-tuned embedder."""
        return checkpoint_path(self.train_file, self.seed, self.recipe)

    @property
    def description(self) -> ClusterFiles:
        """Files of stage 3: the clusters of the fine-tuned embedder's vectors, and what belongs to them."""
        return ClusterFiles(DESCRIBE_STAGE / "clusters", self.checkpoint.name)

    @property
    def after_embeds(self) -> Path:
        """Vectors of the fine-tuned embedder."""
        return after_path(self.checkpoint, self.dataset, self.scale)


@dataclass(frozen=True)
class ClusterFiles:
    """The files of stage 3, all of them beside one another.

    Attributes:
        folder: Their folder.
        stem: Start of their names: the name of the checkpoint.
    """

    folder: Path
    stem: str

    @property
    def count(self) -> Path:
        """The number of clusters, with the estimates of all criteria."""
        return self._file("-count.json")

    @property
    def found(self) -> Path:
        """The cluster of each text as it was found, before edits."""
        return self._file("-found.npy")

    @property
    def clusters(self) -> Path:
        """All clusters and their tree."""
        return self._file("-clusters.json")

    @property
    def centers(self) -> Path:
        """The centre of each cluster, `(n_clusters, dim)`, in the order of the clusters."""
        return self._file("-centers.npy")

    @property
    def anchors(self) -> Path:
        """Centres by which new texts are assigned: a merged cluster keeps one for each of its parts."""
        return self._file("-anchors.npz")

    @property
    def texts(self) -> Path:
        """One row a text: row, cluster, confidence, outlier, text."""
        return self._file("-texts.parquet")

    @property
    def table(self) -> Path:
        """The same rows as CSV."""
        return self._file("-texts.csv")

    @property
    def added(self) -> Path:
        """Examples of texts of clusters that were added later, in the columns of `texts`."""
        return self._file("-added.parquet")

    @property
    def names(self) -> Path:
        """Names of the clusters and of the branches of their tree."""
        return self._file("-names.json")

    @property
    def map(self) -> Path:
        """Places of each text on the map before and after, and the share of neighbours kept: `(n_texts, 5)`."""
        return self._file("-map.npy")

    @property
    def explore(self) -> Path:
        """The texts with clusters, names and places in one table, for other programs."""
        return self._file("-explore.parquet")

    @property
    def page(self) -> Path:
        """The page that shows all of them."""
        return self._file(".html")

    @property
    def edits(self) -> Path:
        """A person's edits."""
        return self._file("-edits.yaml")

    def inside(self, folder: Path | None) -> ClusterFiles:
        """Return the same files in another folder; these if None is given."""
        return replace(self, folder=folder) if folder else self

    def new_vectors(self, new_texts: Path) -> Path:
        """Vectors of a file of new texts."""
        return self._file(f"-{name_dataset(new_texts)}-embeds.npy")

    def assigned(self, new_texts: Path) -> Path:
        """The cluster of each new text; the same rows as CSV are next to it."""
        return self._file(f"-{name_dataset(new_texts)}-assigned.parquet")

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.stem}{ending}"


def measures_path(embeds: Path) -> Path:
    """Return the path of the measures of vectors."""
    return embeds.with_name(f"{embeds.stem}_measures.json")


def clusterings_path(embeds: Path) -> Path:
    """Return the path of the classes and the clusterings that vectors were measured by."""
    return embeds.with_name(f"{embeds.stem}_clusterings.npy")


def predictions_path(triplets: Path, judge: str, folder: Path | None = None) -> Path:
    """Return the path of the judgments of a triplet file, which may itself hold recorded judgments."""
    name = f"{triplets.stem.removesuffix('-pred')}-{slugify_model(judge)}-pred.json"
    return (folder or PREDICT_STAGE / "predicted_triplet_results") / name


def states_path(dataset: str, scale: str, judge: str, folder: Path | None = None) -> Path:
    """Return the path of the answer states of a data set's texts."""
    return (folder or PREDICT_STAGE / "answer_states") / f"{dataset}_{scale}-{slugify_model(judge)}.npy"


def control_path(states: Path) -> Path:
    """Return the path of the states of control questions that belong to answer states."""
    return states.with_name(f"{states.stem}-control.npy")


def converted_path(judgments: Path, folder: Path | None = None, by_embedder: bool = False) -> Path:
    """Return the path of the training triplets made from a file of judgments."""
    name = f"{judgments.stem.removesuffix('-pred')}{'-self' if by_embedder else ''}-train.json"
    return (folder or FINETUNE_STAGE / "converted_triplet_results") / name


def checkpoint_path(train_file: Path, seed: int, recipe: str | None = None) -> Path:
    """Return the path of the embedder trained on a teacher or on triplets.

    Names made from judged triplets already contain the seed, as published: of sampling and of training. Two recipes
    learn from triplets; "published" is named.

    >>> checkpoint_path(Path("banking77_small_minilm-smollm2-teacher.npy"), 13).name
    'banking77_small_minilm-smollm2_seed=13'
    >>> checkpoint_path(Path("banking77_small_minilm_m=1024_seed=13-starling-judged-teacher.npy"), 13).name
    'banking77_small_minilm_m=1024_seed=13-starling-judged'
    >>> checkpoint_path(Path("mine_small_minilm-smollm2_seed=13-smollm2-teacher.npy"), 13).name  # a second round
    'mine_small_minilm-smollm2_seed=13-smollm2_seed=13'
    >>> checkpoint_path(Path("banking77_small_gte_m=1024_seed=13-recorded-train.json"), 13, "published").name
    'banking77_small_gte_m=1024_seed=13-recorded-published'
    """
    name = train_file.stem.removesuffix("-teacher").removesuffix("-train")
    if train_file.suffix == ".npy" and not train_file.stem.endswith(JUDGED_TEACHER):
        name = f"{name}_seed={seed}"
    return FINETUNE_STAGE / "checkpoints" / (f"{name}-published" if recipe == "published" else name)


def after_path(checkpoint: Path, dataset: str, scale: str, folder: Path | None = None) -> Path:
    """Return the path of the vectors of a fine-tuned embedder."""
    rest = checkpoint.name.removeprefix(f"{dataset}_{scale}_")
    return (folder or AFTER_MEASURES) / f"{dataset}_{scale}_embeds_{rest}.npy"


def comparison_path(
    embedder: str, llm: str, kind: str, folder: Path | None = None, recipe: str | None = None, scale: str = "small"
) -> Path:
    """Return the path of the comparison table or chart of an embedder and a judge.

    Args:
        embedder: Embedder as given by the user.
        llm: Name of the judge.
        kind: "md", "csv" or "png".
        folder: Folder of the file; `after_measures/` when None.
        recipe: Training recipe, if one was asked for.
        scale: "small" or "large".

    >>> comparison_path("org/My_Model", "org/starling-rm", "csv", recipe="published").name
    'comparison_my_model-starling-rm-published.csv'
    """
    other = [part for part in (recipe, None if scale == "small" else scale) if part]
    name = "-".join((shorten_name(slugify_model(embedder)), slugify_model(llm), *other))
    return (folder or AFTER_MEASURES) / f"comparison_{name}.{kind}"


def study_folder(embedder: str, llm: str, study: str = STUDY, parent: str | None = None) -> Path:
    """Return the folder of a study's cells, in a parent or `measures/`; results are next to it, by the same name."""
    pair = () if (embedder, llm) == STUDY_PAIR else (slugify_model(embedder), slugify_model(llm))
    return Path(parent or MEASURES) / "-".join((study, *pair))


def study_pair(results: Path) -> str:
    """Return the embedder and the LLM of a results file of the study.

    >>> study_pair(Path("benchmark_quality.json")), study_pair(Path("benchmark_quality-e5-qwen05.json"))
    ('minilm-smollm2', 'e5-qwen05')
    """
    return results.stem.removeprefix(STUDY).removeprefix("-") or "-".join(STUDY_PAIR)


if __name__ == "__main__":  # for scripts: a file of texts to the data set's name; or a property of Layout and dataset,
    # scale, embedder, max_query, seed, judge, recipe to a path
    import sys

    if len(sys.argv) == 2:
        sys.stdout.buffer.write(f"{name_dataset(Path(sys.argv[1]))}\n".encode())
        sys.exit()
    wanted, dataset, scale, embedder, max_query, seed, judge, recipe = sys.argv[1:]
    layout = Layout(dataset, scale, embedder, int(max_query), int(seed), judge, recipe or None)
    sys.stdout.write(f"{getattr(layout, wanted)}\n")
