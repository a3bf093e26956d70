from functools import partial

import pytest
import torch
import transformers.utils

from perspective.errors import DataError
from perspective.llm.loading import load_llm
from perspective.models.embedders import load_embedder
from perspective.runtime import devices
from perspective.runtime.devices import (
    describe_precision,
    load_with_attention,
    pick_attention,
    pick_reading_dtype,
    supports_fast_bf16,
    trains_in_bf16,
)


@pytest.mark.parametrize(
    ("device", "fast", "expected"),
    [("cuda", True, "bfloat16"), ("cuda", False, "float16"), ("cpu", True, "bfloat16"), ("cpu", False, "float32")],
)
def test_half_precision_on_devices_that_are_fast_in_it(monkeypatch, device, fast, expected):
    monkeypatch.delenv("COMPUTE_DTYPE", raising=False)
    monkeypatch.setattr(devices, "supports_fast_bf16", lambda device: fast)
    assert pick_reading_dtype(device) == getattr(torch, expected)


@pytest.mark.parametrize(
    ("vendor", "flag", "expected"),
    [
        ("GenuineIntel", "amx_bf16", True),
        ("AuthenticAMD", "avx512_bf16", True),
        ("GenuineIntel", "avx512_bf16", False),  # slower than float32
        ("AuthenticAMD", "avx512f", False),
    ],
)
def test_bfloat16_is_used_on_cpus_that_are_fast_in_it(monkeypatch, vendor, flag, expected):
    cpu = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: any: 2\nflags\t\t: fpu {flag} sse\n\n"
    monkeypatch.setattr(devices, "_cpu_has_bf16", devices._cpu_has_bf16.__wrapped__)  # without its cache
    monkeypatch.setattr(devices.Path, "read_text", lambda path, **options: cpu)
    assert supports_fast_bf16("cpu") is expected


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_without_linux_torch_says_what_the_cpu_has(monkeypatch, flag):
    def read_text(path, **options):
        raise FileNotFoundError(path)

    monkeypatch.setattr(devices, "_cpu_has_bf16", devices._cpu_has_bf16.__wrapped__)
    monkeypatch.setattr(devices.Path, "read_text", read_text)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True})
    assert supports_fast_bf16("cpu") is (flag == "amx_bf16")


def test_the_environment_overrides_the_reading_precision(monkeypatch, llm_folder):
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    assert load_llm(str(llm_folder)).model.dtype == torch.bfloat16
    monkeypatch.setenv("COMPUTE_DTYPE", "float32")
    llm = load_llm(str(llm_folder))
    assert describe_precision(llm.model) == {"device": llm.device.type, "dtype": "float32"}
    monkeypatch.setenv("COMPUTE_DTYPE", "bf16")
    with pytest.raises(DataError, match='COMPUTE_DTYPE="bf16": '):
        load_llm(str(llm_folder))


@pytest.mark.parametrize(
    ("requested", "fast", "expected"),
    [(None, True, True), ("bfloat16", True, True), ("float32", True, False), (None, False, False)],
)
def test_the_environment_overrides_the_training_precision(monkeypatch, requested, fast, expected):
    monkeypatch.delenv("COMPUTE_DTYPE", raising=False)
    if requested:
        monkeypatch.setenv("COMPUTE_DTYPE", requested)
    monkeypatch.setattr(devices, "supports_fast_bf16", lambda: fast)
    assert trains_in_bf16() is expected


def test_weights_stored_in_half_precision_are_trained_in_float32(embedder_folder, tmp_path):
    half = load_embedder(str(embedder_folder), device="cpu").half()
    half.save(str(tmp_path / "half"), create_model_card=False)
    assert load_embedder(str(tmp_path / "half"), device="cpu").dtype == torch.float32


def test_models_without_flash_attention_are_loaded_without_it(monkeypatch):
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: True)
    tried = []

    def load(message="MPNetModel does not support Flash Attention 2 yet", **options):
        tried.append(options)
        if options:
            raise ValueError(message)
        return "model"

    assert load_with_attention(load, "cuda", torch.bfloat16) == "model" and len(tried) == 2
    with pytest.raises(ValueError, match="broken"):
        load_with_attention(partial(load, "broken"), "cuda", torch.bfloat16)


def test_flash_attention_only_where_it_runs(monkeypatch):
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: True)
    assert pick_attention("cuda", torch.bfloat16) == {"attn_implementation": "flash_attention_2"}
    assert pick_attention("cuda", torch.float32) == pick_attention("cpu", torch.bfloat16) == {}
    monkeypatch.setattr(transformers.utils, "is_flash_attn_2_available", lambda: False)
    assert pick_attention("cuda", torch.bfloat16) == {}
