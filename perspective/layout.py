"""Where the files of a run are. Names are short: settings are in the sidecars."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import ROOT
from perspective.errors import DataError

MEASURES = ROOT / "measures"
AFTER_MEASURES = ROOT / "after_measures"
PREDICT_STAGE = ROOT / "perspective" / "1_predict_triplet"
FINETUNE_STAGE = ROOT / "perspective" / "2_finetune"
MAX_NAME_BYTES = 120  # of an embedder in file names; file systems take 255 for the whole name
STUDY = "benchmark_quality"
STUDY_PAIR = ("minilm", "smollm2")  # the embedder and the LLM that go without saying in its names


@dataclass(frozen=True)
class Layout:
    """The files of one run.

    A name says what made the file and no more: `m=` and the seed of the draw where triplets are in
    it (the published names), the seed of the training where something was trained.

    Attributes:
        dataset: Name of the data set.
        scale: "small" or "large".
        embedder: Embedder as the user gives it; likewise the judge.
        max_query: Number of triplets asked for.
        seed: Of sampling and training.
        judge: Who judged.
        recipe: By which the embedder is trained: "distill" learns from answer states, the others
            from triplets; when None, states where there is a teacher made of them.
    """

    dataset: str
    scale: str
    embedder: str
    max_query: int = 1024
    seed: int = 100
    judge: str = "smollm2"
    recipe: str | None = None

    @property
    def embedder_name(self) -> str:
        """The embedder in file names; one that was adapted to these texts does not repeat their name."""
        return shorten_name(slugify_model(self.embedder).removeprefix(f"{self.dataset}_{self.scale}_"))

    @property
    def name(self) -> str:
        """Data set, scale and embedder, with which names of runs begin."""
        return f"{self.dataset}_{self.scale}_{self.embedder_name}"

    @property
    def run(self) -> str:
        """Name of the sampled triplets, with which names of what is made from triplets begin."""
        return f"{self.name}_m={self.max_query}_seed={self.seed}"

    @property
    def embeds(self) -> Path:
        """Vectors of the untouched embedder."""
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
        """Answer states of the judge; they belong to the texts, not to a run's triplets."""
        return states_path(self.dataset, self.scale, self.judge)

    @property
    def teacher(self) -> Path:
        """What the embedder learns from the answer states."""
        return FINETUNE_STAGE / "converted_triplet_results" / f"{self.name}-{slugify_model(self.judge)}-teacher.npy"

    @property
    def self_teacher(self) -> Path:
        """What the embedder learns from itself: the control that no LLM has a part in."""
        return self.teacher.with_name(f"{self.name}-self-teacher.npy")

    @property
    def training_triplets(self) -> Path:
        """Training triplets of the judge."""
        return converted_path(self.judgments)

    @property
    def train_file(self) -> Path:
        """What the embedder is trained on."""
        from_states = self.recipe == "distill" or (self.recipe is None and self.teacher.exists())
        return self.teacher if from_states else self.training_triplets

    @property
    def checkpoint(self) -> Path:
        """The fine-tuned embedder."""
        return checkpoint_path(self.train_file, self.seed)

    @property
    def after_blend(self) -> Path:
        """Vectors of the fine-tuned embedder beside the answer states."""
        return blend_path(self.after_embeds)

    @property
    def after_embeds(self) -> Path:
        """Vectors of the fine-tuned embedder."""
        return after_path(self.checkpoint, self.dataset, self.scale)


def slugify_model(name: str) -> str:
    """Return a model's name as it stands in file names.

    >>> slugify_model("berkeley-nest/Starling-LM-7B-alpha"), slugify_model("minilm")
    ('starling-lm-7b-alpha', 'minilm')
    """
    slug = Path(name.rstrip("/")).name.lower().removesuffix(".gguf")
    return "".join(char if char.isalnum() or char in "._=" else "-" for char in slug)


def name_dataset(path: Path) -> str:
    """Return the name of a data set of the user's own texts, made from the file's name.

    Letters, their marks and digits of every script are kept; everything else becomes "_".

    >>> name_dataset(Path("texts/고객 문의-2.csv")), name_dataset(Path("haikus.jsonl"))
    ('고객_문의_2', 'haikus')
    """
    stem = unicodedata.normalize("NFC", path.stem)  # macOS hands out decomposed names
    return shorten_name("".join(char if unicodedata.category(char)[0] in "LMN" else "_" for char in stem))


