from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AttentionInterface, BertConfig, BertModel, LlamaConfig, LlamaModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from perspective.training import attention
from perspective.training.attention import use_matrix_products

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> BertModel:
    """A small random encoder; what tests register is taken back."""
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", sdpa_attention_forward)
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    return BertModel(BertConfig(**shape, num_attention_heads=2, attn_implementation="sdpa")).eval()


def run(model: BertModel, *, training: bool, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, bool]:
    """Return the states of two texts, one of them padded, and whether fused attention computed them."""
    tokens = torch.arange(16).reshape(2, 8)
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    with (
        profile(activities=[ProfilerActivity.CPU]) as record,
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
        nullcontext() if training else torch.no_grad(),
    ):
        states = model(tokens, attention_mask=mask).last_hidden_state
    return states, any(event.key == FUSED for event in record.key_averages())


def test_training_in_bf16_multiplies_matrices(model: BertModel) -> None:
    before, was_fused = run(model, training=True)
    use_matrix_products()
    after, is_fused = run(model, training=True)
    assert was_fused
    assert not is_fused
    assert torch.allclose(before[0].float(), after[0].float(), atol=0.05)
    assert torch.allclose(before[1, :5].float(), after[1, :5].float(), atol=0.05)
    gradients = []
    for states in (before, after):
        model.zero_grad()
        states[0].float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.encoder.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_queries_with_rotary_positions_are_multiplied_too(model: BertModel) -> None:
    use_matrix_products()
    shape = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    assert not run(LlamaModel(LlamaConfig(**shape, num_attention_heads=2)), training=True)[1]


def test_fused_attention_stays_where_it_is_faster_or_smaller(model: BertModel, monkeypatch: pytest.MonkeyPatch) -> None:
    use_matrix_products()
    assert run(model, training=False)[1]
    assert run(model, training=True, dtype=torch.float32)[1]
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 2 * 8 * 8 - 1)
    assert run(model, training=True)[1]
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 2 * 8 * 8)
    assert not run(model, training=True)[1]
