"""Training triplets, or a teacher's vectors, to a fine-tuned embedder. No label is ever seen here."""

from __future__ import annotations

import csv
import json
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.artifacts import Output, TrainingTriplet
from perspective.devices import pick_device, supports_fast_bf16
from perspective.distributed import is_main, main_first, n_processes, process_index, wait
from perspective.errors import DataError, suggest_name
from perspective.models import get_prompt, set_prompt

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers
    from torch.utils.data import BatchSampler

logger = logging.getLogger(__name__)

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

    from perspective.losses import LOSSES
    from perspective.samplers import keep_order

    output.facts["n_triplets"] = len(triplets)
    recipe = settings.resolve()
    if not triplets:
        keep_embedder(model, output)
        return
    _take_over_instruction(model, triplets)
    gather = settings.gather_negatives and n_processes() > 1
    loss = LOSSES[recipe.loss](model, temperature=recipe.cl_temperature, gather=gather)
    sampler = BatchSamplers.NO_DUPLICATES if recipe.shuffle else keep_order
    _train(model, _make_dataset(triplets, recipe.weighted), loss, sampler, settings, output)


def distill_embedder(
    model: SentenceTransformer, texts: Sequence[str], teacher: np.ndarray, settings: TrainSettings, output: Output
) -> None:
    """Train an embedder until each text's vector is its teacher's, and write it as `finetune_embedder` does.

    The loss is the mean squared error, as between a sentence embedder and its teacher in Reimers &
    Gurevych (2020); here the student begins as half of its teacher.

    Args:
        model: The untouched embedder; changed in place.
        texts: All texts.
        teacher: One vector a text, `(n_texts, dim)`, dim that of the embedder.
        settings: How to train.
        output: The folder to make.

    Raises:
        DataError: The teacher does not fit the texts or the embedder.
    """
    from datasets import Dataset
    from sentence_transformers.losses import MSELoss

    from perspective.samplers import LengthBatchSampler

    dim = model.get_embedding_dimension()
    if teacher.shape != (len(texts), dim):
        raise DataError(f"the teacher has shape {teacher.shape}, not ({len(texts)}, {dim}): another run's?")
    output.facts["n_texts"] = len(texts)
    dataset = Dataset.from_dict({"sentence": list(texts), "label": teacher.tolist()})
    loss_class = MSELoss
    if n_processes() > 1:
        from perspective.shared_training import SharedMSELoss as loss_class
    _train(model, dataset, loss_class(model), LengthBatchSampler, settings, output)


def keep_embedder(model: SentenceTransformer, output: Output) -> None:
    """Write an embedder as it is, where nothing that was judged is fit to train on."""
    logger.info("nothing to train on: the embedder stays as it is")
    output.facts["unchanged"] = True
    _save(model, [], output)


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


def _train(
    model: SentenceTransformer,
    dataset: Dataset,
    loss: torch.nn.Module,
    sampler: BatchSamplers | Callable[..., BatchSampler],
    settings: TrainSettings,
    output: Output,
) -> None:
    """Run the trainer, resuming where a killed run left off, and write the embedder."""
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from transformers import set_seed

    trainer_class = SentenceTransformerTrainer
    if n_processes() > 1:
        from perspective.shared_training import SharedTrainer as trainer_class

    model.max_seq_length = min(model.max_seq_length or settings.max_source_length, settings.max_source_length)
    recipe = settings.resolve()
    batch_size = _share_batch(recipe.per_device_train_batch_size)
    with main_first():
        checkpoint = _find_checkpoint(output.open_partial()) if settings.resume else None
        if checkpoint is None and is_main():
            output.open_partial(anew=True)
    if checkpoint is not None:
        logger.info("going on from %s", checkpoint.name)
    set_seed(settings.seed)
    model.model_card_data.generate_widget_examples = False  # the card is our own
    if recipe.lora_rank:
        _add_adapters(model, recipe.lora_rank)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output.partial),
        num_train_epochs=recipe.num_train_epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_ratio,
        seed=settings.seed,
        bf16=supports_fast_bf16(),
        batch_sampler=sampler,
        prompts=get_prompt(model) or None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=settings.save_steps,
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=False,
        use_cpu=n_processes() > 1 and pick_device() != "cuda",  # without it, no processes are looked for
    )
    # What the trainer changes where it finds several processes or GPUs; the batches stay those of one.
    arguments.dataloader_drop_last = False
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=dataset,
        loss=loss,
        callbacks=[],
    )
    _log_through_tqdm(trainer)
    if n_processes() > 1:
        output.facts["n_processes"] = n_processes()
    if not is_main():
        set_seed(settings.seed + process_index())  # other texts, so other dropout
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if recipe.lora_rank:
        _merge_adapters(model)
    _save(model, [entry for entry in trainer.state.log_history if "loss" in entry], output)
    if is_main():
        output.discard_partial()


def _share_batch(batch_size: int) -> int:
    """Return how many rows of a batch each process takes."""
    share, rest = divmod(batch_size, n_processes())
    if rest:
        raise DataError(
            f"--per_device_train_batch_size {batch_size}: {n_processes()} processes cannot share it evenly; take a "
            f"multiple of {n_processes()}"
        )
    return share


def _save(model: SentenceTransformer, history: Sequence[dict[str, float]], output: Output) -> None:
    """Write the embedder, in the main process; the others wait for it."""
    if history:
        output.facts["n_steps"] = int(history[-1]["step"])
        output.facts["final_loss"] = history[-1]["loss"]
    if is_main():
        with output.open() as folder:
            model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
            _write_history(folder, history)
            (folder / "README.md").write_text(describe_training(output), encoding="utf-8")
    wait()


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


def _find_checkpoint(partial: Path) -> Path | None:
    """Return the newest whole checkpoint of an unfinished run, or None."""
    checkpoints = sorted(partial.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return next((path for path in reversed(checkpoints) if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    """Tell whether a kill left a checkpoint that can be gone on from.

    The trainer writes its state last, but other processes than the main one may still be writing
    the state of their random numbers then.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(state) and all(zipfile.is_zipfile(path) for path in checkpoint.glob("rng_state*.pth"))


def _add_adapters(model: SentenceTransformer, rank: int) -> None:
    from peft import LoraConfig, TaskType

    model.add_adapter(
        LoraConfig(
            task_type=TaskType.FEATURE_EXTRACTION,
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=0.1,
            target_modules="all-linear",
        )
    )


def _merge_adapters(model: SentenceTransformer) -> None:
    """Fold the adapters into the weights, so that the result needs no peft to load."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    backbone = model.transformers_model
    for name, module in list(backbone.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            backbone.set_submodule(name, module.get_base_layer())
    backbone._hf_peft_config_loaded = False
    del backbone.peft_config


def _log_through_tqdm(trainer: Any) -> None:  # noqa: ANN401
    """Keep the progress bar, drop the line that the trainer prints at each logged step."""
    from transformers import PrinterCallback, ProgressCallback

    class QuietProgress(ProgressCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ANN401
            if self.training_bar is not None and logs and "loss" in logs:
                self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3g}")

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(QuietProgress)


def _write_history(folder: Path, history: Sequence[dict[str, float]]) -> None:
    """Write the loss by step as `loss.csv` and, where there is one, `loss.png`."""
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "epoch", "loss", "learning_rate"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)
    if history:
        from perspective.report import draw_loss

        draw_loss([entry["step"] for entry in history], [entry["loss"] for entry in history], folder / "loss.png")
