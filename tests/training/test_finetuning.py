import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers import limit_file_size, load_weights
from transformers import Trainer

from perspective.artifacts import (
    JudgeRecord,
    Output,
    TrainingTriplet,
    Triplet,
    hash_file,
    load_training_triplets,
    read_facts,
)
from perspective.errors import DataError, ModelError
from perspective.models.embedders import load_embedder
from perspective.models.prompts import get_prompt
from perspective.training.distillation import distill_embedder
from perspective.training.finetuning import finetune_embedder
from perspective.training.settings import RECIPES, TrainSettings


@pytest.fixture
def triplets(sentences):
    """Anchor and positive speak of a card, the negative of the weather."""
    rest = sentences(90)
    return [
        TrainingTriplet(
            "",
            f"card {rest[3 * i]}",
            f"card {rest[3 * i + 1]}",
            f"weather {rest[3 * i + 2]}",
            Triplet(3 * i, 3 * i + 1, 3 * i + 2),
            weight=0.5 + i / 60,
        )
        for i in range(30)
    ]


def train(folder, embedder_folder, triplets, **settings):
    settings = TrainSettings(**{"num_train_epochs": 2, "per_device_train_batch_size": 8, **settings})
    output = Output(folder, "embedder", {"dataset": "tiny", **settings.made_from()})
    finetune_embedder(load_embedder(str(embedder_folder), device="cpu"), triplets, settings, output)
    return folder


def encode(folder):
    return load_embedder(str(folder), device="cpu").encode(["top up my card", "rain"])


def test_result_loads_differs_and_leaves_nothing_else(tmp_path, embedder_folder, triplets):
    folder = train(tmp_path / "out", embedder_folder, triplets)
    assert np.abs(encode(folder) - encode(embedder_folder)).max() > 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.meta.json"]
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "README.md", "loss.csv", "loss.png"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    steps = (folder / "loss.csv").read_text().splitlines()
    assert len(steps) == 1 + 2 * 4  # a header, two epochs of 30 triplets in batches of 8
    facts = json.loads((tmp_path / "out.meta.json").read_text())["facts"]
    assert facts["n_triplets"] == 30 and facts["n_steps"] == 8


