"""Masked next-token prediction and SimCSE, by hand-computed losses and tiny Llamas."""

import gc
import json

import numpy as np
import pytest
import torch
from helpers import fail_at_step

from perspective.artifacts import Output, hash_file
from perspective.errors import DataError, ModelError
from perspective.models.decoders import make_bidirectional
from perspective.models.embedders import load_embedder
from perspective.pretraining.masking import MaskedNextTokenLoss, draw_masked, find_blank
from perspective.pretraining.mntp import load_head, pretrain_by_masking, split_texts
from perspective.pretraining.settings import MntpSettings, SimcseSettings, sample_texts
from perspective.pretraining.simcse import pretrain_by_simcse, require_different_views, set_dropout


@pytest.fixture
def model(llm_folder):
    return load_embedder(str(llm_folder), device="cpu", pooling="mean")


@pytest.fixture
def loss(model, llm_folder):
    return MaskedNextTokenLoss(model, load_head(str(llm_folder), model), 0.5)


def test_a_masked_token_is_predicted_from_the_state_before_it(loss, model, llm_folder):
    """By hand: the causal LM itself reads the text with blanks; its scores at i - 1 are those of token i."""
    from transformers import AutoModelForCausalLM

    features = {key: value for key, value in model.preprocess(["top up my card", "rain"]).items() if key != "modality"}
    masked = torch.zeros_like(features["input_ids"], dtype=torch.bool)
    masked[0, [1, 3]] = True
    masked[1, 1] = True
    found = loss.compute_loss(features, masked)
    causal = AutoModelForCausalLM.from_pretrained(llm_folder)
    by_hand = []
    for row, places in ((0, (1, 3)), (1, (1,))):
        ids = features["input_ids"][row][features["attention_mask"][row].bool()]
        blanked = ids.clone()
        blanked[list(places)] = find_blank(model.tokenizer)
        with torch.no_grad():
            scores = causal(blanked[None]).logits[0].log_softmax(-1)
        by_hand += [-scores[place - 1, ids[place]].item() for place in places]
    assert found.item() == pytest.approx(np.sum(by_hand), abs=1e-5)
    assert loss.compute_loss(features, torch.zeros_like(masked)).item() == 0


