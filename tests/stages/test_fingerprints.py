"""Everything that changes the numbers of a result is part of what it was made from; what does not, is not."""

import numpy as np
import pytest
from helpers import run_stage, write_jsonl

from perspective.artifacts import JudgeRecord, Output
from perspective.judging.settings import JudgeSettings
from perspective.llm.server.settings import ServerSettings
from perspective.training.settings import TrainSettings


class Asked(Exception):
    """A stage asked whether its result exists, with the fingerprint of it."""


@pytest.fixture
def made_from(tmp_path, monkeypatch, embedder_folder, llm_folder):
    """Return the fingerprint of a call of a stage, without running it."""
    files = {"texts": tmp_path / "tiny.jsonl", "embedder": embedder_folder, "llm": llm_folder, "out": tmp_path / "out"}
    write_jsonl(files["texts"], [{"input": f"text {i}", "body": "b", "label": "ab"[i % 2]} for i in range(12)])
    for name in ("vectors", "states", "states-control", "teacher", "judged"):
        files[name] = tmp_path / f"{name}.npy"
        np.save(files[name], np.ones((12, 4), dtype=np.float32))
    for name in ("triplets", "judgments", "train"):
        files[name] = tmp_path / f"{name}.json"
        made = Output(files[name], name, {})
        made.record.judge = JudgeRecord(name="x")
        made.write_json([])

    def refuse(output, *_, **__):
        raise Asked(output.fingerprint)

    monkeypatch.setattr(Output, "is_finished", refuse)

    def call(stage, options):
        with pytest.raises(Asked) as asked:
            run_stage(stage, *options.format(**files).split())
        return asked.value.args[0]

    return call


DATA = "--dataset tiny --data_path {texts}"
CALLS = {
    "get_embedding": DATA + " --embedder {embedder} --output_path {out}",
    "triplet_sampling": DATA + " --feat_path {vectors} --out_dir {out}",
    "random_triplet_sampling": DATA + " --out_dir {out}",
    "read_states": DATA + " --llm {llm} --perspective intent --output_path {out}",
    "predict_triplet": DATA + " --triplet_path {triplets} --llm {llm} --judge choice --output_path {out}",
    "convert_triplet": DATA + " --pred_path {judgments} --feat_path {vectors} --output_path {out}",
    "convert_triplet_self": DATA + " --pred_path {judgments} --feat_path {vectors} --output_path {out}",
    "convert_states": "--dataset tiny --llm llm --feat_path {vectors} --states_path {states} --output_path {out}",
    "finetune": DATA + " --embedder {embedder} --train_file {teacher} --output_dir {out}",
}
INPUTS = {
    "get_embedding": {"texts", "embedder"},
    "triplet_sampling": {"texts", "embeddings"},
    "random_triplet_sampling": {"texts"},
    "read_states": {"texts", "llm"},
    "predict_triplet": {"texts", "triplets", "llm"},
    "convert_triplet": {"texts", "judgments", "embeddings"},
    "convert_triplet_self": {"texts", "triplets", "embeddings"},
    "convert_states": {"embeddings", "answer_states", "control_states"},
    "finetune": {"texts", "teacher", "embedder"},
}
DECIDES = [
    ("get_embedding", "--text_column body"),
    ("get_embedding", "--revision main"),
    ("get_embedding", "--embedder minilm"),
    ("triplet_sampling", "--seed 7"),
    ("triplet_sampling", "--max_query 9"),
    ("triplet_sampling", "--choices nearest"),
    ("triplet_sampling", "--no_shuffle_inds"),
    ("triplet_sampling", "--label_column body"),
    ("random_triplet_sampling", "--seed 7"),
    ("random_triplet_sampling", "--label_column body"),
    ("read_states", "--text_column body"),
    ("read_states", "--perspective tone"),
    ("read_states", "--max_text_tokens 9"),
    ("read_states", "--llm_revision main"),
    ("read_states", "--load_in 4bit"),
    ("predict_triplet", "--text_column body"),
    ("predict_triplet", "--perspective tone"),
    ("predict_triplet", "--judge pair"),
    ("predict_triplet", "--response json"),
    ("predict_triplet", "--orders 1"),
    ("predict_triplet", "--llm_revision main"),
    ("predict_triplet", "--load_in 4bit"),
    ("convert_triplet", "--text_column body"),
    ("convert_triplet", "--no_check"),
    ("convert_triplet", "--evidence"),
    ("convert_triplet", "--evidence --states_path {states}"),
    ("convert_triplet_self", "--text_column body"),
    ("convert_states", "--weight 1"),
    ("convert_states", "--no_diffused"),
    ("convert_states", "--judged_path {judged}"),
    ("finetune", "--text_column body"),
    ("finetune", "--embedder minilm"),
    ("finetune", "--revision main"),
    ("finetune", "--seed 7"),
    ("finetune", "--max_source_length 9"),
    ("finetune", "--learning_rate 1e-5"),
    ("finetune", "--num_train_epochs 9"),
    ("finetune", "--per_device_train_batch_size 9"),
    ("finetune", "--lora_rank 4"),
]
DOES_NOT = [
    ("get_embedding", "--batch_size 7"),
    ("get_embedding", "--no_measure"),
    ("predict_triplet", "--concurrency 3"),
    ("finetune", "--save_steps 7"),
    ("finetune", "--no_resume"),
]


