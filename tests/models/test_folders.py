import json
import shutil

import pytest
from helpers import drop_weights

from perspective.artifacts import Output, sidecar_path
from perspective.errors import ModelError
from perspective.models.embedders import load_embedder


@pytest.fixture
def foreign(embedder_folder, tmp_path):
    """A folder from elsewhere."""
    return shutil.copytree(embedder_folder, tmp_path / "foreign")


@pytest.fixture
def trained(embedder_folder, tmp_path):
    """A checkpoint of this pipeline, with its sidecar."""
    output = Output(tmp_path / "trained", "embedder", {})
    with output.open() as folder:
        shutil.copytree(embedder_folder, folder)
    return output.path


def load(folder):
    return load_embedder(str(folder), device="cpu")


@pytest.mark.parametrize(
    "lost", ["tokenizer.json", "modules.json", "1_Pooling/config.json", "config.json", "sentence_bert_config.json"]
)
def test_a_checkpoint_that_lost_a_file_is_refused(trained, lost):
    (trained / "README.md").write_text("a card may be added")
    load(trained)
    (trained / lost).unlink()
    with pytest.raises(ModelError, match=r"trained: files were changed, .*--overwrite, or remove trained\.meta\.json"):
        load(trained)


def test_a_checkpoint_with_a_damaged_sidecar_is_one_line(trained):
    sidecar_path(trained).write_text("{")
    with pytest.raises(ModelError, match=r"trained\.meta\.json:1: bad JSON"):
        load(trained)
    sidecar_path(trained).unlink()
    load(trained)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("tokenizer.json", r"foreign: holds no tokenizer \(tokenizer\.json, vocab\.txt \.\.\.\)"),
        ("modules.json", r"foreign: modules\.json is missing; fetch the model again"),
        ("1_Pooling/config.json", r"1_Pooling/config\.json: no such file; fetch the model again"),
    ],
)
def test_a_folder_that_would_be_filled_with_defaults_is_refused(foreign, lost, message):
    (foreign / lost).unlink()
    with pytest.raises(ModelError, match=message):
        load(foreign)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[3]", '[{"type": 3, "path": ""}]', "[" * 10**5])
def test_a_broken_list_of_modules_is_one_line(foreign, content):
    (foreign / "modules.json").write_text(content)
    with pytest.raises(ModelError, match=r"modules\.json"):
        load(foreign)


def test_weights_without_a_layer_are_refused(foreign):
    drop_weights(foreign, "pooler.")
    load(foreign)
    lost = "encoder.layer.1.output.dense.weight"
    drop_weights(foreign, lost)
    with pytest.raises(ModelError, match=f"foreign: has no weights for {lost}; fetch the model again"):
        load(foreign)


def test_a_folder_of_plain_transformers_is_named(embedder_folder, caplog):
    body = embedder_folder.parent / "bert"
    assert load(body).encode(["a card"]).shape == (1, 32)
    assert "bert: no modules.json; used with mean pooling over its tokens" in caplog.text


def test_modules_may_be_named_by_older_and_newer_versions(foreign):
    listing = foreign / "modules.json"
    modules = json.loads(listing.read_text())
    for prefix in ("sentence_transformers.models.", "sentence_transformers.base.modules."):
        renamed = [module | {"type": prefix + module["type"].rpartition(".")[2]} for module in modules]
        listing.write_text(json.dumps(renamed))
        (foreign / "1_Pooling" / "config.json").rename(foreign / "kept")
        with pytest.raises(ModelError, match=r"1_Pooling/config\.json: no such file"):
            load(foreign)
        (foreign / "kept").rename(foreign / "1_Pooling" / "config.json")
