import pytest
import torch
from sentence_transformers import SentenceTransformer

from perspective.training.losses import PublishedLoss
from perspective.training.losses.grouping import GROUP_SIZE, embed_in_groups

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny_embedder(embedder_folder):
    return SentenceTransformer(str(embedder_folder), device="cpu")


def make_columns(model, n=GROUP_SIZE + 3):
    """Three columns of unlike lengths, in no order."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (3, n), generator=generator).tolist()
    return [model.preprocess([" ".join(["card", "lost"][i % 2] for i in range(k)) for k in row]) for row in lengths]


def test_loss_and_gradient_are_those_of_whole_columns(tiny_embedder):
    model = tiny_embedder.eval()  # no dropout, so that both ways are alike
    loss = PublishedLoss(model, temperature=0.1)
    columns = make_columns(model)

    def run(embed):
        model.zero_grad()
        value = loss.compute_loss_from_embeddings(embed([dict(column) for column in columns]), None)
        value.backward()
        return value.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole = run(lambda features: [model(column)["sentence_embedding"] for column in features])
    grouped = run(lambda features: embed_in_groups(model, features))
    torch.testing.assert_close(whole, grouped, atol=1e-5, rtol=1e-4)


def test_groups_are_cut_to_their_own_longest(tiny_embedder):
    columns = make_columns(tiny_embedder)
    widths = []

    def model(features):
        widths.append(features["input_ids"].shape)
        return tiny_embedder(features)

    embeddings = embed_in_groups(model, [dict(column) for column in columns])
    assert [len(part) for part in embeddings] == [len(column["input_ids"]) for column in columns]
    assert max(rows for rows, _ in widths) <= GROUP_SIZE
    n_tokens = sum(int(column["attention_mask"].sum()) for column in columns)
    computed = sum(rows * width for rows, width in widths)
    padded = sum(column["input_ids"].numel() for column in columns)
    assert n_tokens <= computed < 0.8 * padded
