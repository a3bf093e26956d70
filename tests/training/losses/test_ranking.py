import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from perspective.training.losses import LOSSES
from perspective.training.losses.distilled_ranking import DistilledRankingLoss
from perspective.training.losses.ranking import RankingLoss

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(n_columns, n=6, dim=8):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, dim, generator=generator) for _ in range(2 + n_columns)]


def test_padding_of_several_columns_is_left_out_text_by_text():
    queries, documents, *negatives = embeddings = draw(2)
    labels = torch.ones(6, 3)
    labels[:, 1] = torch.tensor([1, 1, 0, 1, 0, 1])
    labels[:, 2] = torch.tensor([1, 0, 0, 1, 0, 0])
    real = [negatives[column][row] for column in range(2) for row in range(6) if labels[row, 1 + column]]
    scores = normalize(queries, dim=-1) @ normalize(torch.cat([documents, torch.stack(real)]), dim=-1).T / 0.1
    found = RankingLoss(None, 0.1).compute_loss_from_embeddings(embeddings, labels)
    torch.testing.assert_close(found, cross_entropy(scores, torch.arange(6)))


@pytest.mark.parametrize("kind", [RankingLoss, DistilledRankingLoss])
def test_half_precision_of_a_model_does_not_round_the_scores(kind):
    embeddings = draw(1)
    labels = torch.ones(6, 4 if kind is DistilledRankingLoss else 2)
    whole = kind(None, 0.02).compute_loss_from_embeddings(embeddings, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kind(None, 0.02).compute_loss_from_embeddings(embeddings, labels)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss", [*(kind(None, 0.1) for kind in LOSSES.values()), RankingLoss(None, 0.1)])
def test_rows_that_only_fill_a_batch_count_nothing(loss):
    embeddings = draw(1)
    labels = torch.tensor([1.0, 0.5, 1.0, 0.2, 1.0, 1.0])
    labels = torch.stack([labels, torch.ones(6)], dim=1) if isinstance(loss, RankingLoss) else labels
    filled = labels.clone()
    filled[[1, 4]] = torch.nan
    kept = [0, 2, 3, 5]
    expected = loss.compute_loss_from_embeddings([part[kept] for part in embeddings], labels[kept])
    torch.testing.assert_close(loss.compute_loss_from_embeddings(embeddings, filled), expected)
