"""Training triplets, or a teacher's vectors, to a fine-tuned embedder. No label is ever seen here."""

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


def keep_embedder(model: SentenceTransformer, output: Output) -> None:
    """Write an embedder as it is, where nothing that was judged is fit to train on."""
    logger.info("nothing to train on: the embedder stays as it is")
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
