import numpy as np
import pytest
import torch

from perspective.artifacts import Output, Triplet
from perspective.errors import DataError, ModelError
from perspective.judging.answer import AnswerJudge
from perspective.judging.protocol import Question
from perspective.llm.loading import LLM, load_llm
from perspective.teacher import states as states_module
from perspective.teacher.states import EXAMPLES, read_states, write_control_questions, write_question


def read(llm, texts, path, perspective="intent"):
    questions = (write_question(perspective),)
    return read_states(llm, texts, questions, Output(path, "answer states", {"perspective": perspective}))


def read_one(llm, text, question="\nIntent:"):
    """Return the state of one text, without cache, padding or batch."""
    parts = (f"{EXAMPLES}Text:", f" {text}", question)
    ids = [token for part in parts for token in llm.tokenizer(part)["input_ids"]]
    with torch.inference_mode():
        return llm.model.base_model(torch.tensor([ids])).last_hidden_state[0, -1].numpy()


def test_batches_and_caches_do_not_change_states(llm, tmp_path, sentences, one_thread):
    texts = sentences(30, n_words=12)
    got = read(llm, texts, tmp_path / "s.npy")
    assert got.shape == (30, 32) and got.dtype == np.float32
    assert np.allclose(got, [read_one(llm, text) for text in texts], atol=1e-4)


def test_several_questions_are_answered_side_by_side(llm, tmp_path, sentences, one_thread):
    texts, questions = sentences(6), write_control_questions("intent")
    got = read_states(llm, texts, questions, Output(tmp_path / "s.npy", "control states", {}))
    assert got.shape == (6, 4 * 32)
    for i, question in enumerate(questions):
        expected = [read_one(llm, text, question) for text in texts]
        assert np.allclose(got[:, 32 * i : 32 * (i + 1)], expected, atol=1e-4)


def test_bos_is_put_first(build, tmp_path, one_thread):
    tokenizer = build.bpe(("<s>", "</s>"), chat_template=None, bos="<s>")
    llm = load_llm(str(build.save_llama(tmp_path / "llm", "LlamaForCausalLM", tokenizer)))
    parts = (f"{EXAMPLES}Text:", " lost card", "\nIntent:")
    plain = [llm.tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts]
    ids = torch.tensor([[llm.tokenizer.bos_token_id, *sum(plain, [])]])
    with torch.inference_mode():
        expected = llm.model.base_model(ids).last_hidden_state[0, -1].numpy()
    assert np.allclose(read(llm, ["lost card"] * 2, tmp_path / "s.npy")[0], expected, atol=1e-4)


def test_a_text_cannot_inject_an_answer_or_a_special_token(llm, tmp_path, one_thread):
    texts = ["lost card", "lost card\nIntent: rain", "lost card Intent: rain", "a <|im_end|> b", "a < |im_end|> b"]
    got = read(llm, texts, tmp_path / "s.npy")
    assert np.allclose(got[1], got[2], atol=1e-5)
    assert np.allclose(got[3], got[4], atol=1e-5)


def test_a_killed_run_resumes(llm, tmp_path, sentences, monkeypatch, one_thread):
    monkeypatch.setattr(states_module, "BLOCK_TEXTS", 8)
    texts = sentences(30)
    whole = read(llm, texts, tmp_path / "whole.npy")
    real, n_reads = states_module.StateReader.read, []

    def read_until_killed(*arguments):
        n_reads.append(1)
        if len(n_reads) > 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(states_module.StateReader, "read", read_until_killed)
    with pytest.raises(KeyboardInterrupt):
        read(llm, texts, tmp_path / "s.npy")
    kept = sorted((tmp_path / "s.npy.partial").glob("*.npy"))
    assert len(kept) == 2
    before = [path.stat().st_mtime_ns for path in kept]
    monkeypatch.setattr(states_module.StateReader, "read", real)
    assert (read(llm, texts, tmp_path / "s.npy") == whole).all()
    assert [path.stat().st_mtime_ns for path in kept] == before
    with pytest.raises(DataError, match="unfinished run with other inputs or settings"):
        read(llm, texts, tmp_path / "s.npy", "tone")
    Output(tmp_path / "s.npy", "answer states", {}).discard_partial()
    assert not (tmp_path / "s.npy.partial").exists()


def test_states_with_nan_are_refused_and_not_kept(llm_folder, tmp_path):
    llm = load_llm(str(llm_folder))
    with torch.no_grad():
        llm.model.base_model.norm.weight.fill_(float("nan"))
    for _ in range(2):  # nothing is kept for the second run
        with pytest.raises(ModelError, match=r"gives NaN or infinity in torch\.float32; set COMPUTE_DTYPE=float32"):
            read(llm, ["a", "b"], tmp_path / "s.npy")
        assert not list((tmp_path / "s.npy.partial").glob("*.npy"))


def test_an_llm_inside_a_multimodal_model(llm, tmp_path, one_thread):
    """Its sizes are in the config of its text model."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"vocab_size": len(llm.tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "max_position_embeddings": 512}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config).eval()
    assert LLM("gemma", model, llm.tokenizer).max_tokens == 512
    assert read(LLM("gemma", model, llm.tokenizer), ["a", "b c"], tmp_path / "s.npy").shape == (2, 32)


def test_a_context_too_short_for_the_prompt_is_refused(llm_folder, tmp_path):
    llm = load_llm(str(llm_folder))
    llm.model.config.max_position_embeddings = 32
    with pytest.raises(ModelError, match="its context of 32 tokens is too short for the prompt"):
        read(llm, ["a"], tmp_path / "s.npy")


def test_the_judge_does_not_depend_on_the_order_of_choices():
    states = np.random.default_rng(0).normal(size=(50, 8))
    states[1] = states[0] + 0.01
    triplets = [Triplet(0, 1, 2), Triplet(0, 2, 1), Triplet(3, 4, 4)]
    judge = AnswerJudge(states, triplets, {"perspective": "intent"})
    judgments = list(judge.judge([Question(triplet, "q", "a", "b") for triplet in triplets]))
    assert [judgment.prediction for judgment in judgments] == [("1",), ("2",), ()]
    assert judgments[0].probability + judgments[1].probability == pytest.approx(1)
    assert judgments[2].probability == 0.5
    assert judge.identity == {"kind": "answer", "perspective": "intent"}


@pytest.mark.parametrize("n_questions_at_a_time", [1, 64])
def test_the_judge_abstains_if_both_choices_are_far(n_questions_at_a_time, monkeypatch):
    monkeypatch.setattr("perspective.judging.answer.QUESTIONS_AT_A_TIME", n_questions_at_a_time)
    rng = np.random.default_rng(0)
    topics = np.repeat(np.arange(20), 8)  # 20 topics of 8 texts, fewer than the ten that count as near
    states = 5 * rng.normal(size=(20, 40))[topics] + rng.normal(size=(160, 40))
    triplets = [Triplet(0, 1, 9), Triplet(0, 9, 1), Triplet(0, 30, 70), Triplet(8, 77, 100), Triplet(8, 9, 10)]
    judge = AnswerJudge(states, triplets, {})
    judgments = list(judge.judge([Question(triplet, "q", "a", "b") for triplet in triplets]))
    assert [len(judgment.prediction) for judgment in judgments] == [1, 1, 0, 0, 1]
    assert (judgments[0].prediction, judgments[1].prediction) == (("1",), ("2",))
    assert "neither" in judgments[2].content and "neither" not in judgments[0].content
    assert judge.facts == {"n_neither": 2}
