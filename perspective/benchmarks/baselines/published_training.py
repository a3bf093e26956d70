"""The published fine-tuning as a plain loop: batch 2, padding to 512 tokens, loops in the loss.

After ClusterLLM (Zhang et al., 2023), which trains as INSTRUCTOR (Su et al., 2023) does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from perspective.artifacts import TrainingTriplet

BATCH_SIZE, MAX_LENGTH, LEARNING_RATE, TEMPERATURE = 2, 512, 5e-7, 0.1


def double_loop_loss(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the loss of INSTRUCTOR, section 2.3, with one similarity at a time."""
    forward, backward = [], []
    for i in range(len(anchors)):
        scores = [cosine_similarity(anchors[i], positives[i], dim=0)]
        for j in range(len(negatives)):
            scores.append(cosine_similarity(anchors[i], negatives[j], dim=0))
        forward.append(torch.stack(scores) / temperature)
    for i in range(len(positives)):
        scores = [cosine_similarity(positives[i], anchors[i], dim=0)]
        for j in range(len(anchors)):
            if j != i:
                scores.append(cosine_similarity(positives[i], anchors[j], dim=0))
        backward.append(torch.stack(scores) / temperature)
    targets = torch.zeros(len(anchors), dtype=torch.long)
    return cross_entropy(torch.stack(forward), targets) + cross_entropy(torch.stack(backward), targets)


def train(model: SentenceTransformer, triplets: Sequence[TrainingTriplet], n_steps: int) -> list[float]:
    """Train a SentenceTransformer in file order for some steps; return the losses."""
    body, tokenizer = model.transformers_model, model.tokenizer
    optimizer = torch.optim.AdamW(body.parameters(), lr=LEARNING_RATE)
    body.train()
    losses = []
    for step in range(n_steps):
        batch = triplets[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        columns = []
        for texts in zip(*((t.anchor, t.positive, t.negative) for t in batch), strict=True):
            tokens = tokenizer(
                list(texts), padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
            )
            states = body(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].float()
            columns.append((states * mask).sum(1) / mask.sum(1))
        loss = double_loop_loss(*columns)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
