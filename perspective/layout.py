"""Where the files of a run lie. Names are short: settings live in the sidecars."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import ROOT

MEASURES = ROOT / "measures"
AFTER_MEASURES = ROOT / "after_measures"
PREDICT_STAGE = ROOT / "perspective" / "1_predict_triplet"
FINETUNE_STAGE = ROOT / "perspective" / "2_finetune"
STUDY = "benchmark_quality"
STUDY_PAIR = ("minilm", "smollm2")  # the embedder and the LLM that go without saying in its names


@dataclass(frozen=True)
class Layout:
    """The files of one run, by the published names.

    Attributes:
        dataset: Name of the data set.
        scale: "small" or "large".
        embedder: Embedder as the user gives it; likewise the judge.
        max_query: Number of triplets asked for.
        seed: Of sampling and training.
        judge: Who judged; None for the stages before.
    """

    dataset: str
    scale: str
    embedder: str
    max_query: int = 1024
    seed: int = 100
    judge: str = "smollm2"

    @property
    def run(self) -> str:
        """Name of the sampled triplets, with which the later names begin."""
        return f"{self.dataset}_{self.scale}_{slugify_model(self.embedder)}_m={self.max_query}_seed={self.seed}"

    @property
    def judged_run(self) -> str:
        """Name of a run with its judge."""
        return f"{self.run}-{slugify_model(self.judge)}"

    @property
    def embeds(self) -> Path:
        """Vectors of the untouched embedder."""
        return MEASURES / f"{self.dataset}_{self.scale}_embeds_{slugify_model(self.embedder)}.npy"

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
        return PREDICT_STAGE / "answer_states" / f"{self.dataset}_{self.scale}-{slugify_model(self.judge)}.npy"

    @property
    def teacher(self) -> Path:
        """What the embedder learns of the answer states."""
        return teacher_path(self.judgments)

    @property
    def training_triplets(self) -> Path:
        """Training triplets of the judge."""
        return converted_path(self.judgments)

    @property
    def checkpoint(self) -> Path:
        """The fine-tuned embedder."""
        return checkpoint_path(self.training_triplets)  # the same name for a teacher

    @property
    def after_blend(self) -> Path:
        """Vectors of the fine-tuned embedder beside the answer states."""
        return blend_path(self.after_embeds)

    @property
    def after_embeds(self) -> Path:
        """Vectors of the fine-tuned embedder."""
        return after_path(self.checkpoint, self.dataset, self.scale)


def measures_path(embeds: Path) -> Path:
    """Return the measures that belong to vectors."""
    return embeds.with_name(f"{embeds.stem}_measures.json")


def predictions_path(triplets: Path, judge: str, folder: Path | None = None) -> Path:
    """Return where the judgments of a file of triplets go; a recorded file may be the triplets."""
    name = f"{triplets.stem.removesuffix('-pred')}-{slugify_model(judge)}-pred.json"
    return (folder or PREDICT_STAGE / "predicted_triplet_results") / name


def converted_path(judgments: Path, folder: Path | None = None, by_embedder: bool = False) -> Path:
    """Return where the training triplets of a file of judgments go."""
    name = f"{judgments.stem.removesuffix('-pred')}{'-self' if by_embedder else ''}-train.json"
    return (folder or FINETUNE_STAGE / "converted_triplet_results") / name


def teacher_path(judgments: Path, folder: Path | None = None, by_embedder: bool = False) -> Path:
    """Return where the teacher made for a file of judgments goes."""
    name = f"{judgments.stem.removesuffix('-pred')}{'-self' if by_embedder else ''}-teacher.npy"
    return (folder or FINETUNE_STAGE / "converted_triplet_results") / name


def checkpoint_path(train_file: Path, folder: Path | None = None) -> Path:
    """Return where the embedder trained on triplets or on a teacher goes."""
    name = train_file.stem.removesuffix("-train").removesuffix("-teacher")
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
    return (folder or AFTER_MEASURES) / f"comparison_{slugify_model(embedder)}-{slugify_model(llm)}.{kind}"


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


if __name__ == "__main__":  # for scripts: dataset, scale, embedder, max_query, seed, judge to the checkpoint
    import sys

    dataset, scale, embedder, max_query, seed, judge = sys.argv[1:]
    sys.stdout.write(f"{Layout(dataset, scale, embedder, int(max_query), int(seed), judge).checkpoint}\n")


def slugify_model(name: str) -> str:
    """Return a model's name as it stands in file names.

    >>> slugify_model("berkeley-nest/Starling-LM-7B-alpha"), slugify_model("minilm")
    ('starling-lm-7b-alpha', 'minilm')
    """
    slug = Path(name.rstrip("/")).name.lower().removesuffix(".gguf")
    return "".join(char if char.isalnum() or char in "._" else "-" for char in slug)
