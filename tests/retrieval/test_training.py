import importlib
import json

import numpy as np
import pytest
import torch
from helpers import write_jsonl

from perspective.artifacts import Output, hash_file
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.models.embedders import load_embedder
from perspective.models.prompts import find_prompts, set_retrieval_prompts
from perspective.retrieval.training import RetrieverTrainSettings, _prompts_by_column, make_dataset, train_retriever
from perspective.training.losses.ranking import CachedRankingLoss, RankingLoss


@pytest.fixture
def pairs(sentences):
    """Queries and documents of a card, negatives of the weather; none, one or two of them, and weights."""
    rest = sentences(160)
    return [
        Pair(
            f"card {rest[4 * i]} {i}",
            f"card {rest[4 * i + 1]} {i} document",
            tuple(f"weather {rest[4 * i + 2 + j]} {i} {j}" for j in range(i % 3)),
            weight=0.5 + i / 80,
        )
        for i in range(40)
    ]


def train(folder, embedder_folder, pairs, prompts=(None, None), **settings):
    settings = RetrieverTrainSettings(
        **{"num_train_epochs": 2, "per_device_train_batch_size": 8, "mini_batch_size": 4, "learning_rate": 1e-3}
        | settings
    )
    output = Output(folder, "retriever", {"dataset": "tiny", **settings.made_from()})
    model = load_embedder(str(embedder_folder), device="cpu")
    set_retrieval_prompts(model, "tiny", *prompts)
    train_retriever(model, pairs, settings, output)
    return folder


