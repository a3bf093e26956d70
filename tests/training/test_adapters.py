"""Adapters of bases in 4 bits and of sharded weights, as far as a CPU can show."""

import numpy as np
import pytest
import torch
from conftest import make_wordpiece_tokenizer
from helpers import load_with_random_adapters
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding

from perspective.artifacts import ROOT, Output, TrainingTriplet, Triplet
from perspective.errors import DataError, ModelError
from perspective.models.embedders import load_embedder
from perspective.training.adapters import add_adapters, load_adapters, merge_adapters
from perspective.training.finetuning import finetune_embedder
from perspective.training.run import replace_shards
from perspective.training.settings import TrainSettings

TEXTS = ["top up my card", "rain"]


def test_merging_changes_no_vector(llm_folder):
    model = load_with_random_adapters(llm_folder)
    before = model.encode(TEXTS)
    merge_adapters(model)
    np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-5)


def test_a_quantised_base_is_dequantised_where_adapters_are_merged(llm_folder, monkeypatch, tmp_path):
    """Weights in 8 bits by a scale, which stand for those of bitsandbytes: these need a GPU."""
    model = load_with_random_adapters(llm_folder)
    scale = 0.02

    def dequantize(layer):
        return layer.weight.float() * scale

    monkeypatch.setattr("peft.utils.integrations.dequantize_module_weight", dequantize)
    expected = load_with_random_adapters(llm_folder)
    for quantized, whole in zip(model.modules(), expected.modules(), strict=True):
        if hasattr(quantized, "lora_A"):
            layer = quantized.get_base_layer()
            rounded = torch.round(layer.weight.detach() / scale).clamp(-127, 127).to(torch.int8)
            layer.weight = torch.nn.Parameter(rounded, requires_grad=False)
            whole.get_base_layer().weight.data = rounded.float() * scale
    merge_adapters(model)
    merge_adapters(expected)
    np.testing.assert_allclose(model.encode(TEXTS), expected.encode(TEXTS), atol=1e-5)
    model.save_pretrained(str(tmp_path / "merged"))
    again = load_embedder(str(tmp_path / "merged"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), expected.encode(TEXTS), atol=1e-5)


def test_adapters_of_a_checkpoint_come_back_exactly(llm_folder, tmp_path):
    model = load_with_random_adapters(llm_folder)
    expected = model.encode(TEXTS)
    model.save_pretrained(str(tmp_path))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.zeros_(parameter)
    assert not np.allclose(model.encode(TEXTS), expected, atol=1e-3)
    load_adapters(model, tmp_path)
    np.testing.assert_array_equal(model.encode(TEXTS), expected)
    merge_adapters(model)


def test_whole_weights_take_the_places_of_shards(llm_folder):
    model = load_with_random_adapters(llm_folder)
    before = model.encode(TEXTS)
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data = parameter.data.flatten()[:1]  # of other shapes
    replace_shards(model, state)
    np.testing.assert_allclose(model.encode(TEXTS), before, atol=1e-6)
    merge_adapters(model)


def test_accelerate_reads_the_configurations():
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = [
        str(load_config_from_file(str(ROOT / "recipes" / f"accelerate-{name}.yaml")).distributed_type)
        for name in ("fsdp", "zero3")
    ]
    assert [kind.rpartition(".")[2] for kind in kinds] == ["FSDP", "DEEPSPEED"]


def test_an_embedder_without_a_transformer_gets_none():
    model = SentenceTransformer(
        modules=[StaticEmbedding(make_wordpiece_tokenizer().backend_tokenizer, embedding_dim=8)]
    )
    with pytest.raises(DataError, match="adapters need a transformer, and this embedder has none"):
        add_adapters(model, 4)


def test_an_embedder_with_two_sides_is_not_trained(tmp_path):
    sides = [[StaticEmbedding(make_wordpiece_tokenizer().backend_tokenizer, embedding_dim=8)] for _ in range(2)]
    model = SentenceTransformer(modules=[Router.for_query_document(*sides, default_route="document")], device="cpu")
    triplets = [TrainingTriplet("", f"a {row}", f"b {row}", f"c {row}", Triplet(0, 1, 2)) for row in range(4)]
    with pytest.raises(ModelError, match="different modules for queries and documents cannot be trained"):
        finetune_embedder(model, triplets, TrainSettings(), Output(tmp_path / "out", "embedder", {}))
