import pytest
import torch
import transformers.utils

from perspective.errors import DataError
from perspective.llm.loading import load_llm
from perspective.models.embedders import load_embedder
from perspective.runtime import devices
from perspective.runtime.devices import (
    describe_precision,
    pick_attention,
    pick_reading_dtype,
    supports_fast_bf16,
    trains_in_bf16,
)


@pytest.mark.parametrize(
    ("device", "fast", "expected"),
    [("cuda", True, "bfloat16"), ("cuda", False, "float16"), ("cpu", True, "bfloat16"), ("cpu", False, "float32")],
)
def test_half_precision_where_the_device_is_fast_in_it(monkeypatch, device, fast, expected):
    monkeypatch.delenv("COMPUTE_DTYPE", raising=False)
    monkeypatch.setattr(devices, "supports_fast_bf16", lambda device: fast)
    assert pick_reading_dtype(device) == getattr(torch, expected)


@pytest.mark.parametrize("abilities", [{}, {"avx512_f": True}, {"amx_bf16": True}, {"avx512_bf16": True}])
def test_a_cpu_is_fast_in_bfloat16_by_its_instructions(monkeypatch, abilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert supports_fast_bf16("cpu") == any("bf16" in name for name in abilities)


def test_the_environment_decides(monkeypatch, llm_folder):
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    assert load_llm(str(llm_folder)).model.dtype == torch.bfloat16
    monkeypatch.setenv("COMPUTE_DTYPE", "float32")
    llm = load_llm(str(llm_folder))
    assert describe_precision(llm.model) == {"device": llm.device.type, "dtype": "float32"}
    monkeypatch.setenv("COMPUTE_DTYPE", "bf16")
    with pytest.raises(DataError, match='COMPUTE_DTYPE="bf16": '):
        load_llm(str(llm_folder))


@pytest.mark.parametrize(
    ("asked", "fast", "expected"),
    [(None, True, True), ("bfloat16", True, True), ("float32", True, False), (None, False, False)],
)
def test_the_environment_decides_for_training_too(monkeypatch, asked, fast, expected):
    monkeypatch.delenv("COMPUTE_DTYPE", raising=False)
    if asked:
        monkeypatch.setenv("COMPUTE_DTYPE", asked)
    monkeypatch.setattr(devices, "supports_fast_bf16", lambda: fast)
    assert trains_in_bf16() is expected


def test_weights_stored_in_half_precision_are_not_trained_in_it(embedder_folder, tmp_path):
    half = load_embedder(str(embedder_folder), device="cpu").half()
    half.save(str(tmp_path / "half"), create_model_card=False)
    assert load_embedder(str(tmp_path / "half"), device="cpu").dtype == torch.float32


def test_flash_attention_only_where_it_runs(monkeypatch):
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: True)
    assert pick_attention("cuda", torch.bfloat16) == {"attn_implementation": "flash_attention_2"}
    assert pick_attention("cuda", torch.float32) == pick_attention("cpu", torch.bfloat16) == {}
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: False)
    assert pick_attention("cuda", torch.bfloat16) == {}
