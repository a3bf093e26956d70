"""The loss of M3, computed by hand."""

import math

import pytest
import torch

from perspective.models.embedders import load_embedder
from perspective.models.hybrid import Representations, add_heads, score_ways
from perspective.training.losses.grouping import GROUP_SIZE
from perspective.training.losses.hybrid import HybridLoss

# Two queries, three documents: of each its own, and a hard negative.
SCORES = {
    "dense": [[1.0, 0.0, 0.5], [0.2, 0.6, 0.4]],
    "sparse": [[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]],
    "multi": [[0.7, 0.1, 0.3], [0.5, 0.4, 0.6]],
}
SHARES = {"dense": 1.0, "sparse": 0.1, "multi": 1.0}


def log_softmax(row, temperature):
    scaled = [value / temperature for value in row]
    total = math.log(sum(math.exp(value) for value in scaled))
    return [value - total for value in scaled]


def by_hand(query, temperature, distill):
    summed = [
        SCORES["dense"][query][d] + 0.3 * SCORES["sparse"][query][d] + SCORES["multi"][query][d] for d in range(3)
    ]
    logs = {way: log_softmax(rows[query], temperature) for way, rows in SCORES.items()}
    together = log_softmax(summed, temperature)
    loss = -(sum(SHARES[way] * logs[way][query] for way in SCORES) + together[query]) / 4
    if not distill:
        return loss
    teacher = [math.exp(value) for value in together]
    told = -sum(SHARES[way] * sum(p * log for p, log in zip(teacher, logs[way], strict=True)) for way in SCORES) / 3
    return (loss + told) / 2


@pytest.mark.parametrize("distill", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_loss_is_that_computed_by_hand(temperature, distill):
    scores = {way: torch.tensor(rows) for way, rows in SCORES.items()}
    losses = HybridLoss(None, temperature, distill).compute_losses(scores)
    assert losses.tolist() == pytest.approx(
        [by_hand(0, temperature, distill), by_hand(1, temperature, distill)], rel=1e-5
    )


def test_a_figure_on_paper():
    """All scores 0: each cross-entropy is log 3, so L = 3.1 / 4 log 3 and L' = 2.1 / 3 log 3."""
    scores = {way: torch.zeros(2, 3) for way in SCORES}
    losses = HybridLoss(None, 0.02).compute_losses(scores)
    assert losses.tolist() == pytest.approx([(3.1 / 4 + 2.1 / 3) / 2 * math.log(3)] * 2)


def get_gradients(distill, make_teacher=None):
    scores = {way: torch.tensor(rows, requires_grad=True) for way, rows in SCORES.items()}
    loss = HybridLoss(None, 1.0, distill).compute_losses(scores).sum()
    if make_teacher is not None:  # the distilled part by hand
        teacher = make_teacher((scores["dense"] + 0.3 * scores["sparse"] + scores["multi"]).softmax(-1))
        told = -sum(share * (teacher * scores[way].log_softmax(-1)).sum() for way, share in SHARES.items()) / 3
        loss = (loss + told) / 2
    loss.backward()
    return torch.stack([scores[way].grad for way in SCORES])


def test_the_teacher_has_no_gradient():
    found = get_gradients(distill=True)
    torch.testing.assert_close(found, get_gradients(False, make_teacher=lambda teacher: teacher.detach()))
    assert (found - get_gradients(False, make_teacher=lambda teacher: teacher)).abs().max() > 0.01


def test_the_loss_of_m3_is_over_the_texts_that_were_given(embedder_folder):
    """Of unlike lengths, so that groups reorder them; with padded columns and weights; in half precision too."""
    model = load_embedder(str(embedder_folder), device="cpu").eval()
    torch.nn.init.normal_(add_heads(model, seed=1).lexical.weight, std=0.2)
    n = GROUP_SIZE + 5
    texts = [[f"{'card lost ' * ((7 * row + column) % 9)}{row} {name}" for row in range(n)]
             for column, name in enumerate(("query", "document", "near", "far"))]  # fmt: skip
    labels = torch.ones(n, 3)
    labels[:, 0] = torch.arange(1, n + 1)
    labels[::3, 1] = labels[::2, 2] = 0
    candidates = texts[1] + [texts[1 + part][row] for part in (1, 2) for row in range(n) if labels[row, part]]
    loss = HybridLoss(model, 0.1)
    with torch.no_grad():
        sides = [Representations.from_features(model(model.preprocess(some))) for some in (texts[0], candidates)]
        losses = loss.compute_losses(score_ways(*sides))
        expected = (losses * labels[:, 0]).sum() / labels[:, 0].sum()
        found = loss([model.preprocess(column) for column in texts], labels)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
