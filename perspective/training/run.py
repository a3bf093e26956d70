"""Run a training with the trainer of sentence-transformers, resume it after a kill, save the model."""

from __future__ import annotations

import json
import logging
import math
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perspective.artifacts import Output, explain_full_disk
from perspective.errors import DataError, ModelError
from perspective.runtime.devices import pick_device, trains_in_bf16
from perspective.runtime.distributed import is_main, main_first, n_processes, process_index, wait
from perspective.runtime.memory import is_out_of_memory
from perspective.training.adapters import (
    ADAPTERS,
    add_adapters,
    load_adapters,
    merge_adapters,
    remove_adapters,
    save_adapters,
)
from perspective.training.attention import use_matrix_products
from perspective.training.history import write_history

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers
    from torch.utils.data import BatchSampler

logger = logging.getLogger(__name__)


class DivergenceError(ModelError):
    """Training diverged: NaN or infinite values, or a model that is worse than before."""

    def __init__(self, reason: str, learning_rate: float) -> None:
        super().__init__(f"{reason}; lower --learning_rate (now {learning_rate:g}), and add --no_resume")
        self.reason = reason


MAX_CHECKPOINTS = 50  # of a long run: a kill loses at most a fiftieth of it


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run, apart from its data and loss.

    Attributes:
        num_train_epochs: Passes over the data.
        per_device_train_batch_size: Rows a step, over all processes.
        learning_rate: Peak learning rate of AdamW.
        warmup_ratio: Fraction of the steps in which the learning rate rises.
        max_source_length: Texts are cut to this many tokens, if the embedder takes that many.
        seed: For shuffling and dropout.
        lora_rank: Rank of the adapters, which are merged at the end; 0 trains all weights.
        weight_decay: Decoupled weight decay of AdamW.
        warmup_steps: Steps in which the learning rate rises, in place of `warmup_ratio`, if given.
        save_steps: Minimum number of steps between two checkpoints; a run writes about `MAX_CHECKPOINTS` at most.
        resume: Whether to resume from the last checkpoint of a killed run.
    """

    num_train_epochs: float
    per_device_train_batch_size: int
    learning_rate: float
    warmup_ratio: float
    max_source_length: int
    seed: int
    save_steps: int
    resume: bool
    lora_rank: int = 0
    weight_decay: float = 0.0
    warmup_steps: int | None = None

    @classmethod
    def collect(cls, *sources: object) -> RunSettings:
        """Take each value from the first source that has an attribute of its name."""
        found = {
            name: getattr(source, name)
            for source in reversed(sources)
            for name in (field.name for field in fields(cls))
            if hasattr(source, name)
        }
        return cls(**found)


def run_training(
    model: SentenceTransformer | CrossEncoder,
    dataset: Dataset,
    loss: torch.nn.Module,
    sampler: BatchSamplers | Callable[..., BatchSampler],
    prompts: str | Mapping[str, str] | None,
    settings: RunSettings,
    output: Output,
) -> list[dict[str, float]]:
    """Train a model; resume from the last complete checkpoint of a killed run, if there is one.

    Checkpoints are kept in `<folder>.partial/`; `save_trained` removes them.

    Args:
        model: Changed in place; adapters are merged.
        dataset: Columns of texts, and optionally "label".
        loss: The loss, built on the model.
        sampler: Groups the rows into batches.
        prompts: Prepended to the texts: one prompt for all columns, or one by column.
        settings: How to train.
        output: The folder that will hold the model; checkpoints with another fingerprint are refused.

    Returns:
        The log entry of each step, with its loss.

    Raises:
        DataError: The checkpoints belong to other inputs or settings, or several processes cannot
            share a batch evenly.
        DivergenceError: The loss or a weight became NaN or infinite.
        ModelError: The embedder has different modules for queries and documents.
    """
    from sentence_transformers.sentence_transformer.modules import Router
    from transformers import set_seed

    if any(isinstance(module, Router) for module in model.modules()):
        raise ModelError("an embedder with different modules for queries and documents cannot be trained here")
    trainer_class, arguments_class = _pick_trainer(model)
    limit_length(model, settings.max_source_length)
    batch_size = _split_batch_size(settings.per_device_train_batch_size)
    device = pick_device()
    with main_first():
        checkpoint = _find_checkpoint(output.open_partial()) if settings.resume else None
        if checkpoint is None and is_main():
            output.open_partial(restart=True)
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint.name)
    use_matrix_products()
    set_seed(settings.seed)
    model.model_card_data.generate_widget_examples = False  # we write our own card
    if settings.lora_rank:
        add_adapters(model, settings.lora_rank)
    arguments = arguments_class(
        output_dir=str(output.partial),
        num_train_epochs=settings.num_train_epochs,
        per_device_train_batch_size=batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps or settings.warmup_ratio,  # below 1: a share of all steps
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        bf16=trains_in_bf16(),
        batch_sampler=sampler,
        prompts=prompts,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=max(settings.save_steps, _count_steps(len(dataset), settings) // MAX_CHECKPOINTS),
        save_total_limit=2,
        report_to="none",
        dataloader_pin_memory=False,
        # Without it the trainer takes bf16 as a request for a GPU, and so do several processes.
        use_cpu=device == "cpu" or (n_processes() > 1 and device != "cuda"),
    )
    # The trainer changes these if it finds several processes or GPUs; keep the batches of one process.
    arguments.dataloader_drop_last = False
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # DataParallel would give each copy of the model only a part of the negatives
    output.facts["training_dtype"] = "bfloat16" if arguments.bf16 else "float32"
    trainer = trainer_class(model=model, args=arguments, train_dataset=dataset, loss=loss, callbacks=[])
    _log_through_tqdm(trainer)
    _stop_at_divergence(trainer, settings.learning_rate)
    if settings.lora_rank:
        trainer._load_from_checkpoint = lambda folder: load_adapters(model, Path(folder))  # noqa: SLF001
    if n_processes() > 1:
        output.facts["n_processes"] = n_processes()
    if not is_main():
        set_seed(settings.seed + process_index())  # each process has other texts and needs other dropout
    try:
        with explain_full_disk(output.partial):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            "out of memory in training: lower --mini_batch_size where there is one, otherwise "
            "--per_device_train_batch_size or --max_source_length, or train adapters (--lora_rank 16)"
        ) from None
    except DivergenceError:
        if settings.lora_rank:
            remove_adapters(model)  # so that the caller can train the model again
        raise
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # all processes take part
        if not is_main():
            return history
        replace_shards(model, state)
    if settings.lora_rank:
        if is_main():
            save_adapters(model, output.partial / ADAPTERS, output.facts.get("model"))
        merge_adapters(model)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise DivergenceError("the weights are NaN or infinite after training", settings.learning_rate)
    return history


def limit_length(model: SentenceTransformer | CrossEncoder, max_tokens: int) -> None:
    """Let a model read no more tokens of a text than given; static embedders have no limit, and read all."""
    with suppress(AttributeError):
        model.max_seq_length = min(model.max_seq_length or max_tokens, max_tokens)


def _pick_trainer(model: torch.nn.Module) -> tuple[Any, Any]:
    """Return the trainer for the model's class, and the class of its arguments."""
    import sentence_transformers as library

    if isinstance(model, library.CrossEncoder):
        return library.CrossEncoderTrainer, library.CrossEncoderTrainingArguments
    if n_processes() > 1:
        from perspective.training.shared_batches import SharedTrainer

        return SharedTrainer, library.SentenceTransformerTrainingArguments
    return library.SentenceTransformerTrainer, library.SentenceTransformerTrainingArguments


