"""Fine-tune an embedder on triplets. No labels are used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from perspective.artifacts import Output, TrainingTriplet
from perspective.errors import DataError
from perspective.models.prompts import get_prompt, set_prompt
from perspective.runtime.distributed import n_processes
from perspective.training.model_card import describe_training
from perspective.training.run import RunSettings, run_training, save_trained
from perspective.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)


def finetune_embedder(
    model: SentenceTransformer, triplets: Sequence[TrainingTriplet], settings: TrainSettings, output: Output
) -> None:
    """Fine-tune an embedder on triplets and write it as a folder that `SentenceTransformer(path)` loads.

    Training texts get the same prompt as at embedding time: the triplets' instruction, or else the
    embedder's own prompt. Checkpoints are kept in `<folder>.partial/` until the result is complete;
    a killed run resumes from the last complete one.

    Args:
        model: The base embedder; changed in place.
        triplets: If empty (an unreliable judge), the embedder is written unchanged.
        settings: How to train.
        output: The folder to write; the number of steps and the loss are added to its facts.

    Raises:
        DataError: The triplets have different instructions, or all have weight 0.
    """
    from sentence_transformers.sentence_transformer.training_args import BatchSamplers

    from perspective.training.batch_samplers import keep_order
    from perspective.training.losses import LOSSES

    output.facts["n_triplets"] = len(triplets)
    recipe = settings.resolve()
    if not triplets:
        save_unchanged_embedder(model, output)
        return
    _set_instruction_as_prompt(model, triplets)
    gather = n_processes() > 1
    loss = LOSSES[recipe.loss](model, temperature=recipe.cl_temperature, gather=gather)
    sampler = BatchSamplers.NO_DUPLICATES if recipe.shuffle else keep_order
    dataset = _make_dataset(triplets, recipe.weighted)
    run = RunSettings.collect(recipe, settings)
    history = run_training(model, dataset, loss, sampler, get_prompt(model) or None, run, output)
    save_trained(model, history, output, describe_training)


def save_unchanged_embedder(model: SentenceTransformer, output: Output) -> None:
    """Write an embedder unchanged, when there are no usable judgments to train on."""
    logger.info("nothing to train on: the embedder is written unchanged")
    output.record.unchanged = True
    save_trained(model, [], output, describe_training)


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
            raise DataError("every training triplet has weight 0: the judge's confidence is 0 everywhere")
    return Dataset.from_dict(columns)


def _set_instruction_as_prompt(model: SentenceTransformer, triplets: Sequence[TrainingTriplet]) -> None:
    """Set the triplets' instruction as the model's prompt, so that embedding uses it as training did."""
    instructions = {triplet.instruction for triplet in triplets}
    if len(instructions) > 1:
        raise DataError(
            f"the training triplets have {len(instructions)} different instructions; train on one data set at a time"
        )
    instruction = instructions.pop()
    if instruction:
        set_prompt(model, instruction)