def test_neither_first_tokens_nor_special_ones_nor_padding_are_masked():
    ids = torch.tensor([[5, 6, 7, 8, 2, 0], [0, 0, 5, 6, 7, 2], [5, 2, 0, 0, 0, 0]])
    attention = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
    may_be = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()
    special = torch.tensor([2, 0])
    drawn = [draw_masked(ids, attention, special, 0.4, torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert not any((one & ~may_be).any() for one in drawn)
    assert all(one[0].any() and one[1].any() and not one[2].any() for one in drawn)
    assert all(draw_masked(ids, attention, special, 1.0).equal(may_be) for _ in range(3))
    many = torch.full((50, 400), 9)
    share = draw_masked(many, torch.ones_like(many), special, 0.2).float().mean().item()
    assert share == pytest.approx(0.2, abs=0.01)


def test_rows_that_only_fill_a_batch_are_not_trained_on(loss, model):
    features = {key: value for key, value in model.preprocess(["top up my card", "rain"]).items() if key != "modality"}

    def compute(labels):
        torch.manual_seed(0)
        return loss([features], labels).item()

    filler = compute(torch.tensor([1.0, torch.nan]))
    assert filler != pytest.approx(compute(torch.ones(2)), abs=1e-4)
    assert compute(torch.tensor([torch.nan, torch.nan])) == 0


def test_a_head_that_shares_the_word_vectors_is_made_of_them(build, tmp_path):
    folder = str(build.save_llama(tmp_path / "tied", "LlamaForCausalLM", build.bpe(), tie_word_embeddings=True))
    model = load_embedder(folder, device="cpu")
    assert load_head(folder, model).weight.equal(model.transformers_model.get_input_embeddings().weight)


def test_a_body_that_was_saved_without_its_head_is_refused(model, tmp_path):
    model.save_pretrained(str(tmp_path / "body"))
    with pytest.raises(ModelError, match="has no head to predict tokens with; give the causal LM"):
        load_head(str(tmp_path / "body"), model)


def train_mntp(folder, llm_folder, texts, **options):
    settings = MntpSettings(
        **{"per_device_train_batch_size": 8, "lora_rank": 4, "learning_rate": 1e-2, "num_train_epochs": 4} | options
    )
    output = Output(folder, "pre-trained embedder", {"dataset": "tiny", **settings.made_from()})
    model = load_embedder(str(llm_folder), device="cpu", pooling="mean")
    pretrain_by_masking(model, load_head(str(llm_folder), model), texts, settings, output)
    return folder


def train_simcse(folder, llm_folder, texts, **options):
    settings = SimcseSettings(
        **{"per_device_train_batch_size": 8, "lora_rank": 4, "learning_rate": 1e-3, "mini_batch_size": 4} | options
    )
    output = Output(folder, "pre-trained embedder", {"dataset": "tiny", **settings.made_from()})
    pretrain_by_simcse(load_embedder(str(llm_folder), device="cpu", pooling="mean"), texts, settings, output)
    return folder


def read_facts(folder):
    return json.loads(folder.with_name(f"{folder.name}.meta.json").read_text())["facts"]


def test_mntp_lowers_the_held_out_loss_and_keeps_the_mask_off(tmp_path, llm_folder, sentences):
    from sentence_transformers import SentenceTransformer

    folder = train_mntp(tmp_path / "mntp", llm_folder, sentences(80))
    facts = read_facts(folder)
    assert facts["masked_loss_trained"] < facts["masked_loss_bidirectional"] - 0.2
    assert facts["masked_loss_causal"] != facts["masked_loss_bidirectional"]
    model = SentenceTransformer(str(folder), device="cpu")
    assert model.config.is_causal is False
    assert sorted(path.name for path in (folder / "lora").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not any("lora" in name for name in model.state_dict())
    assert not folder.with_name("mntp.partial").exists()


def test_simcse_tells_texts_apart_and_leaves_no_dropout(tmp_path, llm_folder, sentences):
    texts = sorted(set(sentences(60)))
    options = {"num_train_epochs": 6, "learning_rate": 3e-2, "per_device_train_batch_size": 16}
    folder = train_simcse(tmp_path / "out", llm_folder, texts, **options)
    by_epoch = np.genfromtxt(folder / "loss.csv", delimiter=",", names=True)["loss"].reshape(6, -1).mean(axis=1)
    assert by_epoch[-3:].mean() < 0.7 * by_epoch[0]
    assert json.loads((folder / "config.json").read_text())["attention_dropout"] == 0
    causal = train_simcse(tmp_path / "causal", llm_folder, texts[:16], bidirectional=False)
    flags = [load_embedder(str(one), device="cpu").config.to_dict().get("is_causal", True) for one in (folder, causal)]
    assert flags == [False, True]


def test_views_differ_by_dropout_alone(model):
    texts = ["top up my card", "rain"]
    with pytest.raises(ModelError, match="two passes over a text give the same vector, .* choose another decoder"):
        require_different_views(model, texts)
    with set_dropout(model):
        require_different_views(model, texts)
    with pytest.raises(ModelError, match="the same vector"):
        require_different_views(model, texts)


def test_simcse_loss_is_that_of_the_paper(model):
    """By hand, scale 20: -log softmax of the cosines of a text's two views against those of all texts."""
    from perspective.training.losses.ranking import RankingLoss

    one, other = (torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = RankingLoss(model, SimcseSettings().temperature).compute_loss_from_embeddings(
        [one, other], torch.ones(3, 1)
    )
    unit = [part.numpy() / np.linalg.norm(part.numpy(), axis=1, keepdims=True) for part in (one, other)]
    scores = np.exp(20 * unit[0] @ unit[1].T)
    assert found.item() == pytest.approx(-np.log(np.diag(scores) / scores.sum(axis=1)).mean(), abs=1e-4)


@pytest.mark.parametrize("train", [train_mntp, train_simcse])
def test_killed_training_resumes_to_the_same_weights(tmp_path, llm_folder, sentences, monkeypatch, train):
    texts = list(dict.fromkeys(sentences(70)))[:45]
    options = {"save_steps": 2, "num_train_epochs": 1}
    whole = train(tmp_path / "whole", llm_folder, texts, **options)
    steps = fail_at_step(monkeypatch, 4)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "killed", llm_folder, texts, **options)
    gc.collect()  # the progress bar of the killed run is cleared here, not in the output of a later test
    killed = train(tmp_path / "killed", llm_folder, texts, **options)
    n_whole = len((whole / "loss.csv").read_text().splitlines()) - 1
    assert len(steps) == 4 + n_whole - 2  # two steps lay in the checkpoint
    for name in ("model.safetensors", "loss.csv", "lora/adapter_model.safetensors"):
        assert hash_file(killed / name) == hash_file(whole / name)


def test_texts_and_embedders_that_do_not_fit(tmp_path, llm_folder, embedder_folder, model):
    with pytest.raises(DataError, match="3 different texts: pre-training needs at least 4"):
        split_texts(["a", "b", "c"], 0)
    with pytest.raises(DataError, match="1 different text: each is told from others"):
        train_simcse(tmp_path / "one", llm_folder, ["rain", "rain"])
    with pytest.raises(DataError, match="no held-out text has two tokens"):
        train_mntp(tmp_path / "short", llm_folder, list("abcdef"))
    encoder = load_embedder(str(embedder_folder), device="cpu")
    with pytest.raises(ModelError, match="bert: not a causal LM; choose one, such as --embedder smollm2"):
        pretrain_by_masking(encoder, None, ["a", "b"], MntpSettings(), Output(tmp_path / "bert", "x", {}))
    for settings, options in ((MntpSettings, {"mask_share": 1.0}), (SimcseSettings, {"temperature": 0.0})):
        with pytest.raises(DataError, match=f"--{next(iter(options))} "):
            settings(**options)
    with pytest.raises(DataError, match="--max_texts 2: must be at least 4"):
        MntpSettings(max_texts=2)
    make_bidirectional(model)
    assert sample_texts(["a", "b", "a"], None, 0) == ["a", "b"] and len(sample_texts(list("abcdef"), 4, 0)) == 4
