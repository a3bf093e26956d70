import importlib
import json
import re

import numpy as np
import pytest
import torch
from helpers import ROOT, fail_at_step, load_weights, write_jsonl
from safetensors.torch import load_file

from perspective.artifacts import Output, hash_file
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.models.embedders import load_embedder
from perspective.models.prompts import find_prompts, set_retrieval_prompts
from perspective.retrieval.training import RetrieverTrainSettings, make_dataset, prompts_by_column, train_retriever
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


def test_gradient_caching_of_a_decoder_changes_no_gradient(llm_folder, pairs):
    plain, wanted = get_gradients(llm_folder, pairs, lambda model: RankingLoss(model, 0.02))
    cached, found = get_gradients(llm_folder, pairs, lambda model: CachedRankingLoss(model, 0.02, 7))
    assert cached == pytest.approx(plain, abs=1e-5)
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
    assert prompts_by_column(model, columns) == (wanted if any(expected) else None)
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
    assert not list(folder.glob("adapter*")) and (folder / "lora" / "adapter_model.safetensors").exists()
    assert set(load_weights(folder)) == set(load_weights(embedder_folder))
    texts = ["top up", "rain"]
    before, after = (load_embedder(str(path), device="cpu").encode(texts) for path in (embedder_folder, folder))
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize(("mini_batch_size", "lora_rank"), [(4, 0), (0, 4)])
def test_killed_training_goes_on_to_the_same_weights(
    tmp_path, embedder_folder, pairs, monkeypatch, mini_batch_size, lora_rank
):
    options = {"save_steps": 3, "mini_batch_size": mini_batch_size, "lora_rank": lora_rank}
    whole = train(tmp_path / "whole", embedder_folder, pairs, **options)
    steps = fail_at_step(monkeypatch, 8)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "killed", embedder_folder, pairs, **options)
    assert (tmp_path / "killed.partial" / "checkpoint-6").exists()
    killed = train(tmp_path / "killed", embedder_folder, pairs, **options)
    assert len(steps) == 8 + 4  # of 10 steps, six lay in the checkpoint
    for name in ("model.safetensors", "loss.csv"):
        assert hash_file(killed / name) == hash_file(whole / name)


def run_train(folder, train_file, *options):
    main = importlib.import_module("perspective.6_retrieval.train").main
    main([str(one) for one in ("--dataset", "tiny", "--train_file", train_file, "--output_dir", folder, *options)])


@pytest.fixture
def train_file(tmp_path, pairs):
    return write_jsonl(tmp_path / "train.jsonl", [{"query": p.query, "document": p.document} for p in pairs])


