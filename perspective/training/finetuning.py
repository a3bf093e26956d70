"""Training triplets, or a teacher's vectors, to a fine-tuned embedder. No label is ever seen here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.artifacts import Output, TrainingTriplet
from perspective.errors import DataError, ModelError, suggest_name
from perspective.models.registry import get_prompt, set_prompt
from perspective.runtime.distributed import n_processes
from perspective.training.run import RunSettings, run_training, save_trained

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# A large embedder may break at the rate by which small ones learn well: it begins again at a third of it, and at a
# ninth.
RATE_STEP = 3
N_RATES = 3
N_COMPARED = 256  # texts by which that is told
LOSS_NAMES = ("published", "infonce", "triplet", "distill")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but its data, model and seed."""

    loss: str
    cl_temperature: float
    learning_rate: float
    num_train_epochs: float
    per_device_train_batch_size: int
    warmup_ratio: float
    weighted: bool
    shuffle: bool
    lora_rank: int = 0


RECIPES = {
    "standard": Recipe(
        loss="published",
        cl_temperature=0.1,
        learning_rate=2e-5,
        num_train_epochs=4,
        per_device_train_batch_size=32,
        warmup_ratio=0.1,
        weighted=True,
        shuffle=True,
    ),
    # Every text is drawn to its teacher's vector: no pairs, so no false negatives.
    "distill": Recipe(
        loss="distill",
        cl_temperature=1.0,
        learning_rate=3e-4,
        num_train_epochs=3,
        per_device_train_batch_size=64,
        warmup_ratio=0.1,
        weighted=False,
        shuffle=True,
    ),
    # perspective/2_finetune/scripts/finetune_gte.sh of the published pipeline
    "published": Recipe(
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
class TrainSettings:
    """How the embedder is trained; what is left out comes from the recipe."""

    recipe: str | None = field(
        default=None,
        metadata={
            "help": "distill (a teacher's vectors), standard (triplets) or published (triplets; batch 2, learning "
            "rate 5e-7, 8 epochs, file order); left out, what the judge made decides"
        },
    )
    loss: str | None = field(
        default=None,
        metadata={
            "help": "of triplets: published, infonce (all in-batch negatives) or triplet (logistic, no in-batch "
            "negatives)"
        },
    )
    cl_temperature: float | None = field(default=None, metadata={"help": "divides the cosine similarities in the loss"})
    learning_rate: float | None = field(default=None, metadata={"help": "peak learning rate of AdamW"})
    num_train_epochs: float | None = field(default=None, metadata={"help": "passes over the triplets"})
    per_device_train_batch_size: int | None = field(
        default=None,
        metadata={"help": "triplets or texts a step, those of all processes together: their number changes no result"},
    )
    weighted: bool | None = field(default=None, metadata={"help": "weigh triplets by how sure the judge was"})
    lora_rank: int | None = field(
        default=None,
        metadata={
            "help": "train LoRA adapters of this rank on all linear layers, merged at the end; 0 trains all weights"
        },
    )
    gather_negatives: bool = field(
        default=True,
        metadata={"help": "of several processes: compare triplets with those of all, as one process would"},
    )
    max_source_length: int = field(
        default=512, metadata={"help": "tokens a text is cut to, if the embedder takes that many"}
    )
    seed: int = field(default=100, metadata={"help": "of shuffling and dropout"})
    save_steps: int = field(
        default=32, metadata={"help": "steps between the checkpoints from which a killed run goes on"}
    )
    resume: bool = field(default=True, metadata={"help": "go on from the last checkpoint of a killed run"})

    def __post_init__(self) -> None:
        """Check values."""
        if self.recipe is not None and self.recipe not in RECIPES:
            raise DataError(f'--recipe "{self.recipe}": {suggest_name(self.recipe, RECIPES)}')
        if self.loss is not None and self.loss not in LOSS_NAMES:
            raise DataError(f'--loss "{self.loss}": {suggest_name(self.loss, LOSS_NAMES)}')
        for name in (
            "cl_temperature",
            "learning_rate",
            "num_train_epochs",
            "per_device_train_batch_size",
            "max_source_length",
            "save_steps",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"--{name} {value}: must be above 0")
        if self.lora_rank is not None and self.lora_rank < 0:
            raise DataError(f"--lora_rank {self.lora_rank}: must not be negative")

    def resolve(self) -> Recipe:
        """Return the recipe with the given options in place of its own."""
        recipe = RECIPES[self.recipe or "standard"]
        given = {name: getattr(self, name) for name in asdict(recipe) if getattr(self, name, None) is not None}
        resolved = replace(recipe, **given)
        if (resolved.loss == "distill") != (recipe.loss == "distill"):
            raise DataError(f"--loss {resolved.loss}: does not fit --recipe {self.recipe}")
        return resolved

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change the model, for the provenance."""
        settings = {**asdict(self.resolve()), "max_source_length": self.max_source_length, "seed": self.seed}
        if n_processes() > 1 and not self.gather_negatives:
            settings |= {"gather_negatives": False, "n_processes": n_processes()}
        return settings


def finetune_embedder(
    model: SentenceTransformer, triplets: Sequence[TrainingTriplet], settings: TrainSettings, output: Output
) -> None:
    """Fine-tune an embedder on triplets and write it as a folder that `SentenceTransformer(path)` loads.

    Texts are trained on as they will be embedded: with the triplets' instruction, or where there
    is none with the embedder's own prompt. Checkpoints lie in `<folder>.partial/` until the result
    is whole; a killed run goes on from the last whole one.

    Args:
        model: The untouched embedder; changed in place.
        triplets: May be empty (an unreliable judge): the embedder is then written unchanged.
        settings: How to train.
        output: The folder to make; gains the number of steps and the mean loss as facts.

    Raises:
        DataError: The triplets carry different instructions, or all have weight 0.
    """
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    from perspective.training.batch_samplers import keep_order
    from perspective.training.losses import LOSSES

    output.facts["n_triplets"] = len(triplets)
    recipe = settings.resolve()
    if not triplets:
        keep_embedder(model, output)
        return
    _take_over_instruction(model, triplets)
    gather = settings.gather_negatives and n_processes() > 1
    loss = LOSSES[recipe.loss](model, temperature=recipe.cl_temperature, gather=gather)
    sampler = BatchSamplers.NO_DUPLICATES if recipe.shuffle else keep_order
    dataset = _make_dataset(triplets, recipe.weighted)
    run = RunSettings.take(recipe, settings)
    history = run_training(model, dataset, loss, sampler, get_prompt(model) or None, run, output)
    save_trained(model, history, output, describe_training)


def distill_embedder(
    model: SentenceTransformer, texts: Sequence[str], teacher: np.ndarray, settings: TrainSettings, output: Output
) -> None:
    """Train an embedder until each text's vector is its teacher's, and write it as `finetune_embedder` does.

    The loss is the mean squared error, as between a sentence embedder and its teacher in Reimers &
    Gurevych (2020); here the student begins as half of its teacher. An embedder that ends farther
    from its teacher than it began is trained anew at a lower learning rate, unless the settings
    name one. Its teacher alone tells that, no label.

    Args:
        model: The untouched embedder; changed in place.
        texts: All texts.
        teacher: One vector a text, `(n_texts, dim)`, dim that of the embedder.
        settings: How to train.
        output: The folder to make; gains the learning rate that it took as a fact.

    Raises:
        DataError: The teacher does not fit the texts or the embedder.
        ModelError: The embedder came no nearer to its teacher, at the lowest rate neither.
    """
    from datasets import Dataset
    from sentence_transformers.losses import MSELoss

    from perspective.training.batch_samplers import LengthBatchSampler

    dim = model.get_embedding_dimension()
    if teacher.shape != (len(texts), dim):
        raise DataError(f"the teacher has shape {teacher.shape}, not ({len(texts)}, {dim}): another run's?")
    output.facts["n_texts"] = len(texts)
    dataset = Dataset.from_dict({"sentence": list(texts), "label": np.asarray(teacher, dtype=np.float32)})
    loss_class = MSELoss
    if n_processes() > 1:
        from perspective.training.shared_batches import SharedMSELoss as loss_class
    run = RunSettings.take(settings.resolve(), settings)
    prompt = get_prompt(model) or None
    untouched = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    compared = np.random.default_rng(settings.seed).permutation(len(texts))[:N_COMPARED]
    measure = partial(_measure_error, model, [texts[row] for row in compared], teacher[compared])
    before = measure()
    for n_left in reversed(range(N_RATES if settings.learning_rate is None else 1)):
        history = run_training(model, dataset, loss_class(model), LengthBatchSampler, prompt, run, output)
        after = measure()
        if after < before:
            break
        told = f"training led away from the teacher: mean squared error {before:.3g} before, {after:.3g} after"
        if not n_left:
            raise ModelError(f"{told}; lower --learning_rate (now {run.learning_rate:g}), and add --no_resume")
        run = replace(run, learning_rate=run.learning_rate / RATE_STEP, resume=False)
        logger.warning("%s; it begins again at learning rate %.3g", told, run.learning_rate)
        model.load_state_dict(untouched)
    # Of the history: a run that was killed may have gone on at the rate of a later beginning.
    output.facts["peak_learning_rate"] = max(entry["learning_rate"] for entry in history)
    save_trained(model, history, output, describe_training)


def keep_embedder(model: SentenceTransformer, output: Output) -> None:
    """Write an embedder as it is, where nothing that was judged is fit to train on."""
    logger.info("nothing to train on: the embedder stays as it is")
    output.facts["unchanged"] = True
    save_trained(model, [], output, describe_training)


def describe_training(output: Output) -> str:
    """Return the model card: data, judge, settings. The measures join it when they are known."""
    facts, judge = output.facts, output.facts.get("judge", {})
    rows = {
        "judge": judge.get("name"),
        "judge's model": judge.get("hub"),
        "judgments": judge.get("n_judgments"),
        **{name: value for name, value in facts.items() if name != "judge"},
        **output.settings,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    unchanged = "\n**Unchanged**: nothing the judge said was fit to train on.\n" if facts.get("unchanged") else ""
    labels = "No label was used in training."
    if judge.get("asked", {}).get("uses_labels"):
        labels = "**Trained on labels**, told by an oracle: a ceiling for analysis, no result."
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: {facts.get("hub", facts.get("model"))}
tags: [sentence-transformers, feature-extraction, clustering]
---
# {output.path.name}

`{facts.get("model")}` adapted to the perspective of `{output.settings.get("dataset")}` with an LLM's judgments.
{labels}
{unchanged}
```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("{output.path.name}").encode(["a text"])
```

| setting | value |
| --- | --- |
{table}
"""


def _measure_error(model: SentenceTransformer, texts: list[str], teacher: np.ndarray) -> float:
    """Return the mean squared error that training minimises; NaN where the embedder gives NaN."""
    vectors = model.encode(texts, show_progress_bar=False)  # embed_texts would end the run at a NaN
    return float(np.square(vectors - teacher).mean())


def _make_dataset(triplets: Sequence[TrainingTriplet], weighted: bool) -> Dataset:
    from datasets import Dataset

    columns: dict[str, list[Any]] = {
        "anchor": [triplet.anchor for triplet in triplets],
        "positive": [triplet.positive for triplet in triplets],
        "negative": [triplet.negative for triplet in triplets],
    }
    if weighted:
        columns["label"] = [triplet.weight for triplet in triplets]
        if not any(columns["label"]):
            raise DataError("every training triplet has weight 0: the judge was sure of nothing")
    return Dataset.from_dict(columns)


def _take_over_instruction(model: SentenceTransformer, triplets: Sequence[TrainingTriplet]) -> None:
    """Make the triplets' instruction the model's prompt, so that it is embedded as it was trained."""
    instructions = {triplet.instruction for triplet in triplets}
    if len(instructions) > 1:
        raise DataError(
            f"the training triplets carry {len(instructions)} different instructions; train on one data set at a time"
        )
    instruction = instructions.pop()
    if instruction:
        set_prompt(model, instruction)
