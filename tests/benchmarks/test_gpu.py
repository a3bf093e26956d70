import json
import sys

import pytest
import torch

from perspective.artifacts import sidecar_path
from perspective.benchmarks import gpu
from perspective.benchmarks.gpu import PARTS, Bench, measure_matrix_rate
from perspective.benchmarks.random_models import SIZES, count_parameters
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts

FIGURES = {
    *("model", "n_parameters", "n_items", "n_tokens", "seconds", "passes"),
    *("items_per_second", "tokens_per_second", "tflops", "share_of_matrix_rate", "peak_memory_gib"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The whole benchmark at tiny size, run once."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("measures")
    gpu.main(["--size", "tiny", "--output_path", str(folder)])
    torch.set_num_threads(n_threads)
    return folder


def test_the_files_hold_every_part(results):
    found = json.loads((results / "benchmark_gpu_tiny.json").read_text())
    assert set(found) == {"size", "machine", "dtype", "attention", "matrix", "counting", "parts"}
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["memory_gib"] > 0.5
    assert list(found["parts"]) == list(PARTS)
    for part in found["parts"].values():
        assert set(part) == FIGURES
        assert part["seconds"] > 0 and part["peak_memory_gib"] > 0.01
        assert part["tokens_per_second"] == pytest.approx(part["n_tokens"] / part["seconds"])
        flop = 2 * part["n_parameters"] * part["n_tokens"] * part["passes"]
        assert part["tflops"] * 1e12 == pytest.approx(flop / part["seconds"])
        assert 0 < part["share_of_matrix_rate"] < 1
        assert part["share_of_matrix_rate"] == pytest.approx(part["tflops"] / found["matrix"]["tflops"])
    assert found["parts"]["finetune"]["passes"] == 3
    table = (results / "benchmark_gpu_tiny.md").read_text()
    assert all(f"| {name} | " in table for name in PARTS)
    assert sidecar_path(results / "benchmark_gpu_tiny.json").exists()


def test_tokens_are_counted_right(results, tmp_path):
    parts = json.loads((results / "benchmark_gpu_tiny.json").read_text())["parts"]
    bench, size = Bench(SIZES["tiny"], tmp_path), SIZES["tiny"]
    encoder = load_embedder(str(bench.embedder), device="cpu")
    seen = []
    # What the model is really given, without the padding.
    encoder[0].register_forward_pre_hook(lambda module, args: seen.append(int(args[0]["attention_mask"].sum())))
    embed_texts(encoder, bench.write_texts(size.n_texts))
    assert parts["encode"]["n_tokens"] == sum(seen)
    # By hand: 4 square matrices for attention, 2 for the layer's own network, biases, norms; the pooler.
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 2 * 32
    assert parts["encode"]["n_parameters"] == 2 * layer + 2 * 32 + (32 * 32 + 32)
    # Without embeddings and head: keys and values are half as wide.
    assert parts["states"]["n_parameters"] == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32) + 32
    assert count_parameters(bench.llm.model) == parts["choice"]["n_parameters"]
    own = bench.llm.tokenizer(bench.write_texts(size.n_state_texts), add_special_tokens=False)["input_ids"]
    assert parts["states"]["n_tokens"] > sum(map(len, own))
    # Two orders, each with three texts.
    own = bench.llm.tokenizer(bench.write_texts(3 * size.n_questions), add_special_tokens=False)["input_ids"]
    assert 2 * sum(map(len, own)) < parts["choice"]["n_tokens"] < 2 * sum(map(len, own)) + 2 * 120 * size.n_questions


def test_the_matrix_rate_is_that_of_the_product(monkeypatch):
    monkeypatch.setattr(gpu, "_time", lambda run: run() is None or 0.5)
    assert measure_matrix_rate((64, 32, 16)) == 2 * 64 * 32 * 16 / 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "reel"], "did you mean real"),
        (["--size", "tiny", "--parts", "encoding"], "did you mean encode"),
        pytest.param(
            [],
            "--size real needs a CUDA GPU, and there is none; try the code with --size tiny",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        gpu.main([*arguments, "--output_path", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir()), sys.stderr


def test_the_real_shapes_are_those_of_the_models():
    from transformers import AutoModel, BertConfig, MistralConfig

    with torch.device("meta"):
        bert = AutoModel.from_config(BertConfig(**SIZES["real"].embedder))
        mistral = AutoModel.from_config(MistralConfig(**SIZES["real"].llm))
    assert sum(p.numel() for p in bert.parameters()) == 335_141_888  # gte-large
    assert count_parameters(mistral) == 6_979_588_096  # Mistral-7B without its two vocabulary matrices
