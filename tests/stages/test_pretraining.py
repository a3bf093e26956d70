"""Stage 5 by its scripts, and a decoder as the embedder of the clustering pipeline."""

import json
import subprocess

import numpy as np
import pytest
from helpers import ROOT, refuse, run_stage, stage_environment, write_jsonl

from perspective.artifacts import read_facts
from perspective.data.pairs import load_pairs
from perspective.models.embedders import load_embedder


@pytest.fixture
def texts_file(tmp_path, sentences):
    texts = [f"{text} {row}" for row, text in enumerate(sentences(60))]
    return write_jsonl(tmp_path / "tiny.jsonl", [{"input": text, "label": text.split()[0]} for text in texts])


@pytest.mark.slow
def test_the_scripts_make_an_embedder_that_attends_to_both_sides(tmp_path, llm_folder, texts_file):
    from sentence_transformers import SentenceTransformer

    embedder = llm_folder
    for script, place in (("mntp", ROOT), ("simcse", ROOT / "perspective" / "5_pretrain")):
        done = subprocess.run(
            ["bash", str(ROOT / f"perspective/5_pretrain/scripts/{script}.sh"), "--data_path", str(texts_file)]
            + ["--output_path", str(tmp_path), "--per_device_train_batch_size", "16", "--lora_rank", "2"],
            cwd=place,
            capture_output=True,
            text=True,
            env=stage_environment(DATASETS="tiny", EMBEDDER=str(embedder)),
        )
        assert done.returncode == 0, done.stderr
        embedder = (
            tmp_path / f"tiny_{'llm' if embedder == llm_folder else embedder.name.removeprefix('tiny_')}-{script}"
        )
        assert embedder.is_dir()
    assert embedder.name == "tiny_llm-mntp-simcse"
    model = SentenceTransformer(str(embedder), device="cpu")
    one, other = model.encode(["my card was lost", "my card was play"], output_value="token_embeddings")
    assert np.abs(one[0].numpy() - other[0].numpy()).max() > 1e-4


def test_a_decoder_embeds_for_clustering(tmp_path, llm_folder, texts_file):
    options = ("--dataset", "tiny", "--data_path", texts_file, "--embedder", llm_folder, "--output_path", tmp_path)
    run_stage("get_embedding", *options)
    vectors = np.load(tmp_path / "tiny_small_embeds_llm.npy")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert "ACC_mean" in json.loads((tmp_path / "tiny_small_embeds_llm_measures.json").read_text())
    teacher = np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32)
    np.save(tmp_path / "teacher.npy", teacher)
    steps = ("--num_train_epochs", 1, "--per_device_train_batch_size", 16, "--output_dir", tmp_path / "distilled")
    run_stage("finetune", *options[:-2], "--train_file", tmp_path / "teacher.npy", *steps, "--recipe", "distill")
    trained = load_embedder(str(tmp_path / "distilled"), device="cpu")
    assert trained.tokenizer("rain")["input_ids"][-1] == trained.tokenizer.eos_token_id
    moved = trained.encode(["rain 1"]) - load_embedder(str(llm_folder), device="cpu").encode(["rain 1"])
    assert np.abs(moved).max() > 1e-4


@pytest.mark.parametrize("stage", ["mntp", "simcse"])
def test_bad_input_is_one_line(stage, tmp_path, llm_folder, embedder_folder, texts_file, capsys):
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"input": "a card"}, {"input": "  "}])
    for options, message in (
        (("--data_path", empty, "--embedder", llm_folder), "empty.jsonl:2: "),
        (
            ("--data_path", texts_file, "--embedder", llm_folder, "--max_source_length", 1),
            "--max_source_length 1: must",
        ),
        (("--data_path", tmp_path / "none.jsonl", "--embedder", llm_folder), "none.jsonl: no such file"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_stage(stage, "--dataset", "tiny", "--output_path", tmp_path, *options)
        assert ended.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert message in line


def test_weak_pairs_are_headings_with_their_passages(tmp_path, capsys):
    notes = tmp_path / "notes"
    notes.mkdir()
    knot = "A bowline makes a loop that does not slip, and is easily untied after a load."
    reef = "Take in sail early. A reefed boat heels less, steers better and is often faster."
    (notes / "sailing.md").write_text(f"# Bowline\n{knot}\n# Reefing\n{reef}\n")
    # The same advice again, and a row without a heading.
    (notes / "again.md").write_text(f"# Reefing a sail\n{reef} Again.\n")
    options = ("--dataset", "notes", "--documents_path", notes, "--output_path", tmp_path)
    run_stage("weak_pairs", *options)
    pairs = load_pairs(tmp_path / "notes" / "pairs.jsonl")
    assert {(pair.query, pair.source) for pair in pairs} == {("Bowline", "title"), ("Reefing a sail", "title")}
    assert read_facts(tmp_path / "notes" / "pairs.jsonl")["n_near_duplicates"] == 1
    corpus = (tmp_path / "notes" / "corpus.jsonl").read_bytes()
    (notes / "sailing.md").write_text(f"# The bowline\n{knot}\n# Reefing\n{reef}\n")  # the texts are the same
    assert "corpus.jsonl: made with other texts" in refuse(capsys, "weak_pairs", *options)
    (notes / "again.md").write_text("# Anchors\nLet out five times as much chain as the water is deep.\n")
    with pytest.raises(SystemExit):
        run_stage("weak_pairs", *options)
    assert (tmp_path / "notes" / "corpus.jsonl").read_bytes() == corpus
    run_stage("weak_pairs", *options, "--overwrite")
    assert "Anchors" in {pair.query for pair in load_pairs(tmp_path / "notes" / "pairs.jsonl")}
    capsys.readouterr()

    (tmp_path / "one.csv").write_text("text\nOnly one sentence in only one document of the whole set\n")
    with pytest.raises(SystemExit) as error:
        run_stage("weak_pairs", "--dataset", "one", "--documents_path", tmp_path / "one.csv", "--output_path", tmp_path)
    assert error.value.code == 2 and "documents need headings" in capsys.readouterr().err
