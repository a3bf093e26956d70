"""Causal LMs as embedders: tiny Llamas, with their padding, pooling, instructions, attention and adapters."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import load_with_random_adapters

from perspective.errors import DataError, ModelError
from perspective.models import registry
from perspective.models.decoders import is_decoder, make_bidirectional, set_pooling
from perspective.models.embedders import load_embedder
from perspective.models.prompts import choose_prompts, find_prompts
from perspective.models.registry import EmbedderSpec
from perspective.options import PromptOptions
from perspective.training.adapters import save_adapters

TEXTS = ["top up my card", "rain", "how do I top up my card by bank transfer?"]


@pytest.fixture
def bidirectional(llm_folder, tmp_path):
    model = load_embedder(str(llm_folder), device="cpu", pooling="mean")
    make_bidirectional(model)
    model.save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


def copy_with(folder, target, **tokens):
    """Copy a model whose tokenizer has other special tokens."""
    shutil.copytree(folder, target)
    config = json.loads((target / "tokenizer_config.json").read_text())
    (target / "tokenizer_config.json").write_text(json.dumps(config | tokens))
    (target / "special_tokens_map.json").unlink(missing_ok=True)
    return str(target)


def test_a_last_token_is_the_end_of_text_that_the_tokenizer_leaves_out(llm_folder, tmp_path):
    """As in e5-mistral-7b-instruct given by its id: transformers ignores add_eos_token beside a tokenizer.json."""
    model = load_embedder(str(llm_folder), device="cpu")
    expected = model.encode(TEXTS)
    model.save_pretrained(str(tmp_path / "made"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(llm_folder / name, tmp_path / "made" / name)
    config = json.loads((tmp_path / "made" / "tokenizer_config.json").read_text())
    cut = load_embedder(str(tmp_path / "made"), device="cpu")
    assert not np.allclose(cut.encode(TEXTS), expected, atol=1e-3)
    (tmp_path / "made" / "tokenizer_config.json").write_text(json.dumps(config | {"add_eos_token": True}))
    np.testing.assert_allclose(load_embedder(str(tmp_path / "made"), device="cpu").encode(TEXTS), expected, atol=1e-5)


def test_an_adapter_is_not_loaded_in_4_bits(llm_folder, tmp_path):
    save_adapters(load_with_random_adapters(llm_folder), tmp_path, str(llm_folder))
    with pytest.raises(ModelError, match="--load_in 4bit: .* is an adapter"):
        load_embedder(str(tmp_path), device="cpu", load_in="4bit")


def get_states(model, text):
    """Token states of one text, `(length, dim)`."""
    features = model.preprocess([text])
    with torch.no_grad():
        return model(features)["token_embeddings"][0].numpy()


def test_the_vector_is_the_state_of_the_appended_end_of_text_token(llm_folder):
    model = load_embedder(str(llm_folder), device="cpu")
    tokenizer = model.tokenizer
    ids = tokenizer("rain", add_special_tokens=False)["input_ids"]
    assert tokenizer("rain")["input_ids"] == [*ids, tokenizer.eos_token_id]
    with torch.no_grad():
        states = model.transformers_model(torch.tensor([[*ids, tokenizer.eos_token_id]])).last_hidden_state
    by_hand = states[0, -1] / states[0, -1].norm()
    np.testing.assert_allclose(model.encode("rain"), by_hand, atol=1e-5)
    model.max_seq_length = 4  # a text that is cut ends with it too
    assert model.preprocess(TEXTS[2:])["input_ids"][0].tolist()[-1] == tokenizer.eos_token_id


def test_a_beginning_that_the_tokenizer_adds_stays(build, tmp_path):
    tokenizer = build.bpe(("<s>", "</s>"), chat_template=None, bos="<s>")
    model = load_embedder(str(build.save_llama(tmp_path / "llm", "LlamaForCausalLM", tokenizer)), device="cpu")
    for loaded in (model.tokenizer, reload(model, tmp_path / "saved").tokenizer):
        ids = loaded("rain")["input_ids"]
        assert (ids[0], ids[-1]) == (loaded.bos_token_id, loaded.eos_token_id)
        assert ids.count(loaded.eos_token_id) == 1 and len(ids) > 2


def reload(model, folder):
    """Save a model and load it as a stranger would."""
    from sentence_transformers import SentenceTransformer

    model.save_pretrained(str(folder))
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("pooling", ["last", "mean", "weighted"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_no_vector(llm_folder, pooling, side, causal):
    model = load_embedder(str(llm_folder), device="cpu", pooling=pooling)
    if not causal:
        make_bidirectional(model)
    alone = np.concatenate([model.encode([text], prompt="Query: ") for text in TEXTS])
    model.tokenizer.padding_side = side
    np.testing.assert_allclose(model.encode(TEXTS, prompt="Query: "), alone, atol=2e-6)


def test_means_are_over_the_text_without_its_instruction(llm_folder):
    model = load_embedder(str(llm_folder), device="cpu")
    states = get_states(model, "Query: rain")
    n_prompt = len(model.tokenizer("Query: ", add_special_tokens=False)["input_ids"])
    weights = np.arange(1, len(states) + 1)[:, None] * np.ones((1, 1))
    weights[:n_prompt] = 0
    for pooling, by_hand in (
        ("mean", states[n_prompt:].mean(axis=0)),
        ("weighted", (states * weights).sum(axis=0) / weights.sum()),
        ("last", states[-1]),
    ):
        set_pooling(model, pooling)
        found = model.encode("rain", prompt="Query: ")
        np.testing.assert_allclose(found, by_hand / np.linalg.norm(by_hand), atol=1e-5)


def test_a_decoder_without_causal_mask_looks_ahead_also_after_saving(llm_folder, bidirectional):
    from sentence_transformers import SentenceTransformer

    def moves_first_state(model):
        one, other = (get_states(model, text) for text in ("my card was lost", "my card was play"))
        assert len(one) == len(other)
        return np.abs(one[0] - other[0]).max() > 1e-4

    causal = load_embedder(str(llm_folder), device="cpu", pooling="mean")
    stranger = SentenceTransformer(str(bidirectional), device="cpu")
    ours = load_embedder(str(bidirectional), device="cpu")
    assert [moves_first_state(model) for model in (causal, stranger, ours)] == [False, True, True]
    assert json.loads((bidirectional / "config.json").read_text())["is_causal"] is False
    np.testing.assert_allclose(stranger.encode(TEXTS), ours.encode(TEXTS), atol=1e-6)
    eager = SentenceTransformer(str(bidirectional), device="cpu", model_kwargs={"attn_implementation": "eager"})
    np.testing.assert_allclose(stranger.encode(TEXTS), eager.encode(TEXTS), atol=1e-5)


def test_queries_have_the_instruction_and_documents_nothing(llm_folder, tmp_path):
    model = load_embedder(str(llm_folder), device="cpu")
    prompt = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
    assert find_prompts(model, str(llm_folder)) == (prompt, "")
    options = PromptOptions(task="Find the docstring")
    given = find_prompts(model, str(llm_folder), *choose_prompts(options))
    assert given == ("Instruct: Find the docstring\nQuery: ", "")
    model.prompts["query"] = given[0]
    saved = reload(model, tmp_path / "saved")
    np.testing.assert_allclose(saved.encode_query("rain"), model.encode(given[0] + "rain", prompt=""), atol=1e-5)
    np.testing.assert_allclose(saved.encode_document("rain"), model.encode("rain", prompt=""), atol=1e-5)
    with pytest.raises(DataError, match="--query_prompt is given too; leave one out"):
        choose_prompts(PromptOptions(task="x", query_prompt="y"))


def test_a_tokenizer_without_end_of_text_is_refused_and_one_without_padding_works(llm_folder, tmp_path):
    with pytest.raises(ModelError, match=r'no end-of-text token, .*; name one as "eos_token" in tokenizer_config.json'):
        load_embedder(copy_with(llm_folder, tmp_path / "no_eos", eos_token=None), device="cpu")
    model = load_embedder(copy_with(llm_folder, tmp_path / "no_pad", pad_token=None), device="cpu")
    assert model.tokenizer.pad_token == model.tokenizer.eos_token
    plain = load_embedder(str(llm_folder), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), plain.encode(TEXTS), atol=2e-6)


def test_short_name_of_an_instructed_decoder(llm_folder, tmp_path, monkeypatch):
    """As E5-mistral is published: modules of its own, prompts by task, and no end-of-text token by newer tokenizers."""
    published = load_embedder(str(llm_folder), device="cpu")
    expected = published.encode_query(TEXTS)
    published.tokenizer.add_eos_token = False
    published.prompts = {"web_search_query": "Instruct: x\nQuery: "}
    published.save_pretrained(str(tmp_path / "published"))
    spec = registry.EMBEDDERS["e5-mistral"]
    packaged = type("Folder", (), {"find": lambda self: tmp_path / "published"})()
    monkeypatch.setitem(registry.EMBEDDERS, "e5-mistral", EmbedderSpec(spec.hub, packaged, task=spec.task))
    model = load_embedder("e5-mistral", device="cpu")
    assert find_prompts(model, "e5-mistral")[0].startswith("Instruct: Given a web search query, retrieve relevant")
    np.testing.assert_allclose(model.encode_query(TEXTS), expected, atol=1e-5)


def test_pooling_of_an_embedder_with_modules_is_replaced(embedder_folder):
    plain, other = (load_embedder(str(embedder_folder), device="cpu", pooling=name) for name in (None, "last"))
    assert np.abs(plain.encode(TEXTS) - other.encode(TEXTS)).max() > 1e-3


def test_encoders_are_no_decoders():
    assert [is_decoder({"model_type": kind}) for kind in ("llama", "mistral", "qwen2", "gpt2")] == [True] * 4
    assert not is_decoder({"model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]})  # a reranker
    assert [is_decoder({"model_type": kind}) for kind in ("bert", "roberta", "t5", "bart", None)] == [False] * 5


@pytest.fixture
def adapter(llm_folder, tmp_path):
    """An adapter as a training writes it, and the vectors of its model."""
    from perspective.training.adapters import merge_adapters, save_adapters

    model = load_with_random_adapters(llm_folder)
    save_adapters(model, tmp_path / "lora", str(llm_folder))
    merge_adapters(model)
    return tmp_path / "lora", model.encode(TEXTS)


def test_an_adapter_is_merged_into_its_base(adapter, llm_folder):
    folder, expected = adapter
    model = load_embedder(str(folder), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    assert np.abs(load_embedder(str(llm_folder), device="cpu").encode(TEXTS) - expected).max() > 1e-2
    assert not any("lora" in name for name in model.state_dict())


def test_the_adapter_of_an_embedder_without_causal_mask_is_refused(adapter, llm_folder):
    folder, expected = adapter
    whole = load_embedder(str(llm_folder), device="cpu")
    whole.save_pretrained(str(folder.parent))
    np.testing.assert_allclose(load_embedder(str(folder), device="cpu").encode(TEXTS), expected, atol=1e-5)
    make_bidirectional(whole)
    whole.save_pretrained(str(folder.parent))
    with pytest.raises(ModelError, match=r"only the adapter of the embedder in .*; give that folder"):
        load_embedder(str(folder))


def test_peft_reads_the_adapter_too(adapter, llm_folder):
    from peft import PeftModel
    from transformers import AutoModel

    folder, expected = adapter
    body = PeftModel.from_pretrained(AutoModel.from_pretrained(llm_folder), str(folder)).merge_and_unload()
    model = load_embedder(str(llm_folder), device="cpu")
    model.transformers_model.load_state_dict(body.state_dict())
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)


def test_an_adapter_of_another_base_is_refused_in_one_line(adapter, build, embedder_folder, tmp_path):
    folder, _ = adapter
    config = json.loads((folder / "adapter_config.json").read_text())

    def name_base(base):
        (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))

    from transformers import LlamaConfig, LlamaForCausalLM

    for name, size in (("deeper", {"num_hidden_layers": 3}), ("wider", {"intermediate_size": 96})):
        other = LlamaConfig(**(build.config(build.bpe()).to_dict() | size))
        LlamaForCausalLM(other).save_pretrained(tmp_path / name)
        build.bpe().save_pretrained(tmp_path / name)
    for base in (tmp_path / "deeper", tmp_path / "wider", embedder_folder):
        name_base(str(base))
        with pytest.raises(ModelError, match=r"lora: does not fit .*; it was trained on another base than"):
            load_embedder(str(folder), device="cpu")
    name_base("")
    with pytest.raises(ModelError, match='no "base_model_name_or_path"; name the adapter\'s base model'):
        load_embedder(str(folder), device="cpu")


@pytest.mark.real
def test_smollm2_embeds_by_its_short_name():
    model = load_embedder("smollm2", device="cpu")
    one, same, other = model.encode(["I lost my card", "my card is gone", "the weather in Rome"])
    assert one.shape == (576,) and one @ same > one @ other
