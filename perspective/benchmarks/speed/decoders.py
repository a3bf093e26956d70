"""A decoder's training: adapters against all weights, masked next-token prediction against its bare passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from perspective.benchmarks.speed.comparison import Row, SpeedSettings, read_texts, run_alone, time_once, time_pairs
from perspective.models.decoders import make_bidirectional
from perspective.models.embedders import load_embedder
from perspective.pretraining.masking import MaskedNextTokenLoss
from perspective.pretraining.mntp import load_head
from perspective.training.adapters import add_adapters
from perspective.training.losses.ranking import CachedRankingLoss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DECODER = "smollm2"
N_PAIRS = 64
MINI_BATCH = 16
RANK = 16
N_MASKED = 32  # texts in a step of masked next-token prediction


def bench_decoders(settings: SpeedSettings) -> list[Row]:
    """Train a step with adapters and with all weights, each in a process of its own; then mask tokens."""
    (lora, lora_peak), (full, full_peak) = run_alone(step_adapters, N_PAIRS), run_alone(step_weights, N_PAIRS)
    return [
        Row(
            f"a step of {N_PAIRS} pairs, {DECODER}, LoRA of rank {RANK}",
            "all weights",
            "stated",
            lora,
            full,
            full / lora,
            "",
            f"peak memory {lora_peak / 2**30:.2f} against {full_peak / 2**30:.2f} GiB, {MINI_BATCH} texts at a time",
        ),
        _bench_masking(settings),
    ]


def step_adapters(n_pairs: int) -> float:
    """Train a step with adapters; return the seconds."""
    model = load_embedder(DECODER)
    add_adapters(model, RANK)
    return _time_step(model, n_pairs)


def step_weights(n_pairs: int) -> float:
    """Train a step with all weights; return the seconds."""
    return _time_step(load_embedder(DECODER), n_pairs)


def _time_step(model: SentenceTransformer, n_pairs: int) -> float:
    loss = CachedRankingLoss(model.train(), mini_batch_size=MINI_BATCH)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    texts = read_texts("banking77")
    columns = [model.preprocess(texts[start : start + n_pairs]) for start in (0, n_pairs)]
    features = [{name: part[name] for name in ("input_ids", "attention_mask")} for part in columns]

    def step() -> None:
        loss([dict(part) for part in features], torch.ones(n_pairs, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the optimizer makes its moments
    return time_once(step)


def _bench_masking(settings: SpeedSettings) -> Row:
    model = load_embedder(DECODER)
    make_bidirectional(model)
    head = load_head(DECODER, model)
    add_adapters(model.train(), RANK)
    loss = MaskedNextTokenLoss(model, head)
    texts = sorted(read_texts("banking77")[: 4 * N_MASKED], key=len)[-N_MASKED:]
    encoded = model.preprocess(texts)
    features = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    n_tokens = int(features["attention_mask"].sum())

    def bare() -> None:
        model.transformers_model(**features).last_hidden_state.sum().backward()

    def ours() -> None:
        loss([features]).backward()

    def both(run: Callable[[], None]) -> None:
        run()
        model.zero_grad()

    both(ours)
    one, other, ratio = time_pairs(lambda: both(ours), lambda: both(bare), settings.n_pairs)
    return Row(
        f"masked next-token prediction, {N_MASKED} texts, {DECODER}",
        "the bare forward and backward pass of its body",
        "stated",
        one,
        other,
        ratio,
        "",
        f"{n_tokens / one:.0f} against {n_tokens / other:.0f} tokens/s; a fifth of the states go through the head",
    )
