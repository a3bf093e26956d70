"""Training settings and recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from perspective.errors import DataError, require_above_zero, require_least
from perspective.options import RecipeName, RecipeOptions, option

LossName = Literal["published", "infonce", "triplet", "distill"]


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything that determines a training run, apart from data, model and seed."""

    loss: LossName
    cl_temperature: float
    learning_rate: float
    num_train_epochs: float
    per_device_train_batch_size: int
    warmup_ratio: float
    weighted: bool
    shuffle: bool
    lora_rank: int = 0


RECIPES: dict[RecipeName, TrainingRecipe] = {
    "standard": TrainingRecipe(
        loss="published",
        cl_temperature=0.1,
        learning_rate=2e-5,
        num_train_epochs=4,
        per_device_train_batch_size=32,
        warmup_ratio=0.1,
        weighted=True,
        shuffle=True,
    ),
    # Each text's target is its teacher's vector: no pairs, so no false negatives.
    "distill": TrainingRecipe(
        loss="distill",
        cl_temperature=1.0,
        learning_rate=3e-4,
        num_train_epochs=3,
        per_device_train_batch_size=32,
        warmup_ratio=0.1,
        weighted=False,
        shuffle=True,
    ),
    # perspective/2_finetune/scripts/finetune_gte.sh of the published pipeline
    "published": TrainingRecipe(
        loss="published",
        cl_temperature=0.1,
        learning_rate=5e-7,
        num_train_epochs=8,
        per_device_train_batch_size=2,
        warmup_ratio=0.0,
        weighted=False,
        shuffle=False,
    ),
}


@dataclass(frozen=True)
class StepSettings:
    """Settings that all training shares: text length, seed, checkpoints."""

    max_source_length: int = option("cut texts to this many tokens, if the embedder takes that many", default=512)
    seed: int = option("random seed", default=100)
    save_steps: int = option("steps between the checkpoints from which a killed run resumes", default=32, group="scale")
    resume: bool = option("resume from the last checkpoint of a killed run", default=True, group="scale")


@dataclass(frozen=True)
class WarmedUpSettings(StepSettings):
    """What trainings without a recipe share: warm-up, checks, fingerprint.

    Subclasses have the fields `learning_rate`, `num_train_epochs` and `per_device_train_batch_size`.
    """

    warmup_ratio: float = option("fraction of the steps in which the learning rate rises", default=0.1)

    def __post_init__(self) -> None:
        """Check values."""
        require_above_zero(self, "learning_rate", "num_train_epochs")
        require_least(self, max_source_length=1, save_steps=1, per_device_train_batch_size=1)
        if not 0 <= self.warmup_ratio < 1:
            raise DataError(f"--warmup_ratio {self.warmup_ratio}: must be at least 0 and below 1")

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change the model, for the fingerprint."""
        return {name: value for name, value in asdict(self).items() if name not in ("save_steps", "resume")}


@dataclass(frozen=True)
class PairTrainSettings(WarmedUpSettings):
    """What trainings on pairs of queries and documents share."""

    num_negatives: int = option("train on the first hard negatives of a pair, up to this many; 0 for none", default=1)
    max_pairs: int | None = option("train on a random sample of this many pairs", default=None)

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        require_least(self, max_pairs=1, num_negatives=0)


@dataclass(frozen=True)
class TrainSettings(StepSettings, RecipeOptions):
    """How the embedder is trained; values that are left out come from the recipe."""

    loss: LossName | None = option(
        "loss of triplets: published, infonce (all in-batch negatives) or triplet (logistic, no in-batch negatives)",
        default=None,
    )
    cl_temperature: float | None = option("divides the cosine similarities in the loss", default=None)
    learning_rate: float | None = option("peak learning rate of AdamW", default=None)
    num_train_epochs: float | None = option("passes over the triplets", default=None)
    per_device_train_batch_size: int | None = option(
        "triplets or texts a step, over all processes: the number of processes changes no result", default=None
    )
    weighted: bool | None = option("weight triplets by the judge's confidence", default=None)
    lora_rank: int | None = option(
        "train LoRA adapters of this rank on all linear layers, merged at the end; 0 trains all weights", default=None
    )

    def __post_init__(self) -> None:
        """Check values."""
        require_above_zero(self, "cl_temperature", "learning_rate", "num_train_epochs")
        require_least(self, per_device_train_batch_size=1, max_source_length=1, save_steps=1, lora_rank=0)

    def resolve(self) -> TrainingRecipe:
        """Return the recipe, overridden by the given options."""
        recipe = RECIPES[self.recipe or "standard"]
        given = {name: getattr(self, name) for name in asdict(recipe) if getattr(self, name, None) is not None}
        resolved = replace(recipe, **given)
        if (resolved.loss == "distill") != (recipe.loss == "distill"):
            raise DataError(f"--loss {resolved.loss}: does not fit --recipe {self.recipe}")
        if recipe.loss == "distill" and not (self.cl_temperature is None and self.weighted is None):
            raise DataError("--cl_temperature and --weighted: are for triplets; --recipe distill learns from a teacher")
        return resolved

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change the model, for the fingerprint."""
        return {**asdict(self.resolve()), "max_source_length": self.max_source_length, "seed": self.seed}
