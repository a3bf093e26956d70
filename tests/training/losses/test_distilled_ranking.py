"""The distillation loss: computed by hand, padding left out, the same with gradient caching."""

import math

import pytest
import torch

from perspective.training.losses.distilled_ranking import (
    CachedDistilledRankingLoss,
    DistilledRankingLoss,
    compute_distilled_losses,
)
from perspective.training.losses.ranking import compute_ranking_losses


def softmax(values):
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def test_two_queries_by_hand():
    """Cosines of 2 queries with a document and a negative each, temperature 1/2."""
    q = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # lengths do not count
    d = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    e = torch.tensor([[0.8, -0.6], [-0.8, 0.6]])
    teacher = [[2.0, 0.0], [1.0, 1.5]]
    labels = torch.tensor([[1.0, 1.0, *teacher[0]], [1.0, 1.0, *teacher[1]]])
    # Scores of each query: d1, d2, e1, e2, twice the cosine.
    scores = [[1.2, 0.0, 1.6, -1.6], [1.6, 2.0, -1.2, 1.2]]
    own = [[0, 2], [1, 3]]
    wanted = []
    for row in range(2):
        target, student = softmax(teacher[row]), softmax([scores[row][place] for place in own[row]])
        divergence = sum(t * math.log(t / s) for t, s in zip(target, student, strict=True))
        infonce = -math.log(softmax(scores[row])[row])
        wanted.append(divergence + 0.2 * infonce)
    found = compute_distilled_losses([q, d, e], labels, torch.arange(2), scale=2.0)
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)
    loss = DistilledRankingLoss(None, temperature=0.5).compute_loss_from_embeddings([q, d, e], labels)
    assert loss.item() == pytest.approx(sum(wanted) / 2, abs=1e-6)


def draw(n=6, n_columns=3, dim=5):
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(n, dim, generator=generator) for _ in range(2 + n_columns)]
    labels = torch.cat([torch.ones(n, 1 + n_columns), torch.randn(n, 1 + n_columns, generator=generator)], dim=1)
    labels[:, 0] = torch.arange(1, n + 1)
    return embeddings, labels


def test_padding_texts_and_their_scores_count_nothing():
    embeddings, labels = draw()
    labels[2, 2:4] = 0  # the third pair has one hard negative
    labels[4, 1:4] = 0  # the fifth has none
    losses = compute_distilled_losses(embeddings, labels, torch.arange(6), scale=20.0)
    changed = labels.clone()
    changed[2, 6:8] = torch.tensor([9.0, -9.0])
    other = [part.clone() for part in embeddings]
    other[3][2] = other[4][2] = torch.ones(5)
    torch.testing.assert_close(compute_distilled_losses(other, changed, torch.arange(6), scale=20.0), losses)
    infonce = compute_ranking_losses(embeddings, labels[:, :4], torch.arange(6), 20.0)
    assert losses[4].item() == pytest.approx(0.2 * infonce[4].item(), abs=1e-6)  # no group to rank


def test_a_student_that_ranks_as_its_teacher_has_no_divergence():
    embeddings, labels = draw()
    q, *texts = (torch.nn.functional.normalize(part, dim=-1) for part in embeddings)
    labels[:, 4:] = torch.stack([(q * text).sum(-1) for text in texts], dim=1) * 20 + 3  # a constant changes nothing
    infonce = compute_ranking_losses(embeddings, labels[:, :4], torch.arange(6), 20.0)
    found = compute_distilled_losses(embeddings, labels, torch.arange(6), 20.0)
    torch.testing.assert_close(found, 0.2 * infonce, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mini_batch_size", [1, 4, 64])
def test_gradient_caching_changes_no_gradient(embedder_folder, mini_batch_size):
    from dataclasses import replace

    from reranker_files import make_pairs

    from perspective.models.embedders import load_embedder
    from perspective.retrieval.training import make_dataset

    pairs = [
        replace(p, hard_negatives=p.hard_negatives[: row % 4], scores=(1.0, 0.5, -1.0, 0.2)[: 1 + row % 4])
        for row, p in enumerate(make_pairs(8))
    ]
    dataset = make_dataset(pairs, 3, weighted=True, distill=True)
    found = []
    for build in (
        lambda model: DistilledRankingLoss(model, 0.1),
        lambda model: CachedDistilledRankingLoss(model, 0.1, mini_batch_size),
    ):
        model = load_embedder(str(embedder_folder), device="cpu").eval()
        columns = [model.preprocess(list(dataset[name])) for name in dataset.column_names if name != "label"]
        loss = build(model)(columns, torch.tensor(dataset["label"]))
        loss.backward()
        found.append((loss.item(), [p.grad for p in model.parameters() if p.grad is not None]))
    (plain, wanted), (cached, gradients) = found
    assert cached == pytest.approx(plain, abs=1e-5)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
