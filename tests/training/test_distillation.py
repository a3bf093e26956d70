import json
import shutil

import numpy as np
import pytest
from helpers import run_stage, write_jsonl
from safetensors.torch import load_file

from perspective.artifacts import Output, hash_file
from perspective.errors import DataError
from perspective.models.embedders import load_embedder
from perspective.training.distillation import _require_smaller_error, distill_embedder
from perspective.training.run import DivergenceError
from perspective.training.settings import TrainSettings


@pytest.fixture
def distill(embedder_folder, sentences):
    """Train an embedder for 20 steps to give shifted vectors."""

    def run(folder, base=embedder_folder, **settings):
        texts = sentences(40)
        vectors = load_embedder(str(embedder_folder), device="cpu").encode(texts)
        teacher = vectors + 0.5 * np.random.default_rng(0).normal(size=(1, 32)).astype(np.float32)
        chosen = TrainSettings(recipe="distill", num_train_epochs=4, per_device_train_batch_size=8, **settings)
        distill_embedder(load_embedder(str(base), device="cpu"), texts, teacher, chosen, Output(folder, "embedder", {}))
        return folder

    return run


def test_distillation_keeps_word_vectors_and_warms_up(tmp_path, distill, embedder_folder):
    before, after = (load_file(one / "model.safetensors") for one in (embedder_folder, distill(tmp_path / "out")))
    moved = {name for name in before if (after[name] != before[name]).any()}
    assert "embeddings.word_embeddings.weight" not in moved and "encoder.layer.1.output.dense.weight" in moved
    rates = np.genfromtxt(tmp_path / "out" / "loss.csv", delimiter=",", names=True)["learning_rate"]
    assert rates[:3] == pytest.approx([0, 1.5e-4, 3e-4]) and (np.diff(rates[2:]) < 0).all()  # a tenth of 20 steps


def test_a_teacher_that_is_the_embedder_leaves_it_unchanged(tmp_path, embedder_folder, sentences):
    texts = sentences(20)
    model = load_embedder(str(embedder_folder), device="cpu")
    output = Output(tmp_path / "out", "embedder", {})
    distill_embedder(model, texts, model.encode(texts) + 1e-5, TrainSettings(recipe="distill"), output)
    before, after = (load_file(one / "model.safetensors") for one in (embedder_folder, tmp_path / "out"))
    assert output.record.unchanged and all((after[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("given", [{"cl_temperature": 0.7}, {"weighted": True}])
def test_settings_of_triplets_are_refused(given):
    with pytest.raises(DataError, match="are for triplets; --recipe distill learns from a teacher"):
        TrainSettings(recipe="distill", **given).resolve()


def test_distillation_is_without_dropout_which_the_saved_model_keeps(tmp_path, distill, embedder_folder):
    plain = shutil.copytree(embedder_folder, tmp_path / "plain")
    config = json.loads((plain / "config.json").read_text())
    assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.1
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (plain / "config.json").write_text(json.dumps(config | off))
    one, other = distill(tmp_path / "one"), distill(tmp_path / "other", plain)
    assert hash_file(one / "model.safetensors") == hash_file(other / "model.safetensors")
    assert json.loads((one / "config.json").read_text())["hidden_dropout_prob"] == 0.1


def test_an_error_that_is_no_number_is_no_smaller_error():
    _require_smaller_error(0.1, 0.2, 1e-3)
    for after in (float("nan"), 0.2, 0.3):
        with pytest.raises(DivergenceError, match="led away from the teacher"):
            _require_smaller_error(after, 0.2, 1e-3)


def test_the_error_is_measured_on_texts_as_they_are_trained_on(tmp_path, embedder_folder):
    """The teacher is near the vectors of the whole texts, which those that are cut cannot reach."""
    texts = [f"card {row} {'music rain ' * (row % 4 + 3)}" for row in range(40)]
    model = load_embedder(str(embedder_folder), device="cpu")
    teacher = model.encode(texts) + 0.001
    settings = TrainSettings(recipe="distill", max_source_length=4, per_device_train_batch_size=8, learning_rate=1e-4)
    distill_embedder(model, texts, teacher, settings, Output(tmp_path / "out", "embedder", {}))
    assert load_embedder(str(tmp_path / "out"), device="cpu").max_seq_length == 4


def test_what_a_kill_at_the_very_end_left_is_removed(tmp_path, embedder_folder, sentences):
    """The model is whole, its checkpoints are still there: they would refuse other settings."""
    texts = sentences(40)
    vectors = load_embedder(str(embedder_folder), device="cpu").encode(texts)
    data = write_jsonl(tmp_path / "tiny.jsonl", [{"input": text} for text in texts])
    np.save(tmp_path / "teacher.npy", vectors + 0.5 * np.random.default_rng(0).normal(size=(1, 32)).astype(np.float32))
    options = [
        "--dataset",
        "tiny",
        "--data_path",
        data,
        "--embedder",
        embedder_folder,
        "--output_dir",
        tmp_path / "out",
    ]
    options += ["--train_file", tmp_path / "teacher.npy", "--per_device_train_batch_size", 8]
    run_stage("finetune", *options)
    (tmp_path / "out.partial" / "checkpoint-1").mkdir(parents=True)
    run_stage("finetune", *options)
    assert not (tmp_path / "out.partial").exists() and (tmp_path / "out" / "model.safetensors").exists()
