"""Packed prompts are read as each alone, by many kinds of causal LM."""

import random

import pytest
import torch
import transformers

from perspective.llm import packing
from perspective.llm.loading import LLM
from perspective.llm.packing import PromptReader, grow_tree, takes_packs

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GPT2_SIZES = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
BLOOM_SIZES = {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}
MAMBA_SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}


def build(kind, **options):
    sizes = {"GPT2": GPT2_SIZES, "Bloom": BLOOM_SIZES, "Mamba": MAMBA_SIZES}.get(kind, SIZES)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, initializer_range=0.3, **options)
    return LLM(kind, transformers.AutoModelForCausalLM.from_config(config).eval(), tokenizer=None)


@pytest.fixture(scope="module")
def llama():
    return build("Llama")


def make_reader(llm, max_tokens=64):
    def forward(ids, rows, columns, **inputs):
        return llm.body(ids, **inputs).last_hidden_state[rows, columns]

    return PromptReader(llm, forward, max_tokens)


def draw_prompts(n, shared=(), seed=0):
    """Two in three go on alike; one is there twice, one goes on where another ends."""
    rng = random.Random(seed)

    def draw(low, high):
        return tuple(rng.randrange(12, 64) for _ in range(rng.randint(low, high)))

    beginnings = [draw(2, 4), draw(2, 4), ()]
    prompts = [(*shared, *rng.choice(beginnings), *draw(1, 12)) for _ in range(n - 2)]
    return [*prompts, prompts[0], (*prompts[1], 13)]


@torch.inference_mode()
def read_alone(llm, prompts):
    return torch.stack([llm.body(torch.tensor([prompt])).last_hidden_state[0, -1] for prompt in prompts])


@pytest.mark.parametrize("shared", [(), (5, 6, 7, 8, 9)])
@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Gemma2", "GPT2", "GPTNeoX"])
def test_packed_as_alone(kind, shared, one_thread):
    llm = build(kind)
    prompts = draw_prompts(60, shared)
    reader = make_reader(llm)
    assert reader.packs
    assert torch.allclose(reader.read(prompts), read_alone(llm, prompts), rtol=1e-4, atol=1e-4)
    assert 0.5 < reader.n_read / sum(map(len, prompts)) < 0.9  # what several begin with was read once a row


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Bloom", {}),  # its positions come from a mask of two dimensions
        ("Mistral", {"sliding_window": 8}),  # a mask would show what the window hides
    ],
)
def test_who_takes_no_packs_reads_side_by_side(kind, options, one_thread):
    llm = build(kind, **options)
    reader = make_reader(llm)
    assert not reader.packs
    prompts = draw_prompts(40, shared=(5, 6, 7))
    assert torch.allclose(reader.read(prompts), read_alone(llm, prompts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "options"), [("Mamba", {}), ("Lfm2", {"layer_types": ["conv", "full_attention"]})])
def test_whose_cache_cannot_be_repeated_reads_prompts_whole(kind, options, one_thread):
    llm = build(kind, **options)
    reader = make_reader(llm)
    assert not reader.packs and not reader.caches
    prompts = draw_prompts(40, shared=(5, 6, 7))
    reader.begin((5, 6, 7))
    assert torch.allclose(reader.read(prompts), read_alone(llm, prompts), rtol=1e-4, atol=1e-4)


def test_who_takes_no_packs_is_found_out(llama, monkeypatch):
    assert takes_packs(llama, 64) and takes_packs(build("Mistral", sliding_window=64), 64)
    with monkeypatch.context() as patch:
        patch.setattr(llama.model.config, "_attn_implementation", "flash_attention_2")  # it knows no masks
        assert not takes_packs(llama, 64)

    def read_on(prompts):
        """Show each prompt the one before it, as a recurrent model does."""
        tokens = [token for prompt in prompts for token in prompt]
        return tokens, [list(range(sum(map(len, prompts[: row + 1])))) for row in range(len(prompts))]

    monkeypatch.setattr(packing, "grow_tree", read_on)
    assert not takes_packs(llama, 64)


def test_the_beginning_is_read_once(llama, one_thread):
    reader = make_reader(llama)
    for seed in range(3):
        prompts = draw_prompts(20, shared=(5, 6, 7, 8, 9), seed=seed)
        before = reader.n_read
        reader.read(prompts)
        own = len(grow_tree([prompt[5:] for prompt in prompts])[0])  # all in one row
        assert reader.n_read - before == own + (5 if seed == 0 else 0)
    others = draw_prompts(20, shared=(5, 6), seed=9)
    for asked in (others, others[:1]):
        assert torch.allclose(reader.read(asked), read_alone(llama, asked), rtol=1e-4, atol=1e-4)


def test_a_class_that_names_a_wrong_body_is_read(one_thread):
    """Llama 4's causal LM calls its body by another name than its `base_model_prefix`, and is its own base model."""
    torch.manual_seed(0)
    sizes = {**SIZES, "intermediate_size_mlp": 64, "head_dim": 8, "num_local_experts": 2}
    model = transformers.AutoModelForCausalLM.from_config(transformers.Llama4TextConfig(**sizes)).eval()
    assert model.base_model is model
    llm = LLM("Llama4", model, tokenizer=None)
    prompts = draw_prompts(4)
    assert torch.isfinite(read_alone(llm, prompts)).all() and read_alone(llm, prompts).shape[1] == SIZES["hidden_size"]
