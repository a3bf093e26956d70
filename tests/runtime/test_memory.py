from types import SimpleNamespace

import pytest
import torch
from helpers import make_question, row_of
from transformers import BertConfig, MambaConfig, MistralConfig

from perspective.errors import ModelError
from perspective.judging.reward import RewardJudge
from perspective.llm.labels import LabelReader
from perspective.llm.loading import load_llm
from perspective.llm.writing import AnswerWriter
from perspective.runtime.memory import (
    MAX_BATCH_TOKENS,
    BatchLimit,
    count_token_bytes,
    halve_on_out_of_memory,
    is_out_of_memory,
    limit_batches,
    make_batches,
)
from perspective.teacher.states import StateReader

GIB = 2**30


def out_of_memory():
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


class Device:
    """A device that raises out of memory for batches of more than `tokens` tokens."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.done = []
        self.n_failed = 0

    def run(self, batch):
        if max(map(len, batch)) * len(batch) > self.tokens:
            self.n_failed += 1
            raise out_of_memory()
        self.done.append(batch)
        return [len(text) for text in batch]


@pytest.mark.parametrize("tokens", [9, 10, 17, 40, 1000])
def test_every_item_comes_out_once_and_in_order(tokens):
    device = Device(tokens)
    run = halve_on_out_of_memory(device.run, len)
    texts = ["x" * n for n in (9, 9, 8, 7, 7, 5, 3, 2, 1, 1)]
    for _ in range(3):
        assert run(texts) == [len(text) for text in texts]
    assert [text for batch in device.done for text in batch] == texts * 3


def test_what_did_not_fit_is_remembered():
    device = Device(20)
    run = halve_on_out_of_memory(device.run, len)
    run(["xxxxx"] * 16)  # 80 tokens, 40, then 20
    assert device.n_failed == 2
    run(["xxxxx"] * 16)
    assert device.n_failed == 2
    # Counted in tokens: shorter texts still go together.
    run(["x"] * 16)
    assert len(device.done[-1]) == 16


def test_a_single_item_that_does_not_fit_is_a_model_error():
    run = halve_on_out_of_memory(Device(3).run, len)
    with pytest.raises(ModelError, match="out of memory with a single text of 4 tokens: .*smaller model") as error:
        run(["xx", "xxxx"])
    assert "\n" not in str(error.value)


def test_other_errors_are_raised_unchanged():
    def fail(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        halve_on_out_of_memory(fail, len)(["x"])


def test_out_of_memory_errors_are_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(other.value)


def test_batches_keep_within_items_and_tokens():
    texts = ["x" * n for n in (9, 7, 7, 4, 4, 4, 1)]
    by_items = list(make_batches(texts, len, BatchLimit(items=3)))
    assert [len(batch) for batch in by_items] == [3, 3, 1]
    by_tokens = list(make_batches(texts, len, BatchLimit(tokens=8)))
    assert [list(map(len, batch)) for batch in by_tokens] == [[9], [7], [7], [4, 4], [4, 1]]
    with_shared = list(make_batches(texts, len, BatchLimit(tokens=20, n_shared=3)))  # each item takes 3 more
    assert [list(map(len, batch)) for batch in with_shared] == [[9], [7, 7], [4, 4], [4, 1]]
    assert list(make_batches([], len, BatchLimit())) == []


def test_on_a_cpu_the_given_limit_is_used(llm_folder):
    llm = load_llm(str(llm_folder))
    limit = BatchLimit(items=7)
    if llm.device.type == "cpu":
        assert limit_batches(llm.model, limit) is limit
    assert limit_batches(None, limit) is limit


@pytest.mark.parametrize(("free", "tokens"), [(1 * GIB, 1899), (16 * GIB, 30393), (70 * GIB, MAX_BATCH_TOKENS), (0, 1)])
def test_on_cuda_the_limit_follows_the_free_memory(monkeypatch, free, tokens):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    model = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, config=MistralConfig())
    assert limit_batches(model, BatchLimit(items=7), n_shared=5) == BatchLimit(tokens=tokens, n_shared=5)


def test_an_embedder_keeps_no_keys_and_values():
    config = BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
    assert count_token_bytes(config, 2, keeps_cache=False) == 2 * (8 * 1024 + 3 * 4096)
    assert count_token_bytes(config, 4, keeps_cache=True) == 4 * (8 * 1024 + 3 * 4096 + 2 * 24 * 1024)


def test_configs_whose_layers_differ_are_counted_by_the_largest():
    class PerLayer(SimpleNamespace):
        @property
        def head_dim(self):
            raise LookupError("ask for a layer")

        def get_text_config(self):
            return self

    config = MistralConfig()
    whole = count_token_bytes(config, 2, keeps_cache=True)
    sizes = {name: getattr(config, name) for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")}
    more = {"num_hidden_layers": config.num_hidden_layers, "intermediate_size": [8, config.intermediate_size]}
    assert count_token_bytes(PerLayer(**sizes, **more), 2, keeps_cache=True) == whole
    recurrent = MambaConfig(hidden_size=64, num_hidden_layers=2)
    assert count_token_bytes(recurrent, 2, keeps_cache=True) > count_token_bytes(recurrent, 2, keeps_cache=False)


# the project's own passes


class Crowded(torch.nn.Module):
    """Raises out of memory above a number of rows or tokens, and counts how often."""

    n_refused = 0

    def __init__(self, model, rows, tokens):
        super().__init__()
        self.model, self.rows, self.tokens = model, rows, tokens

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.model, name)

    def _guard(self, ids):
        if len(ids) > self.rows or ids.numel() > self.tokens:
            Crowded.n_refused += 1
            raise out_of_memory()

    def forward(self, ids, **options):
        self._guard(ids)
        return self.model(ids, **options)

    def generate(self, ids, **options):
        self._guard(ids)
        return self.model.generate(ids, **options)

    @property
    def base_model(self):
        return Crowded(self.model.base_model, self.rows, self.tokens)


def crowd(llm, rows=10**6, tokens=10**6):
    return type(llm)(llm.name, Crowded(llm.model, rows, tokens), llm.tokenizer)


@pytest.fixture
def refusals():
    """Return the number of out-of-memory errors raised in this test."""
    before = Crowded.n_refused
    return lambda: Crowded.n_refused - before


def prompts(llm, sentences, n=13):
    return sorted(llm.tokenizer(sentences(n, n_words=12))["input_ids"], key=len, reverse=True)


def test_labels_are_read_in_halves(llm, sentences, refusals, one_thread):
    batch, counted, counted_in_halves = prompts(llm, sentences, n=40), {"n_prompts": 0, "n_tokens": 0}, {}
    counted_in_halves |= counted
    whole = LabelReader(llm, (5, 6), counted).read(batch)
    halves = LabelReader(crowd(llm, tokens=250), (5, 6), counted_in_halves).read(batch)
    assert halves == pytest.approx(whole, abs=1e-4)
    assert refusals() == 1  # what did not fit is remembered
    assert counted_in_halves == counted
    assert counted["n_prompts"] == 40


def test_answers_are_written_in_halves(llm, sentences, one_thread):
    batch, pad = prompts(llm, sentences, n=7), llm.tokenizer.pad_token_id
    facts = {"n_prompts": 0, "n_tokens": 0}
    one_by_one = [AnswerWriter(llm, 4, facts).write([prompt])[0] for prompt in batch]
    halves = AnswerWriter(crowd(llm, 2), 4, facts).write(batch)
    for written, expected in zip(halves, one_by_one, strict=True):
        assert [token for token in written if token != pad] == [token for token in expected if token != pad]


def test_states_are_read_in_halves(llm, sentences, refusals, one_thread):
    texts, settings = sentences(60), ("\nIntent:",)
    halves = StateReader(crowd(llm, tokens=250), settings)(texts)
    assert halves == pytest.approx(StateReader(llm, settings)(texts), abs=1e-4)
    assert refusals() == 1
    with pytest.raises(ModelError, match="single text"):
        StateReader(crowd(llm, tokens=0), settings)(texts)


def test_rewards_are_scored_in_halves(reward_folder, one_thread):

    llm = load_llm(str(reward_folder), auto_class="AutoModelForSequenceClassification")
    llm.model.config.pad_token_id = -1
    questions = [make_question(row, "lost card", "card lost", "rain") for row in range(4)]
    whole = list(RewardJudge(llm, "intent", batch_size=8).judge(questions))
    halves = list(RewardJudge(crowd(llm, 3), "intent", batch_size=8).judge(questions))
    assert [row_of(judgment) for judgment in halves] == [row_of(judgment) for judgment in whole]
    expected = [judgment.probability for judgment in whole]
    assert [judgment.probability for judgment in halves] == pytest.approx(expected, abs=1e-4)
