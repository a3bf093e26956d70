"""Scores of labels do not depend on the precision of the logits."""

import random

import pytest
import torch

from perspective.llm.labels import LabelReader
from perspective.llm.loading import load_llm

LABELS = (20, 21)


@pytest.fixture
def prompts():
    rng = random.Random(0)
    return [tuple(rng.randrange(12, 60) for _ in range(8)) for _ in range(300)]


@torch.inference_mode()
def score_alone(llm, prompts):
    """Return the log-odds by hand: one prompt at a time, from its last state in float32."""
    weight = llm.model.get_output_embeddings().weight[list(LABELS)].float()
    states = [llm.model.base_model(torch.tensor([prompt])).last_hidden_state[0, -1].float() for prompt in prompts]
    first, second = (torch.stack(states) @ weight.T).T
    return (first - second).tolist()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_log_odds_are_those_of_the_states(llm_folder, prompts, monkeypatch, dtype, tolerance, one_thread):
    monkeypatch.setenv("COMPUTE_DTYPE", dtype)
    llm = load_llm(str(llm_folder))
    facts = {"n_prompts": 0, "n_tokens": 0}
    found = LabelReader(llm, LABELS, facts).read(prompts)
    expected = score_alone(llm, prompts)
    assert found == pytest.approx(expected, abs=tolerance * max(map(abs, expected)))
    assert len(set(found)) == len(prompts) == facts["n_prompts"]  # no two are rounded to the same


@torch.inference_mode()
def test_the_logits_of_a_model_in_bfloat16_are_rounded(llm_folder, prompts, monkeypatch):
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    llm = load_llm(str(llm_folder))
    logits = [llm.model(torch.tensor([prompt])).logits[0, -1, list(LABELS)].float() for prompt in prompts]
    assert len({(one[0] - one[1]).item() for one in logits}) < len(prompts)
