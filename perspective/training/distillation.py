"""Distil a teacher's vectors into the embedder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from perspective.artifacts import Output
from perspective.errors import DataError
from perspective.models.prompts import get_prompt
from perspective.runtime.distributed import n_processes
from perspective.training.finetuning import save_unchanged_embedder
from perspective.training.model_card import describe_training
from perspective.training.run import DivergenceError, RunSettings, limit_length, run_training, save_trained
from perspective.training.settings import TrainSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# The default rate suits small embedders but can break a large one: training then restarts at a third and a ninth.
RATE_STEP = 3
N_RATES = 3
MAX_NUMBERS = 2**31  # of a column of the library's data set
NEGLIGIBLE = 1e-3  # error before training, of the teacher's variance: what rounding to bfloat16 makes
N_COMPARED = 256  # texts on which the error before and after is measured


def distill_embedder(
    model: SentenceTransformer, texts: Sequence[str], teacher: np.ndarray, settings: TrainSettings, output: Output
) -> None:
    """Train an embedder until each text's vector is its teacher's, and write it as `finetune_embedder` does.

    The loss is the mean squared error, as in Reimers & Gurevych (2020); here the student is itself
    one half of the teacher. If the loss becomes NaN, or the error is not smaller after training than
    before, training restarts at a lower learning rate, unless the settings give one. This check
    needs no labels.

    Args:
        model: The base embedder; changed in place.
        texts: All texts.
        teacher: One vector a text, `(n_texts, dim)`, with the embedder's dim.
        settings: How to train.
        output: The folder to write; the learning rate that was used is added to its facts.

    Raises:
        DataError: The teacher does not fit the texts or the embedder, or is too large.
        DivergenceError: Training failed at the lowest rate as well.
    """
    from datasets import Dataset
    from sentence_transformers.losses import MSELoss

    from perspective.training.batch_samplers import LengthBatchSampler

    dim = model.get_embedding_dimension()
    if teacher.shape != (len(texts), dim):
        raise DataError(f"the teacher has shape {teacher.shape}, not ({len(texts)}, {dim}); is it from another run?")
    if teacher.size >= MAX_NUMBERS:
        raise DataError(
            f"{len(texts):,} texts of {dim} dimensions are more than can be trained on: adapt on a sample "
            "(run.sh --adapt_on 20000)"
        )
    output.facts["n_texts"] = len(texts)
    dataset = Dataset.from_dict({"sentence": list(texts), "label": np.asarray(teacher, dtype=np.float32)})
    loss_class = MSELoss
    if n_processes() > 1:
        from perspective.training.shared_batches import SharedMSELoss as loss_class
    run = RunSettings.collect(settings.resolve(), settings)
    prompt = get_prompt(model) or None
    # The word vectors keep their place, so words that these texts lack keep their meaning; and their optimiser
    # steps, half of all, are saved.
    if (body := model.transformers_model) is not None:
        body.get_input_embeddings().requires_grad_(False)
    _turn_dropout_off(model)
    limit_length(model, settings.max_source_length)  # before the error is measured, on texts as they are trained on
    initial_state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    compared = np.random.default_rng(settings.seed).permutation(len(texts))[:N_COMPARED]
    measure = partial(_measure_error, model, [texts[row] for row in compared], teacher[compared])
    before = measure()
    if before <= NEGLIGIBLE * float(teacher[compared].var(axis=0).mean()):
        logger.info("the teacher is the embedder itself: nothing to learn")
        save_unchanged_embedder(model, output)
        return
    for n_left in reversed(range(N_RATES if settings.learning_rate is None else 1)):
        try:
            history = run_training(model, dataset, loss_class(model), LengthBatchSampler, prompt, run, output)
            _require_smaller_error(measure(), before, run.learning_rate)
            break
        except DivergenceError as error:
            if not n_left:
                raise
            run = replace(run, learning_rate=run.learning_rate / RATE_STEP, resume=False)
            logger.warning("%s; training again at learning rate %.3g", error.reason, run.learning_rate)
            model.load_state_dict(initial_state)
    # From the history: a resumed run continues at the rate of its checkpoint, which may be a lower one.
    output.facts["peak_learning_rate"] = max(entry["learning_rate"] for entry in history)
    save_trained(model, history, output, describe_training)


def _turn_dropout_off(model: SentenceTransformer) -> None:
    """Dropout would keep the student from its teacher: the targets are smoothed already. Not saved with the model."""
    from torch.nn import Dropout

    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.0


def _require_smaller_error(after: float, before: float, learning_rate: float) -> None:
    if not after < before:  # NaN, too
        reason = f"training led away from the teacher: mean squared error {before:.3g} before, {after:.3g} after"
        raise DivergenceError(reason, learning_rate)


def _measure_error(model: SentenceTransformer, texts: list[str], teacher: np.ndarray) -> float:
    """Return the mean squared error that training minimises; NaN if the embedder returns NaN."""
    vectors = model.encode(texts, show_progress_bar=False)  # embed_texts raises an error at NaN
    return float(np.square(vectors - teacher).mean())