def test_same_seed_same_weights_other_seed_others(tmp_path, embedder_folder, triplets):
    first, again, other = (
        hash_file(train(tmp_path / name, embedder_folder, triplets, seed=seed) / "model.safetensors")
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


@pytest.mark.parametrize("loss", ["published", "infonce", "triplet"])
def test_training_moves_positives_nearer_than_negatives(tmp_path, embedder_folder, triplets, loss):
    def margin(folder):
        model = load_embedder(str(folder), device="cpu")
        anchors, positives, negatives = (
            model.encode([getattr(one, part) for one in triplets]) for part in ("anchor", "positive", "negative")
        )
        return float(((anchors * positives).sum(1) - (anchors * negatives).sum(1)).mean())

    folder = train(tmp_path / "out", embedder_folder, triplets, loss=loss, learning_rate=1e-3, num_train_epochs=12)
    assert margin(folder) > margin(embedder_folder) + 0.05


def test_lora_is_merged(tmp_path, embedder_folder, triplets):
    folder = train(tmp_path / "out", embedder_folder, triplets, lora_rank=4, learning_rate=1e-2)
    assert not list(folder.glob("adapter*"))
    assert set(load_weights(folder)) == set(load_weights(embedder_folder))
    assert np.abs(encode(folder) - encode(embedder_folder)).max() > 1e-4


def test_no_triplet_leaves_the_embedder_unchanged(tmp_path, embedder_folder):
    folder = train(tmp_path / "out", embedder_folder, [])
    np.testing.assert_array_equal(encode(folder), encode(embedder_folder))
    assert "Unchanged" in (folder / "README.md").read_text()


def test_instruction_becomes_the_prompt(tmp_path, embedder_folder, triplets):
    instructed = [
        TrainingTriplet("query: ", one.anchor, one.positive, one.negative, one.triplet, one.weight) for one in triplets
    ]
    folder = train(tmp_path / "out", embedder_folder, instructed, num_train_epochs=1)
    model = load_embedder(str(folder), device="cpu")
    assert get_prompt(model) == "query: "
    np.testing.assert_allclose(model.encode(["rain"]), model.encode(["query: rain"], prompt=""), atol=1e-6)


def test_the_prompt_is_trained_with(tmp_path, embedder_folder, triplets):
    """Training sees the texts as embedding does: with the prefix, the result differs."""
    plain = train(tmp_path / "plain", embedder_folder, triplets, num_train_epochs=1)
    prefixed = [TrainingTriplet("card ", *(one.anchor, one.positive, one.negative), one.triplet) for one in triplets]
    by_hand = [
        TrainingTriplet("", *(f"card {text}" for text in (one.anchor, one.positive, one.negative)), one.triplet)
        for one in triplets
    ]
    first = train(tmp_path / "prefixed", embedder_folder, prefixed, num_train_epochs=1)
    second = train(tmp_path / "by_hand", embedder_folder, by_hand, num_train_epochs=1)
    assert hash_file(first / "model.safetensors") == hash_file(second / "model.safetensors")
    assert hash_file(first / "model.safetensors") != hash_file(plain / "model.safetensors")


def test_settings_and_data_that_do_not_fit(tmp_path, embedder_folder, triplets):
    with pytest.raises(DataError, match="--learning_rate -1"):
        TrainSettings(learning_rate=-1.0)
    mixed = [triplets[0], TrainingTriplet("query: ", "a", "b", "c", Triplet(0, 1, 2))]
    with pytest.raises(DataError, match="2 different instructions"):
        train(tmp_path / "out", embedder_folder, mixed)
    unsure = [TrainingTriplet("", "a", "b", "c", Triplet(0, 1, 2), weight=0.0)]
    with pytest.raises(DataError, match="weight 0"):
        train(tmp_path / "out", embedder_folder, unsure, weighted=True)
    assert not (tmp_path / "out").exists()


def test_published_recipe_is_the_published_one():
    recipe = TrainSettings(recipe="published").resolve()
    assert (recipe.per_device_train_batch_size, recipe.learning_rate, recipe.num_train_epochs) == (2, 5e-7, 8)
    assert (recipe.cl_temperature, recipe.shuffle, recipe.weighted) == (0.1, False, False)
    assert TrainSettings(recipe="published", learning_rate=1e-5).resolve().learning_rate == 1e-5
    assert RECIPES["published"].learning_rate == 5e-7


def test_published_recipe_trains_in_file_order(triplets):
    from perspective.training.batch_samplers import keep_order
    from perspective.training.finetuning import _make_dataset

    batches = list(keep_order(_make_dataset(triplets, False), batch_size=2, drop_last=False))
    assert batches == [[i, i + 1] for i in range(0, 30, 2)]


def test_a_cpu_with_bfloat16_trains_in_it(tmp_path, embedder_folder, triplets, monkeypatch):
    monkeypatch.setattr("perspective.training.run.trains_in_bf16", lambda: True)
    monkeypatch.setattr("perspective.training.run.pick_device", lambda: "cpu")
    folder = train(tmp_path / "out", embedder_folder, triplets)
    assert np.abs(encode(folder) - encode(embedder_folder)).max() > 1e-3
    assert "| training_dtype | bfloat16 |" in (folder / "README.md").read_text()
    monkeypatch.setattr("perspective.training.run.trains_in_bf16", lambda: False)
    difference = np.abs(encode(folder) - encode(train(tmp_path / "float32", embedder_folder, triplets))).max()
    assert 1e-5 < difference < 0.1  # rounded, but the same training


def test_a_run_that_diverges_ends_in_one_line_and_leaves_nothing_to_go_on_from(tmp_path, embedder_folder, triplets):
    with pytest.raises(
        ModelError,
        match=r"the loss is (nan|inf) at step \d+; lower --learning_rate \(now 1e\+30\), and add --no_resume",
    ):
        train(tmp_path / "out", embedder_folder, triplets, learning_rate=1e30, save_steps=1, num_train_epochs=9)
    for checkpoint in (tmp_path / "out.partial").glob("checkpoint-*"):
        history = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
        assert np.isfinite([entry["loss"] for entry in history]).all()


def test_too_little_memory_ends_in_one_line(tmp_path, embedder_folder, triplets, monkeypatch):
    import torch

    def fill(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("torch.nn.functional.embedding", fill)
    with pytest.raises(ModelError, match="out of memory in training: lower --mini_batch_size"):
        train(tmp_path / "out", embedder_folder, triplets)
    assert not (tmp_path / "out").exists()


def test_a_long_run_writes_few_checkpoints(tmp_path, embedder_folder, triplets, monkeypatch):
    written = []
    monkeypatch.setattr("perspective.training.run.MAX_CHECKPOINTS", 3)
    monkeypatch.setattr(
        "transformers.Trainer._save_checkpoint", lambda trainer, *_: written.append(trainer.state.global_step)
    )
    train(tmp_path / "out", embedder_folder, triplets, save_steps=1, num_train_epochs=5)  # 20 steps
    assert written == [6, 12, 18, 20]


def test_the_card_of_an_oracle_says_so(tmp_path, embedder_folder, triplets):
    settings = TrainSettings(num_train_epochs=1)
    output = Output(tmp_path / "out", "embedder", {"dataset": "tiny", **settings.made_from()})
    output.record.judge = JudgeRecord(name="oracle-0.2", kind="oracle", uses_labels=True)
    finetune_embedder(load_embedder(str(embedder_folder), device="cpu"), triplets, settings, output)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Trained on labels**" in card and "No label was used" not in card


def distill(folder, embedder_folder, texts, teacher, **settings):
    settings = TrainSettings(recipe="distill", **{"num_train_epochs": 3, "per_device_train_batch_size": 8, **settings})
    output = Output(folder, "embedder", {"dataset": "tiny", **settings.made_from()})
    distill_embedder(load_embedder(str(embedder_folder), device="cpu"), texts, teacher, settings, output)
    return folder


@pytest.fixture
def shift(embedder_folder, sentences):
    """Make texts and a teacher that can be learnt: the embedder's own vectors, all shifted alike."""

    def make(by):
        texts = sentences(40)
        vectors = load_embedder(str(embedder_folder), device="cpu").encode(texts)
        teacher = vectors + by * np.random.default_rng(0).normal(size=(1, 32))
        return texts, (teacher / np.linalg.norm(teacher, axis=1, keepdims=True)).astype(np.float32)

    return make


def test_distilled_towards_the_teacher(tmp_path, embedder_folder, shift):
    texts, teacher = shift(by=0.5)
    before = load_embedder(str(embedder_folder), device="cpu").encode(texts)
    first = distill(tmp_path / "a", embedder_folder, texts, teacher)
    after = load_embedder(str(first), device="cpu").encode(texts)
    assert (after * teacher).sum(axis=1).mean() > (before * teacher).sum(axis=1).mean() + 0.05
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.meta.json"]
    again = distill(tmp_path / "b", embedder_folder, texts, teacher)
    assert hash_file(first / "model.safetensors") == hash_file(again / "model.safetensors")
    adapted = distill(tmp_path / "lora", embedder_folder, texts, teacher, lora_rank=4)
    assert np.abs(load_embedder(str(adapted), device="cpu").encode(texts) - before).max() > 1e-3


def test_a_broken_embedder_is_no_result(tmp_path, embedder_folder, shift):
    with pytest.raises(ModelError, match=r"led away from the teacher: .* \(now 30\), and add --no_resume"):
        distill(tmp_path / "out", embedder_folder, *shift(by=0.05), learning_rate=30.0)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def breaking_rate(monkeypatch):
    """A recipe whose own rate breaks the embedder, and whose next one is that of the real recipe."""
    monkeypatch.setitem(RECIPES, "distill", replace(RECIPES["distill"], learning_rate=30.0))
    monkeypatch.setattr("perspective.training.distillation.RATE_STEP", 1e5)


@pytest.mark.usefixtures("breaking_rate")
def test_a_broken_embedder_begins_again_more_slowly(tmp_path, embedder_folder, shift, monkeypatch, caplog):
    """The recipe's own rate may be lowered; the result is that of the lower rate from the beginning."""
    data = shift(by=0.05)
    found = distill(tmp_path / "found", embedder_folder, *data)
    assert caplog.text.count("training again at learning rate") == 1
    asked = distill(tmp_path / "asked", embedder_folder, *data, learning_rate=3e-4)
    assert hash_file(found / "model.safetensors") == hash_file(asked / "model.safetensors")
    rates = [read_facts(folder)["peak_learning_rate"] for folder in (found, asked)]
    assert rates == pytest.approx([3e-4, 3e-4])

    monkeypatch.setattr("perspective.training.distillation.RATE_STEP", 1)
    with pytest.raises(ModelError, match="led away from the teacher"):
        distill(tmp_path / "none", embedder_folder, *data)
    assert caplog.text.count("training again at learning rate") == 3


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_loss_that_is_no_number_is_followed_by_a_lower_rate(
    tmp_path, embedder_folder, shift, monkeypatch, caplog, lora_rank
):
    monkeypatch.setitem(RECIPES, "distill", replace(RECIPES["distill"], learning_rate=3e34))
    monkeypatch.setattr("perspective.training.distillation.RATE_STEP", 3e34 / 3e-4)
    data = shift(by=0.05)
    found = distill(tmp_path / "found", embedder_folder, *data, lora_rank=lora_rank)
    assert re.search(r"the loss is (nan|inf) at step \d+; training again at learning rate 0\.0003\n", caplog.text)
    given = distill(tmp_path / "given", embedder_folder, *data, lora_rank=lora_rank, learning_rate=3e34 / (3e34 / 3e-4))
    assert hash_file(found / "model.safetensors") == hash_file(given / "model.safetensors")

    with pytest.raises(ModelError, match=r"the loss is (nan|inf) at step \d+; lower --learning_rate \(now 3e\+34\)"):
        distill(tmp_path / "none", embedder_folder, *data, lora_rank=lora_rank, learning_rate=3e34)
    assert caplog.text.count("training again at learning rate") == 1


@pytest.mark.usefixtures("breaking_rate")
def test_killed_after_beginning_again(tmp_path, embedder_folder, shift, monkeypatch):
    """It goes on at the lower rate, from the checkpoint, to the same model."""
    data = shift(by=0.05)
    whole = distill(tmp_path / "whole", embedder_folder, *data, save_steps=1)
    save, n_saved = Trainer._save_checkpoint, itertools.count(1)

    def save_and_die(trainer, *arguments):
        save(trainer, *arguments)
        if next(n_saved) == 20:  # 15 steps at the recipe's rate, 5 at the lower one
            raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(Trainer, "_save_checkpoint", save_and_die)
        distill(tmp_path / "killed", embedder_folder, *data, save_steps=1)
    killed = distill(tmp_path / "killed", embedder_folder, *data, save_steps=1)
    assert hash_file(whole / "model.safetensors") == hash_file(killed / "model.safetensors")
    assert read_facts(killed)["peak_learning_rate"] == pytest.approx(3e-4)


def test_a_teacher_that_does_not_fit_is_refused(tmp_path, embedder_folder, sentences):
    with pytest.raises(DataError, match=r"shape \(3, 8\), not \(4, 32\)"):
        distill(tmp_path / "x", embedder_folder, sentences(4), np.zeros((3, 8), np.float32))
    with pytest.raises(DataError, match="--loss infonce: does not fit --recipe distill"):
        TrainSettings(recipe="distill", loss="infonce").resolve()


def test_unfinished_run_of_other_settings_is_refused(tmp_path, embedder_folder, triplets):
    folder = Output(tmp_path / "out", "embedder", {"seed": 7}).open_partial()
    (folder / "checkpoint-1").mkdir()
    with pytest.raises(DataError, match="unfinished run with other"):
        train(tmp_path / "out", embedder_folder, triplets)
    (folder / "checkpoint-1").rmdir()  # nothing is lost, as after a first step that ran out of memory
    assert train(tmp_path / "out", embedder_folder, triplets).exists()


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    from perspective.training.run import _find_checkpoint

    for step, state in ((8, '{"global_step": 8}'), (16, '{"global_'), (24, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "fingerprint.json").write_text("{}")
    assert _find_checkpoint(tmp_path).name == "checkpoint-8"


def test_training_file_faults_are_named(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('[{"query": ["", "a"]}]')
    with pytest.raises(DataError, match="record 0 is not a training triplet"):
        load_training_triplets(path)


def test_a_full_disk_ends_training_in_one_line_and_it_resumes(tmp_path, triplets, embedder_folder):
    settings = TrainSettings(per_device_train_batch_size=8, num_train_epochs=1, save_steps=1)
    output = Output(tmp_path / "model", "embedder", {})
    full = pytest.raises(DataError, match=r"model\.partial: cannot be written, the disk is full .*; free some space")
    with limit_file_size(20_000), full:
        finetune_embedder(load_embedder(str(embedder_folder), device="cpu"), triplets, settings, output)
    again = Output(tmp_path / "model", "embedder", {})
    finetune_embedder(load_embedder(str(embedder_folder), device="cpu"), triplets, settings, again)
    assert again.is_finished() and not again.partial.exists()


def test_texts_are_cut_in_training_and_after_it(tmp_path, embedder_folder):
    def train(name, text, length):
        triplets = [
            TrainingTriplet("", f"card {i} {text}", f"card {i}", f"rain {i}", Triplet(0, 1, 2)) for i in range(8)
        ]
        settings = TrainSettings(num_train_epochs=1, per_device_train_batch_size=4, max_source_length=length)
        model = load_embedder(str(embedder_folder), device="cpu")
        finetune_embedder(model, triplets, settings, Output(tmp_path / name, "embedder", {}))
        return hash_file(tmp_path / name / "model.safetensors")

    ends = ("music " * 9, "money " * 9)  # beyond [CLS], "card", a number and [SEP]
    cut, whole = ([train(f"{length} {end[:3]}", end, length) for end in ends] for length in (4, 64))
    assert cut[0] == cut[1] and whole[0] != whole[1]
    assert load_embedder(str(tmp_path / "4 mus"), device="cpu").max_seq_length == 4