@pytest.mark.parametrize(("stage", "option"), DECIDES)
def test_what_changes_the_numbers_is_part_of_the_fingerprint(made_from, stage, option):
    assert made_from(stage, f"{CALLS[stage]} {option}") != made_from(stage, CALLS[stage])


@pytest.mark.parametrize(("stage", "option"), DOES_NOT)
def test_what_changes_no_number_is_not(made_from, stage, option):
    assert made_from(stage, f"{CALLS[stage]} {option}") == made_from(stage, CALLS[stage])


@pytest.mark.parametrize("stage", CALLS)
def test_all_files_that_are_read_are_hashed(made_from, stage):
    assert set(made_from(stage, CALLS[stage]).inputs) == INPUTS[stage]


@pytest.mark.parametrize("stage", ["get_embedding", "read_states", "predict_triplet", "finetune"])
def test_the_precision_of_a_model_is_recorded(made_from, stage, monkeypatch):
    monkeypatch.setattr("perspective.runtime.devices.supports_fast_bf16", lambda *_: True)  # whatever this CPU is
    before = made_from(stage, CALLS[stage])
    assert before.precision == "float32"
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    assert made_from(stage, CALLS[stage]).precision.startswith("bfloat16")


def test_the_precision_of_labels_is_recorded_where_they_are_scored(monkeypatch):
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    found = {
        (kind, response): JudgeSettings(judge=kind, response=response).precision(ServerSettings())
        for kind, response in (("choice", "logprob"), ("choice", "json"), ("pair", "logprob"), ("oracle", "logprob"))
    }
    labels = "bfloat16, labels in float32"
    assert list(found.values()) == [labels, "bfloat16", labels, None]


def test_the_share_of_an_oracles_wrong_answers_is_part_of_what_it_was_made_from():
    few, many = (JudgeSettings(judge="oracle", oracle_noise=noise).made_from(ServerSettings()) for noise in (0.1, 0.2))
    assert few != many


def test_every_setting_of_training_is_part_of_what_it_was_made_from():
    changed = {
        "max_source_length": 9, "seed": 7, "recipe": "published", "loss": "infonce", "cl_temperature": 0.7,
        "learning_rate": 0.7, "num_train_epochs": 7, "per_device_train_batch_size": 7, "weighted": False,
        "lora_rank": 7,
    }  # fmt: skip
    neutral = {"save_steps", "resume"}
    assert changed.keys() | neutral == TrainSettings.__dataclass_fields__.keys()
    for name, value in changed.items():
        assert TrainSettings(**{name: value}).made_from() != TrainSettings().made_from(), name
