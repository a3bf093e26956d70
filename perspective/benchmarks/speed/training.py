"""Loss and an epoch of fine-tuning against the published loops; attention in training against PyTorch's fused one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from perspective.artifacts import Output, TrainingTriplet
from perspective.benchmarks.baselines import published_training
from perspective.benchmarks.random_models import count_parameters
from perspective.benchmarks.speed.comparison import (
    Row,
    SpeedSettings,
    describe_rate,
    embed_dataset,
    read_texts,
    time_pairs,
)
from perspective.models.embedders import load_embedder
from perspective.models.embedding import count_tokens
from perspective.training.attention import use_matrix_products
from perspective.training.finetuning import finetune_embedder
from perspective.training.losses import PublishedLoss
from perspective.training.settings import TrainSettings
from perspective.triplets.sampling import SampleSettings, sample_triplets

N_TEXTS = 32  # of a step of distillation
EPOCH_STEPS = 512  # of the published loop: 1,024 triplets, two at a time


def bench_loss(settings: SpeedSettings) -> list[Row]:
    """Compute the loss of a batch and its gradient with both."""
    columns = [torch.randn(64, 384, requires_grad=True) for _ in range(3)]
    loss = PublishedLoss(None, published_training.TEMPERATURE)

    def ours() -> torch.Tensor:
        value = loss.compute_loss_from_embeddings(columns, None)
        value.backward()
        return value

    def other() -> torch.Tensor:
        value = published_training.double_loop_loss(*columns)
        value.backward()
        return value

    difference = abs(ours().item() - other().item())
    seconds = time_pairs(lambda: [ours() for _ in range(20)], other, settings.n_pairs)
    return [
        Row(
            "loss and gradient, batch 64",
            "the published double loop",
            "50x",
            seconds[0] / 20,
            seconds[1],
            20 * seconds[2],
            f"differ by {difference:.1e}",
        )
    ]


def bench_training(settings: SpeedSettings) -> list[Row]:
    """Fine-tune for one epoch with ours, and for a few steps with the published loop."""
    texts = read_texts("banking77")
    sampled, _ = sample_triplets(embed_dataset("banking77"), SampleSettings())
    triplets = [
        TrainingTriplet("", texts[one.query_idx], texts[one.choice1_idx], texts[one.choice2_idx], one)
        for one in sampled
    ]
    n_steps = 3

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train = TrainSettings(recipe="standard", num_train_epochs=1.0)
            finetune_embedder(load_embedder("minilm"), triplets, train, Output(Path(folder) / "model", "embedder", {}))

    def other() -> None:
        published_training.train(load_embedder("minilm"), triplets, n_steps)

    one, part, ratio = time_pairs(ours, other, settings.n_pairs)
    model = load_embedder("minilm")
    n_tokens = sum(count_tokens(model, [text for t in triplets for text in (t.anchor, t.positive, t.negative)]))
    flop = 6 * count_parameters(model.transformers_model) * n_tokens
    return [
        Row(
            f"fine-tuning, an epoch of {len(triplets)} triplets",
            f"the published loop ({n_steps} of its {EPOCH_STEPS} steps timed)",
            "100x",
            one,
            part / n_steps * EPOCH_STEPS,
            ratio / n_steps * EPOCH_STEPS,
            "other batches and learning rate: see the study for the gains of both recipes",
            f"{describe_rate(flop, one, (256, 384, 1536))}, over loading, training and saving",
        )
    ]


def bench_attention(settings: SpeedSettings) -> list[Row]:
    """Compute gradients in bfloat16 with attention by matrix products and with PyTorch's fused attention."""
    model = load_embedder("minilm").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # as in distillation; with dropout PyTorch has no fused attention on a CPU
    model.transformers_model.get_input_embeddings().requires_grad_(False)
    texts = sorted(read_texts("banking77"), key=len)[1500 : 1500 + N_TEXTS]
    features = model.preprocess(texts)

    def compute_gradient() -> torch.Tensor:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            vectors = model(features)["sentence_embedding"]
        vectors.float().square()[:, ::2].sum().backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    def ours() -> torch.Tensor:
        use_matrix_products()
        return compute_gradient()

    def other() -> torch.Tensor:
        AttentionInterface.register("sdpa", sdpa_attention_forward)
        return compute_gradient()

    cosine = float(torch.cosine_similarity(ours().double(), other().double(), dim=0))
    seconds = time_pairs(lambda: [ours() for _ in range(20)], lambda: [other() for _ in range(20)], settings.n_pairs)
    return [
        Row(
            f"gradient of {N_TEXTS} texts of {features['input_ids'].shape[1]} tokens, minilm in bfloat16",
            "PyTorch's fused attention",
            "stated",
            seconds[0] / 20,
            seconds[1] / 20,
            seconds[2],
            f"cosine {cosine:.4f}",
        )
    ]