def test_a_decoder_is_trained_by_a_recipe_and_its_adapter_makes_the_same_model(tmp_path, llm_folder, train_file):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"embedder: {llm_folder}\npooling: weighted\ntask: Find the card\nlora_rank: 4\nlearning_rate: 1e-2\n"
        "weight_decay: 0.1\nwarmup_steps: 2\nper_device_train_batch_size: 8\nmax_source_length: 48\nweighted: false\n"
    )
    run_train(tmp_path / "out", train_file, "--recipe_file", recipe, "--learning_rate", 5e-3)
    made = json.loads((tmp_path / "out.meta.json").read_text())["settings"]
    wanted = {"pooling": "weighted", "lora_rank": 4, "weight_decay": 0.1, "warmup_steps": 2, "weighted": False}
    assert {name: made[name] for name in wanted} == wanted and made["learning_rate"] == 5e-3
    rates = np.genfromtxt(tmp_path / "out" / "loss.csv", delimiter=",", names=True)["learning_rate"]
    assert rates[:3] == pytest.approx([0, 2.5e-3, 5e-3]) and rates[-1] < rates[2]
    model = load_embedder(str(tmp_path / "out"), device="cpu")
    assert (model.prompts["query"], model.prompts["document"]) == ("Instruct: Find the card\nQuery: ", "")
    assert model[1].pooling_mode == "weightedmean"
    merged = load_embedder(str(tmp_path / "out" / "lora"), device="cpu", pooling="weighted")
    np.testing.assert_allclose(merged.encode(["rain", "my card"]), model.encode(["rain", "my card"]), atol=1e-5)
    assert (
        np.abs(
            load_embedder(str(llm_folder), device="cpu", pooling="weighted").encode("rain") - model.encode("rain")
        ).max()
        > 1e-3
    )


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("lora_rank: 4\ntemprature: 3", r'r\.yaml:2: unknown option "temprature": did you mean temperature'),
        ("lora_rank: many", r"r\.yaml:1: argument --lora_rank: invalid int value: 'many'"),
        ("weighted: 3", r"r\.yaml:1: weighted: 3: must be true or false"),
        ("# why\npooling: max", r"r\.yaml:2: argument --pooling: invalid choice: 'max'"),
        ("lora_rank: 4\nlora_rank: 8", r'r\.yaml:2: "lora_rank" is given twice'),
        ("a: [", r"r\.yaml:1: expected .*; write .option: value"),
        ("lora_rank:", r"r\.yaml:1: no value, or a nested one"),
        ("- a", r"r\.yaml:1: holds no options"),
        ("recipe_file: x", r'unknown option "recipe_file"'),
        ("temperature: 0", r"--temperature 0\.0: must be above 0"),
    ],
)
def test_a_faulty_recipe_is_refused_in_one_line(tmp_path, train_file, capsys, recipe, message):
    (tmp_path / "r.yaml").write_text(recipe)
    with pytest.raises(SystemExit) as ended:
        run_train(tmp_path / "out", train_file, "--recipe_file", tmp_path / "r.yaml")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and re.search(message, line)


def test_the_recipe_of_e5_mistral_is_that_of_the_paper():
    from perspective.cli import parse_settings

    files = importlib.import_module("perspective.6_retrieval.train").TrainingFiles
    recipe = str(ROOT / "recipes" / "e5-mistral.yaml")
    found, settings = parse_settings((files, RetrieverTrainSettings), ["--dataset", "x", "--recipe_file", recipe])
    assert (found.pooling, settings.lora_rank, settings.temperature, settings.learning_rate) == ("last", 16, 0.02, 1e-4)
    assert (settings.warmup_steps, settings.weight_decay, settings.num_train_epochs) == (100, 0.1, 1.0)
    assert (settings.per_device_train_batch_size, settings.max_source_length) == (2048, 512)
    assert settings.task.startswith("Given a web search query")


def test_weights_in_four_bits_need_adapters_and_a_gpu(tmp_path, llm_folder, train_file, capsys):
    for options, message in (
        ((), "--load_in 4bit: such weights cannot be trained; add --lora_rank 16"),
        (("--lora_rank", 4), "--load_in 4bit needs a CUDA GPU and the package bitsandbytes; leave it out here"),
    ):
        if options and torch.cuda.is_available():
            continue
        with pytest.raises(SystemExit):
            run_train(tmp_path / "out", train_file, "--embedder", llm_folder, "--load_in", "4bit", *options)
        assert message in capsys.readouterr().err


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
    with pytest.raises(DataError, match="all training pairs share a text"):
        train(tmp_path / "out", embedder_folder, [Pair(f"query {i}", "a document") for i in range(9)])
    assert not (tmp_path / "out").exists()


def test_weight_decay_reaches_the_optimiser(tmp_path, embedder_folder):
    pairs = [Pair(f"card {row}", f"card play {row}") for row in range(8)]
    found = []
    for decay in (0.0, 0.5):
        settings = RetrieverTrainSettings(per_device_train_batch_size=4, learning_rate=1e-3, weight_decay=decay)
        folder = tmp_path / f"{decay}"
        train_retriever(load_embedder(str(embedder_folder), device="cpu"), pairs, settings, Output(folder, "r", {}))
        found.append(sum(float((weight**2).sum()) for weight in load_file(folder / "model.safetensors").values()))
    assert found[1] < found[0]