def load_state(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def get_gradients(embedder_folder, pairs, make_loss, num_negatives=2):
    model = load_embedder(str(embedder_folder), device="cpu").eval()  # without dropout: both draw the same
    dataset = make_dataset(pairs, num_negatives, weighted=True)
    names = [name for name in dataset.column_names if name != "label"]
    loss = make_loss(model)([model.preprocess(list(dataset[name])) for name in names], torch.tensor(dataset["label"]))
    loss.backward()
    return loss.item(), [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("num_negatives", [0, 1, 2])
@pytest.mark.parametrize("mini_batch_size", [1, 7, 64])
def test_cached_and_plain_loss_have_the_same_gradients(embedder_folder, pairs, num_negatives, mini_batch_size):
    plain, wanted = get_gradients(embedder_folder, pairs, lambda model: RankingLoss(model, 0.02), num_negatives)
    cached, found = get_gradients(
        embedder_folder, pairs, lambda model: CachedRankingLoss(model, 0.02, mini_batch_size), num_negatives
    )
    assert cached == pytest.approx(plain, abs=1e-5)
    assert len(found) == len(wanted) > 10
    largest = max(gradient.abs().max().item() for gradient in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(1, largest), rtol=0)


def draw(n_columns, n=6, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, dim, generator=generator, dtype=torch.float64) for _ in range(2 + n_columns)]


def test_loss_is_that_of_sentence_transformers():
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    embeddings = draw(2)
    theirs = MultipleNegativesRankingLoss(None, scale=50).compute_loss_from_embeddings(embeddings, None).item()
    ours = RankingLoss(None, 0.02).compute_loss_from_embeddings(embeddings, torch.ones(6, 3)).item()
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_what_fills_a_column_and_weight_zero_change_nothing():
    loss = RankingLoss(None, 0.1)
    embeddings = draw(1)
    labels = torch.ones(6, 2)
    labels[2:, 1] = 0  # two pairs have a negative
    found = loss.compute_loss_from_embeddings(embeddings, labels)
    queries, documents, negatives = (torch.nn.functional.normalize(part.float(), dim=-1) for part in embeddings)
    scores = queries @ torch.cat([documents, negatives[:2]]).T / 0.1
    own = torch.nn.functional.cross_entropy(scores, torch.arange(6), reduction="none")
    torch.testing.assert_close(found, own.mean())
    labels[:, 0] = torch.tensor([1, 0, 0.5, 0, 0, 0])
    torch.testing.assert_close(loss.compute_loss_from_embeddings(embeddings, labels), (own[0] + own[2] * 0.5) / 1.5)
    labels[:, 0] = 0
    assert loss.compute_loss_from_embeddings(embeddings, labels) == 0


def test_columns_are_filled_with_a_pairs_own_texts(pairs):
    dataset = make_dataset(pairs[:3], 2, weighted=True)
    assert dataset.column_names == ["query", "document", "negative_1", "negative_2", "label"]
    none, one, two = (dataset[row] for row in range(3))
    assert none["negative_1"] == none["negative_2"] == none["document"]
    assert one["negative_2"] == one["negative_1"] == pairs[1].hard_negatives[0]
    assert (two["negative_1"], two["negative_2"]) == pairs[2].hard_negatives
    assert [row["label"][1:] for row in (none, one, two)] == [[0, 0], [1, 0], [1, 1]]
    assert two["label"][0] == pytest.approx(pairs[2].weight)
    assert make_dataset(pairs, 0, weighted=False).column_names == ["query", "document", "label"]


def test_result_retrieves_better_and_leaves_nothing_else(tmp_path, embedder_folder, pairs):
    def rank_one(folder):
        model = load_embedder(str(folder), device="cpu")
        scores = model.encode_query([p.query for p in pairs]) @ model.encode_document([p.document for p in pairs]).T
        return float((scores.argmax(axis=1) == np.arange(len(pairs))).mean())

    folder = train(tmp_path / "out", embedder_folder, pairs, num_train_epochs=20)
    assert rank_one(folder) > rank_one(embedder_folder) + 0.05
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.meta.json"]
    assert {"model.safetensors", "README.md", "loss.csv", "loss.png"} <= {path.name for path in folder.iterdir()}
    facts = json.loads((tmp_path / "out.meta.json").read_text())["facts"]
    assert (facts["n_pairs"], facts["n_hard_negatives"], facts["n_steps"]) == (40, 26, 100)
    assert facts["final_loss"] < facts["first_loss"]
    assert "encode_query" in (folder / "README.md").read_text()


def test_prompts_reach_both_sides(tmp_path, embedder_folder, pairs):
    """Training with prompts is training on texts that carry them; and they are saved with the model."""
    prompts = ("card ", "bank ")
    by_hand = [
        Pair(f"card {p.query}", f"bank {p.document}", tuple(f"bank {t}" for t in p.hard_negatives), p.weight)
        for p in pairs
    ]
    options = {"num_train_epochs": 1, "num_negatives": 2}
    prompted = train(tmp_path / "a", embedder_folder, pairs, prompts, **options)
    plain = train(tmp_path / "b", embedder_folder, by_hand, **options)
    other = train(tmp_path / "c", embedder_folder, pairs, **options)
    hashes = [hash_file(folder / "model.safetensors") for folder in (prompted, plain, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    model = load_embedder(str(prompted), device="cpu")
    np.testing.assert_allclose(model.encode_query(["rain"]), model.encode(["card rain"], prompt=""), atol=1e-6)
    np.testing.assert_allclose(model.encode_document(["rain"]), model.encode(["bank rain"], prompt=""), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "own", "given", "expected"),
    [
        ("minilm", {}, (None, None), ("", "")),
        ("e5", {}, (None, None), ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large", {}, (None, None), ("query: ", "passage: ")),
        ("nlpai-lab/KoE5", {}, (None, None), ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", {}, (None, None), ("", "")),
        ("org/x", {"query": "q: ", "passage": "p: "}, (None, None), ("q: ", "p: ")),
        ("org/x", {"query": "q: ", "document": "d: "}, ("", None), ("", "d: ")),
        ("e5", {}, (None, ""), ("query: ", "")),
        ("gte", {"clustering": "query: "}, (None, None), ("", "")),
        ("runs/tuned_gte", {"clustering": "query: "}, (None, None), ("query: ", "query: ")),
        ("runs/tuned_gte", {"clustering": "query: "}, ("", ""), ("", "")),
    ],
)
def test_prompts_are_the_given_the_models_or_the_familys(embedder_folder, name, own, given, expected):
    model = load_embedder(str(embedder_folder), device="cpu")
    model.prompts = dict(own)
    model.default_prompt_name = "clustering" if "clustering" in own else None
    assert set_retrieval_prompts(model, name, *given) == expected
    columns = ["query", "document", "negative_1", "label"]
    wanted = {"query": expected[0], "document": expected[1], "negative_1": expected[1]}
    assert _prompts_by_column(model, columns) == (wanted if any(expected) else None)
    assert set_retrieval_prompts(model, "as/saved") == expected  # and evaluation reads the same


def test_evaluation_takes_the_empty_prompts_of_training(tmp_path, embedder_folder, sentences):
    texts = sentences(4)
    records = [{"query": texts[i], "document": texts[i + 2]} for i in range(2)]
    train_file = write_jsonl(tmp_path / "train.jsonl", records)
    folder = tmp_path / "docstrings_e5"  # a name of the family that has prompts of its own
    main = importlib.import_module("perspective.6_retrieval.train").main
    options = ["--dataset", "tiny", "--embedder", embedder_folder, "--train_file", train_file, "--output_dir", folder]
    main([*map(str, options), "--query_prompt", "", "--document_prompt", ""])
    model = load_embedder(str(folder), device="cpu")
    assert find_prompts(model, str(folder)) == ("", "")


@pytest.mark.parametrize("mini_batch_size", [0, 4])
def test_lora_is_merged(tmp_path, embedder_folder, pairs, mini_batch_size):
    folder = train(
        tmp_path / "out", embedder_folder, pairs, lora_rank=4, learning_rate=1e-2, mini_batch_size=mini_batch_size
    )
    assert not list(folder.rglob("adapter*"))
    assert set(load_state(folder)) == set(load_state(embedder_folder))
    texts = ["top up", "rain"]
    before, after = (load_embedder(str(path), device="cpu").encode(texts) for path in (embedder_folder, folder))
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize(("mini_batch_size", "lora_rank"), [(4, 0), (0, 4)])
def test_killed_training_goes_on_to_the_same_weights(
    tmp_path, embedder_folder, pairs, monkeypatch, mini_batch_size, lora_rank
):
    from transformers import Trainer

    options = {"save_steps": 3, "mini_batch_size": mini_batch_size, "lora_rank": lora_rank}
    whole = train(tmp_path / "whole", embedder_folder, pairs, **options)
    step, n_steps = Trainer.training_step, 0

    def fail_at_eight(*arguments, **keywords):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 8:
            raise RuntimeError("killed")
        return step(*arguments, **keywords)

    monkeypatch.setattr(Trainer, "training_step", fail_at_eight)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "killed", embedder_folder, pairs, **options)
    assert (tmp_path / "killed.partial" / "checkpoint-6").exists()
    killed = train(tmp_path / "killed", embedder_folder, pairs, **options)
    assert n_steps == 8 + 4  # of 10 steps, six lay in the checkpoint
    for name in ("model.safetensors", "loss.csv"):
        assert hash_file(killed / name) == hash_file(whole / name)


def test_settings_and_pairs_that_do_not_fit(tmp_path, embedder_folder, pairs):
    with pytest.raises(DataError, match="--temperature 0"):
        RetrieverTrainSettings(temperature=0.0)
    with pytest.raises(DataError, match="--mini_batch_size -1"):
        RetrieverTrainSettings(mini_batch_size=-1)
    with pytest.raises(DataError, match="--warmup_ratio 1"):
        RetrieverTrainSettings(warmup_ratio=1.0)
    with pytest.raises(DataError, match=r"1 training pair\(s\)"):
        train(tmp_path / "out", embedder_folder, pairs[:1])
    unsure = [Pair("a", "b", weight=0.0), Pair("c", "d", weight=0.0)]
    with pytest.raises(DataError, match="weight 0"):
        train(tmp_path / "out", embedder_folder, unsure)
    assert not (tmp_path / "out").exists()
