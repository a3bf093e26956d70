import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.losses import MultipleNegativesRankingLoss

from perspective.training.losses import LOSSES, InfoNCELoss, LogisticTripletLoss, PublishedLoss

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPERATURES = (1.0, 0.05, 0.01)


def draw(n=5, dim=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, dim, generator=generator, dtype=torch.float64) * 3 for _ in range(3)]


def cosine(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True)) / math.hypot(*x) / math.hypot(*y)


def published_terms(anchors, positives, negatives, temperature):
    """INSTRUCTOR, section 2.3, one triplet after the other."""
    a, p, n = (part.tolist() for part in (anchors, positives, negatives))
    terms = []
    for i in range(len(a)):
        own = math.exp(cosine(a[i], p[i]) / temperature)
        others = sum(math.exp(cosine(a[i], n[j]) / temperature) for j in range(len(a)))
        backward = sum(math.exp(cosine(p[i], a[j]) / temperature) for j in range(len(a)))
        terms.append(-math.log(own / (own + others)) - math.log(own / backward))
    return terms


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("n", [1, 5])
def test_published_loss_is_that_of_the_paper(temperature, n):
    embeddings = draw(n)
    terms = published_terms(*embeddings, temperature)
    loss = PublishedLoss(None, temperature)
    assert loss.compute_loss_from_embeddings(embeddings, None).item() == pytest.approx(sum(terms) / n, abs=1e-6)
    weights = torch.arange(1, n + 1) / 4
    weighted = sum(w * term for w, term in zip(weights.tolist(), terms, strict=True)) / weights.sum().item()
    assert loss.compute_loss_from_embeddings(embeddings, weights).item() == pytest.approx(weighted, abs=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_infonce_is_the_ranking_loss_of_sentence_transformers(temperature):
    embeddings = draw()
    theirs = MultipleNegativesRankingLoss(None, scale=1 / temperature)
    expected = theirs.compute_loss_from_embeddings(embeddings, None).item()
    assert InfoNCELoss(None, temperature).compute_loss_from_embeddings(embeddings, None).item() == pytest.approx(
        expected, abs=1e-9
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_triplet_loss_is_its_closed_form(temperature):
    embeddings = draw()
    margins = [
        (cosine(a, n) - cosine(a, p)) / temperature for a, p, n in zip(*(e.tolist() for e in embeddings), strict=True)
    ]
    expected = sum(max(m, 0) + math.log1p(math.exp(-abs(m))) for m in margins) / 5
    found = LogisticTripletLoss(None, temperature).compute_loss_from_embeddings(embeddings, None).item()
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_weights(name):
    loss, embeddings = LOSSES[name](None, 0.1), draw()
    unweighted = loss.compute_loss_from_embeddings(embeddings, None)
    for weight in (1.0, 0.3):
        equal = loss.compute_loss_from_embeddings(embeddings, torch.full((5,), weight))
        torch.testing.assert_close(equal, unweighted)
    own = loss.compute_losses(*(torch.nn.functional.normalize(part, dim=-1) for part in embeddings))
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])
    without = loss.compute_loss_from_embeddings(embeddings, weights)
    torch.testing.assert_close(without, own[[0, 1, 3, 4]].mean())  # its own term is gone
    double = loss.compute_loss_from_embeddings(embeddings, 2 * weights)
    torch.testing.assert_close(double, without)


def test_weight_zero_takes_a_triplet_out_of_the_pure_loss_altogether():
    embeddings = [part.requires_grad_() for part in draw()]
    loss = LogisticTripletLoss(None, 0.1).compute_loss_from_embeddings(
        embeddings, torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    )
    for gradient in torch.autograd.grad(loss, embeddings):
        assert not gradient[1].any()
        assert gradient[[0, 2, 3, 4]].any(dim=1).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", ["random", "equal", "opposite", "weightless"])
def test_gradients_are_finite_and_point_downhill(name, case):
    embeddings = [part.float() for part in draw()]
    if case == "equal":
        embeddings = [embeddings[0].clone() for _ in range(3)]
    if case == "opposite":
        embeddings = [embeddings[0], -embeddings[0], embeddings[0].clone()]
    embeddings = [part.requires_grad_() for part in embeddings]
    weights = torch.zeros(5) if case == "weightless" else torch.rand(5, generator=torch.Generator().manual_seed(1))
    loss_function = LOSSES[name](None, 0.01)
    loss = loss_function.compute_loss_from_embeddings(embeddings, weights)
    gradients = torch.autograd.grad(loss, embeddings)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    if case == "weightless":
        assert loss == 0
    if case == "random":
        # On a sphere only the tangential part acts: a small step must lower the loss.
        stepped = [part - 1e-4 * gradient for part, gradient in zip(embeddings, gradients, strict=True)]
        assert loss_function.compute_loss_from_embeddings(stepped, weights) < loss


@pytest.mark.parametrize("name", LOSSES)
def test_a_real_model_is_trained_through_it(name, embedder_folder):
    model = SentenceTransformer(str(embedder_folder), device="cpu")
    loss_function = LOSSES[name](model, 0.05)
    texts = [["top up", "lost card"], ["bank transfer", "card money"], ["rain", "sun"]]
    features = [model.preprocess(part) for part in texts]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.eval()  # no dropout: two steps can be compared
    losses = []
    for _ in range(3):
        loss = loss_function(features, torch.tensor([1.0, 0.5]))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[1] < losses[0]