def replace_shards(model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put whole weights in the places of those that a library shards over processes.

    Args:
        model: The model, whose parameters are shards.
        state: The whole weights by name, on the CPU.
    """
    from torch.nn import Parameter

    for name, shard in list(model.named_parameters()):
        place, _, last = name.rpartition(".")
        model.get_submodule(place).register_parameter(last, Parameter(state[name], requires_grad=shard.requires_grad))


def save_trained(
    model: SentenceTransformer | CrossEncoder,
    history: Sequence[dict[str, float]],
    output: Output,
    describe: Callable[[Output], str],
    save_more: Callable[[Path], None] | None = None,
) -> None:
    """Write a model in the main process, while the others wait, and remove its checkpoints.

    Args:
        model: The trained model.
        history: As returned by `run_training`; empty if nothing was trained.
        output: The folder to write; the number of steps, the first and the last loss are added to its facts.
        describe: Returns the model card; called when all facts are known.
        save_more: Writes further files into the folder, if given.
    """
    if history:
        output.facts["n_steps"] = int(history[-1]["step"])
        output.facts["first_loss"] = history[0]["loss"]
        output.facts["final_loss"] = history[-1]["loss"]
    if is_main():
        with output.open() as folder:
            model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
            if (output.partial / ADAPTERS).exists():
                shutil.copytree(output.partial / ADAPTERS, folder / ADAPTERS)
            write_history(folder, history)
            if save_more is not None:
                save_more(folder)
            (folder / "README.md").write_text(describe(output), encoding="utf-8")
        output.discard_partial()
    wait()


def _count_steps(n_rows: int, settings: RunSettings) -> int:
    return math.ceil(n_rows / settings.per_device_train_batch_size * settings.num_train_epochs)


def _split_batch_size(batch_size: int) -> int:
    """Return the number of rows of a batch for each process."""
    share, rest = divmod(batch_size, n_processes())
    if rest:
        raise DataError(
            f"--per_device_train_batch_size {batch_size}: {n_processes()} processes cannot share it evenly; choose a "
            f"multiple of {n_processes()}"
        )
    return share


def _find_checkpoint(partial: Path) -> Path | None:
    """Return the newest complete checkpoint of an unfinished run, or None."""
    checkpoints = sorted(partial.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return next((path for path in reversed(checkpoints) if _is_complete(path)), None)


def _is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint is complete and can be resumed from.

    The main process writes the trainer's state last, but other processes may still be writing the
    state of their random generators at that time.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(state) and all(zipfile.is_zipfile(path) for path in checkpoint.glob("rng_state*.pth"))


def _log_through_tqdm(trainer: Any) -> None:  # noqa: ANN401
    """Keep the progress bar, without the line that the trainer prints at each logged step."""
    from transformers import PrinterCallback, ProgressCallback

    class QuietProgress(ProgressCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ANN401
            if self.training_bar is not None and logs and "loss" in logs:
                self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3g}")

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(QuietProgress)


def _stop_at_divergence(trainer: Any, learning_rate: float) -> None:  # noqa: ANN401
    """Stop at the first NaN or infinite loss, before a checkpoint of the broken weights is written."""
    from transformers import TrainerCallback

    class StopAtNaN(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ANN401
            loss = float((logs or {}).get("loss", 0.0))
            if not math.isfinite(loss):
                raise DivergenceError(f"the loss is {loss} at step {state.global_step}", learning_rate)

    trainer.add_callback(StopAtNaN)