def check_name(option: str, name: str) -> None:
    """Refuse a name of files that would lead into another folder, or that scripts would take for several.

    Raises:
        DataError: It is empty, only dots, or holds a slash, a space or what cannot be printed.
    """
    if not name.strip(".") or any(char in "/\\" or char.isspace() or not char.isprintable() for char in name):
        raise DataError(f'{option} "{name}": must be a name without spaces and slashes')


def shorten_name(name: str) -> str:
    """Return a name that a file system takes: an embedder adapted again and again has a long one.

    >>> shorten_name("minilm"), len(shorten_name("minilm-smollm2_seed=100" * 10))
    ('minilm', 120)
    """
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore") + f"-{digest}"


def measures_path(embeds: Path) -> Path:
    """Return the measures that belong to vectors."""
    return embeds.with_name(f"{embeds.stem}_measures.json")


def predictions_path(triplets: Path, judge: str, folder: Path | None = None) -> Path:
    """Return where the judgments of a file of triplets go; a recorded file may be the triplets."""
    name = f"{triplets.stem.removesuffix('-pred')}-{slugify_model(judge)}-pred.json"
    return (folder or PREDICT_STAGE / "predicted_triplet_results") / name


def states_path(dataset: str, scale: str, judge: str, folder: Path | None = None) -> Path:
    """Return where the answer states of a data set's texts go."""
    return (folder or PREDICT_STAGE / "answer_states") / f"{dataset}_{scale}-{slugify_model(judge)}.npy"


def converted_path(judgments: Path, folder: Path | None = None, by_embedder: bool = False) -> Path:
    """Return where the training triplets of a file of judgments go."""
    name = f"{judgments.stem.removesuffix('-pred')}{'-self' if by_embedder else ''}-train.json"
    return (folder or FINETUNE_STAGE / "converted_triplet_results") / name


def checkpoint_path(train_file: Path, seed: int, folder: Path | None = None) -> Path:
    """Return where the embedder trained on a teacher or on triplets goes.

    Training triplets carry the seed in their name, as published: that of the draw and of the training.

    >>> checkpoint_path(Path("banking77_small_minilm-smollm2-teacher.npy"), 13).name
    'banking77_small_minilm-smollm2_seed=13'
    """
    stem = train_file.stem
    name = (
        f"{stem.removesuffix('-teacher')}_seed={seed}" if train_file.suffix == ".npy" else stem.removesuffix("-train")
    )
    return (folder or FINETUNE_STAGE / "checkpoints") / name


def blend_path(embeds: Path) -> Path:
    """Return where vectors go that hold the answer states too."""
    return embeds.with_name(f"{embeds.stem}-blend.npy")


def after_path(checkpoint: Path, dataset: str, scale: str, folder: Path | None = None) -> Path:
    """Return where the vectors of a fine-tuned embedder go."""
    rest = checkpoint.name.removeprefix(f"{dataset}_{scale}_")
    return (folder or AFTER_MEASURES) / f"{dataset}_{scale}_embeds_{rest}.npy"


def comparison_path(embedder: str, llm: str, kind: str, folder: Path | None = None) -> Path:
    """Return where the comparison of an embedder's runs with one judge goes: "md", "csv" or "png".

    >>> comparison_path("org/My_Model", "org/starling-rm", "csv").name
    'comparison_my_model-starling-rm.csv'
    """
    return (
        folder or AFTER_MEASURES
    ) / f"comparison_{shorten_name(slugify_model(embedder))}-{slugify_model(llm)}.{kind}"


def study_folder(embedder: str, llm: str) -> Path:
    """Return where the cells of the study lie; its results lie beside, under the same name."""
    pair = () if (embedder, llm) == STUDY_PAIR else (slugify_model(embedder), slugify_model(llm))
    return MEASURES / "-".join((STUDY, *pair))


def study_pair(results: Path) -> str:
    """Return the embedder and the LLM of a file of the study's results.

    >>> study_pair(Path("benchmark_quality.json")), study_pair(Path("benchmark_quality-e5-qwen05.json"))
    ('minilm-smollm2', 'e5-qwen05')
    """
    return results.stem.removeprefix(STUDY).removeprefix("-") or "-".join(STUDY_PAIR)


if __name__ == "__main__":  # for scripts: a file of texts to the data set's name; or dataset, scale, embedder,
    # max_query, seed, judge, recipe to the checkpoint
    import sys

    if len(sys.argv) == 2:
        sys.stdout.buffer.write(f"{name_dataset(Path(sys.argv[1]))}\n".encode())
        sys.exit()
    dataset, scale, embedder, max_query, seed, judge, recipe = sys.argv[1:]
    layout = Layout(dataset, scale, embedder, int(max_query), int(seed), judge, recipe or None)
    sys.stdout.write(f"{layout.checkpoint}\n")
