"""Every stage, from its command line to its files, with tiny models; what they refuse."""

import csv
import json
import logging
import pickle
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
from fake_server import completion, send
from helpers import ROOT, STAGES, refuse, run_stage, stage_command, stage_environment, write_jsonl

from perspective.artifacts import (
    JudgeRecord,
    Output,
    Triplet,
    hash_file,
    load_judgments,
    load_triplets,
    read_facts,
    read_json,
    read_record,
    read_sidecar,
    save_training_triplets,
    save_triplets,
    sidecar_path,
)

N_TEXTS = 60


@pytest.fixture
def texts_file(tmp_path, sentences):
    texts = sentences(N_TEXTS, n_words=5)
    labels = ["card" if "card" in text or "bank" in text else "other" for text in texts]
    return write_jsonl(
        tmp_path / "tiny.jsonl",
        [{"input": text, "label": label} for text, label in zip(texts, labels, strict=True)],
    )


@pytest.fixture
def pipeline(tmp_path, texts_file, embedder_folder, llm_folder, caplog):
    """Run single stages with all their files in one folder."""
    caplog.set_level("INFO")

    class Pipeline:
        data = ["--dataset", "tiny", "--data_path", texts_file]
        embeds = tmp_path / "tiny_small_embeds_embedder.npy"
        triplets = tmp_path / "tiny_small_embedder_m=40_seed=100.json"
        judgments = tmp_path / "tiny_small_embedder_m=40_seed=100-llm-choice-pred.json"
        training = tmp_path / "tiny_small_embedder_m=40_seed=100-llm-choice-train.json"
        states = tmp_path / "tiny_small-llm.npy"
        embedder = embedder_folder
        checkpoint = tmp_path / "checkpoint"
        text_path = texts_file
        texts = [json.loads(line)["input"] for line in texts_file.read_text().splitlines()]

        def embed(self, *more):
            run_stage("get_embedding", *self.data, "--embedder", embedder_folder, "--output_path", tmp_path, *more)

        def sample(self, *more):
            run_stage("triplet_sampling", *self.data, "--embedder", embedder_folder, "--feat_path", self.embeds,
                      "--max_query", 40, "--max_distance", 8, "--out_dir", tmp_path, *more)  # fmt: skip

        def judge(self, *more):
            run_stage("predict_triplet", *self.data, "--triplet_path", self.triplets, "--llm", llm_folder,
                      "--judge", "choice", "--perspective", "intent", "--output_path", tmp_path, *more)  # fmt: skip

        def read(self, *more):
            run_stage("read_states", *self.data, "--llm", llm_folder, "--perspective", "intent", "--output_path",
                      tmp_path, *more)  # fmt: skip

        def convert(self, *more):
            run_stage("convert_triplet", *self.data, "--pred_path", self.judgments, "--output_path", tmp_path, *more)

        def finetune(self, *more):
            run_stage("finetune", "--dataset", "tiny", "--embedder", embedder_folder, "--train_file", self.training,
                      "--output_dir", self.checkpoint, "--num_train_epochs", 1, *more)  # fmt: skip

    return Pipeline()


def test_all_stages_in_a_row(pipeline, tmp_path, caplog, capsys):
    pipeline.embed()
    vectors = np.load(pipeline.embeds)
    assert vectors.shape == (N_TEXTS, 32) and vectors.dtype == np.float32
    assert read_json(tmp_path / "tiny_small_embeds_embedder.npy.meta.json")["facts"]["dtype"] == "float32"
    measures = read_json(tmp_path / "tiny_small_embeds_embedder_measures.json")
    assert len(measures["ACC"]) == 5 and measures["n_clusters"] == 2

    pipeline.sample()
    triplets = load_triplets(pipeline.triplets, pipeline.texts, "tiny")
    assert len(triplets) == 40
    published_fields = {"input", "output", "options", "task", "query_idx", "choice1_idx", "choice2_idx"}
    assert set(read_json(pipeline.triplets)[0]) == published_fields

    pipeline.judge()
    records = read_json(pipeline.judgments)
    assert {"prepared", "content", "prediction", "probability", "confidence", "swapped_probability"} <= set(records[0])
    judgments = load_judgments(pipeline.judgments, pipeline.texts, "tiny")
    for judgment in judgments:
        agree = (judgment.forward_probability > 0.5) == (judgment.swapped_probability > 0.5)
        assert (len(judgment.prediction) == 1) == agree
    assert not list(tmp_path.glob("*.partial*"))

    run_stage("calculate_accuracy", *pipeline.data, "--pred_path", pipeline.judgments, "--feat_path", pipeline.embeds)
    assert "embedder accuracy" in capsys.readouterr().out
    assert read_json(tmp_path / "tiny_small_embedder_m=40_seed=100-llm-choice-accuracy.json")["n_judgments"] == 40

    pipeline.convert()
    pipeline.finetune()
    pipeline.embed("--checkpoint", pipeline.checkpoint)
    assert (tmp_path / "tiny_small_embeds_checkpoint.npy").exists()

    caplog.clear()
    for stage in (pipeline.embed, pipeline.sample, pipeline.judge, pipeline.convert, pipeline.finetune):
        stage()
    assert sum("already made" in message for message in caplog.messages) == 6  # embedding makes two files


def test_the_answer_judge_teaches(pipeline, tmp_path, embedder_folder, llm_folder, capsys, caplog):
    """States are read once, judge the triplets, become a teacher, and train the embedder."""
    name = "tiny_small_embedder_m=40_seed=100-llm"
    pipeline.embed()
    pipeline.sample()
    answer = ["--judge", "answer", "--states_path", pipeline.states]
    assert "no such file (answer states); run the stage that makes it first" in refuse(
        capsys, "predict_triplet", *pipeline.data, "--triplet_path", pipeline.triplets, "--llm", llm_folder, *answer
    )
    pipeline.read()
    pipeline.judge(*answer)
    judgments = load_judgments(tmp_path / f"{name}-pred.json", pipeline.texts, "tiny")
    answered = [judgment for judgment in judgments if judgment.prediction]
    assert answered and all("neither" not in judgment.content for judgment in answered)
    abstained = [judgment for judgment in judgments if not judgment.prediction and judgment.probability != 0.5]
    assert all("neither" in judgment.content for judgment in abstained)
    assert np.load(pipeline.states).shape == (N_TEXTS, 32)
    assert not list(tmp_path.glob("*.partial*"))

    run_stage("calculate_accuracy", *pipeline.data, "--pred_path", tmp_path / f"{name}-pred.json",
              "--feat_path", pipeline.embeds)  # fmt: skip
    convert = ["--dataset", "tiny", "--embedder", embedder_folder, "--llm", llm_folder, "--feat_path", pipeline.embeds,
               "--states_path", pipeline.states, "--output_path", tmp_path]  # fmt: skip
    run_stage("convert_states", *convert)
    teacher = tmp_path / "tiny_small_embedder-llm-teacher.npy"
    record = read_record(teacher)
    assert record.llm_weight == 0 and not record.unchanged  # too few texts to decide a weight by
    assert record.judge.name == "llm" and record.judge.reads_states
    run_stage("convert_states", *convert, "--weight", 1, "--overwrite")

    def finetune(folder, *more):
        run_stage("finetune", *pipeline.data, "--embedder", embedder_folder, "--train_file", teacher,
                  "--output_dir", folder, *more)  # fmt: skip

    finetune(pipeline.checkpoint, "--num_train_epochs", 5)
    assert read_record(pipeline.checkpoint).llm_weight == 1
    pipeline.embed("--checkpoint", pipeline.checkpoint)
    assert np.abs(np.load(pipeline.embeds) - np.load(tmp_path / "tiny_small_embeds_checkpoint.npy")).max() > 1e-3
    caplog.clear()
    pipeline.read()
    assert "already made" in caplog.text
    # Another perspective is another reading, made where it is asked for; what was judged by the first is not kept.
    other = [*pipeline.data, "--llm", llm_folder, "--output_path", tmp_path, "--perspective", "tone"]
    assert "perspective (intent, now tone)" in refuse(capsys, "read_states", *other)
    before = np.load(pipeline.states)
    run_stage("read_states", *other, "--overwrite")
    assert np.abs(np.load(pipeline.states) - before).max() > 1e-3
    line = refuse(capsys, "predict_triplet", *other, "--triplet_path", pipeline.triplets, *answer)
    assert "perspective (intent, now tone)" in line and "answer_states (another file)" in line
    assert "does not fit" in refuse(capsys, "finetune", *pipeline.data, "--train_file", teacher, "--recipe", "standard",
                                    "--output_dir", tmp_path / "x")  # fmt: skip


def test_another_precision_is_no_finished_result(pipeline, capsys, llm_folder, monkeypatch):
    pipeline.embed()
    pipeline.read()
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    made = ["--output_path", pipeline.states.parent]
    for stage, arguments in (
        ("get_embedding", ["--embedder", pipeline.embedder]),
        ("read_states", ["--llm", llm_folder, "--perspective", "intent"]),
    ):
        line = refuse(capsys, stage, *pipeline.data, *arguments, *made)
        assert "made with other precision (float32, now bfloat16)" in line and "--overwrite" in line


def test_a_result_of_an_earlier_version_says_what_to_do(pipeline, capsys):
    pipeline.embed()
    sidecar = sidecar_path(pipeline.embeds)
    sidecar.write_text(json.dumps(read_json(sidecar) | {"schema_version": 1}))
    made = ["--embedder", pipeline.embedder, "--output_path", pipeline.embeds.parent]
    line = refuse(capsys, "get_embedding", *pipeline.data, *made)
    assert "made by another version of this pipeline" in line and "--overwrite" in line


def test_another_column_is_another_reading(pipeline, texts_file, llm_folder, capsys, tmp_path):
    records = [json.loads(line) for line in texts_file.read_text().splitlines()]
    write_jsonl(texts_file, [{**record, "body": f"other {record['input']}"} for record in records])
    pipeline.read()
    before = np.load(pipeline.states)
    other = [*pipeline.data, "--llm", llm_folder, "--output_path", tmp_path, "--perspective", "intent",
             "--text_column", "body"]  # fmt: skip
    assert "text_column (input, now body)" in refuse(capsys, "read_states", *other)
    run_stage("read_states", *other, "--overwrite")
    assert np.abs(np.load(pipeline.states) - before).max() > 1e-3


def test_another_model_of_the_same_name_is_noticed(
    pipeline, tmp_path, embedder_folder, llm_folder, capsys, monkeypatch
):
    models = {name: tmp_path / "models" / name for name in ("embedder", "llm")}
    for name, folder in (("embedder", embedder_folder), ("llm", llm_folder)):
        shutil.copytree(folder, models[name])
    embed = [*pipeline.data, "--embedder", models["embedder"], "--output_path", tmp_path]
    read = [*pipeline.data, "--llm", models["llm"], "--perspective", "intent", "--output_path", tmp_path]
    run_stage("get_embedding", *embed)
    run_stage("read_states", *read)
    for folder in models.values():
        (folder / "more.json").write_text("{}")
    assert "made with other embedder" in refuse(capsys, "get_embedding", *embed)
    assert "made with other llm" in refuse(capsys, "read_states", *read)


def test_texts_with_nothing_to_sample_go_on_without_triplets(pipeline, tmp_path, caplog):
    """All alike, there is nothing to choose between: no triplet is judged or converted, and no stage fails."""
    pipeline.embed()
    np.save(tmp_path / "same.npy", np.ones((N_TEXTS, 32), dtype=np.float32))
    pipeline.sample("--feat_path", tmp_path / "same.npy")
    assert read_json(pipeline.triplets) == [] and "the run continues without them" in caplog.text
    pipeline.read()
    pipeline.judge("--judge", "answer", "--states_path", pipeline.states)
    judged = tmp_path / "tiny_small_embedder_m=40_seed=100-llm-pred.json"
    run_stage("convert_triplet", *pipeline.data, "--pred_path", judged, "--output_path", tmp_path)
    assert read_json(judged) == read_json(tmp_path / "tiny_small_embedder_m=40_seed=100-llm-train.json") == []


@pytest.mark.parametrize("n_texts", [10, 30])
def test_a_few_texts_are_sampled(tmp_path, sentences, embedder_folder, n_texts):
    """The published distance joins them all; the tree's own height decides."""
    texts = [{"input": f"{i} {text}"} for i, text in enumerate(sentences(n_texts))]
    data = ["--dataset", "few", "--data_path", write_jsonl(tmp_path / "few.jsonl", texts)]
    run_stage("get_embedding", *data, "--embedder", embedder_folder, "--output_path", tmp_path, "--no_measure")
    run_stage(
        "triplet_sampling", *data, "--feat_path", tmp_path / "few_small_embeds_embedder.npy", "--out_dir", tmp_path
    )
    sampled = tmp_path / "few_small_minilm_m=1024_seed=100.json"
    assert len(load_triplets(sampled, [text["input"] for text in texts], "few")) >= 1


def test_a_higher_budget_asks_only_what_is_left(pipeline, tmp_path, server, plain_network):
    """206 tokens per triplet: the first budget covers one, a higher one asks the others, and nothing is paid twice."""
    pipeline.embed()
    pipeline.sample("--max_query", 6)
    triplets = tmp_path / "tiny_small_embedder_m=6_seed=100.json"
    server.respond = lambda handler, request, attempt: send(handler, 200, completion("Choice 1"))
    judged = tmp_path / "tiny_small_embedder_m=6_seed=100-m-server-pred.json"

    def ask(budget):
        server.requests.clear()
        run_stage("predict_triplet", *pipeline.data, "--triplet_path", triplets, "--llm", "m", "--base_url", server.url,
                  "--concurrency", 1, "--price_in", 1, "--price_out", 1, "--budget", budget,
                  "--output_path", tmp_path)  # fmt: skip
        return len(server.requests), len(read_json(judged)), read_record(judged).judge.figures["cost"]

    n_requests, n_judged, cost = ask(300e-6)
    assert n_requests == 2 * n_judged and n_judged < 6 and cost <= 300e-6
    assert ask(300e-6) == (0, n_judged, cost)
    n_more, n_in_all, cost_in_all = ask(1)
    assert n_in_all == 6 and n_more == 2 * (6 - n_judged)
    assert cost_in_all == pytest.approx(cost * 6 / n_judged)
    # A second round whose triplets follow the first one's new answers pays for its new questions only.
    earlier = read_sidecar(triplets)
    sampled = Output(triplets, earlier.schema_name, earlier.settings)
    sampled.replace(earlier)
    first, second, *rest = load_triplets(triplets, pipeline.texts)
    others = [Triplet(one.choice1_idx, one.query_idx, one.choice2_idx) for one in (first, second)]
    save_triplets(sampled, [*rest, *others], pipeline.texts, "tiny")
    assert ask(1) == (2 * 2, 6, pytest.approx(cost * 8 / n_judged))


def test_questions_that_failed_are_asked_by_the_next_run(pipeline, tmp_path, server, plain_network, caplog):
    """A file is finished when nothing is open; without the server, what is there stays."""
    pipeline.embed()
    pipeline.sample("--max_query", 6)
    triplets = tmp_path / "tiny_small_embedder_m=6_seed=100.json"
    judged = tmp_path / "tiny_small_embedder_m=6_seed=100-m-server-pred.json"
    refused = []

    def respond(handler, request, attempt):
        prompt = request["messages"][0]["content"]
        if not refused:
            refused.append(prompt)
        if prompt in refused:
            return send(handler, 400, {"error": {"message": "content filter"}})
        return send(handler, 200, completion("Choice 1"))

    def ask(base_url=server.url):
        server.requests.clear()
        caplog.clear()
        run_stage("predict_triplet", *pipeline.data, "--triplet_path", triplets, "--llm", "m", "--base_url", base_url,
                  "--concurrency", 1, "--output_path", tmp_path)  # fmt: skip
        contents = [one.content for one in load_judgments(judged, pipeline.texts)]
        return len(server.requests), sum(content.startswith("no answer") for content in contents)

    caplog.set_level(logging.INFO)
    server.respond = respond
    n_requests, n_failed = ask()
    assert n_requests == 1 + 2 * (6 - 1) and n_failed == 1
    assert ask() == (1, 1) and "1 questions are open" in caplog.text and "already made" not in caplog.text
    assert ask("http://127.0.0.1:9/v1") == (0, 1) and "stays as it is" in caplog.text
    convert = ("convert_triplet", *pipeline.data, "--pred_path", judged, "--output_path", tmp_path)
    run_stage(*convert)
    server.respond = lambda handler, request, attempt: send(handler, 200, completion("Choice 1"))
    assert ask() == (2, 0)
    assert ask() == (0, 0) and "already made" in caplog.text
    # What is made of the judgments follows, without --overwrite, which would ask and pay again.
    run_stage(*convert)
    assert "made again, there are more answers now" in caplog.text
    training = tmp_path / f"{judged.stem.removesuffix('-pred')}-train.json"
    assert read_facts(training)["replaced"] and read_sidecar(training).inputs["judgments"] == hash_file(judged)
    assert not list(tmp_path.glob("*.partial*")) and not list(tmp_path.glob("*.lock"))


def test_every_result_tells_what_it_was_made_from(pipeline, tmp_path):
    pipeline.embed()
    pipeline.sample()
    sidecar = read_json(tmp_path / f"{pipeline.triplets.name}.meta.json")
    assert set(sidecar["inputs"]) == {"texts", "embeddings"}
    assert sidecar["settings"]["max_query"] == 40
    assert {"sha256", "facts", "versions", "git_commit", "wall_seconds"} <= set(sidecar)


def test_other_settings_are_named_and_overwrite_makes_anew(pipeline, capsys):
    pipeline.embed()
    pipeline.sample()
    before = pipeline.triplets.read_bytes()
    with pytest.raises(SystemExit):
        pipeline.sample("--large_ent_prop", 0.5)
    assert "made with other large_ent_prop (0.2, now 0.5)" in capsys.readouterr().err
    assert pipeline.triplets.read_bytes() == before
    pipeline.sample("--large_ent_prop", 0.5, "--overwrite")
    assert pipeline.triplets.read_bytes() != before


def test_labels_change_no_decision(pipeline, tmp_path, texts_file):
    """The same texts with other labels and with none: triplets, judgments and training are equal."""
    results = []
    records = [json.loads(line) for line in texts_file.read_text().splitlines()]
    versions = (
        records,
        [{**record, "label": f"x{i % 3}"} for i, record in enumerate(records)],
        [{"input": record["input"]} for record in records],
    )
    for version in versions:
        write_jsonl(texts_file, version)
        pipeline.embed("--overwrite")
        pipeline.sample("--overwrite")
        pipeline.judge("--overwrite")
        pipeline.convert("--overwrite")
        rows = [(one.key) for one in load_triplets(pipeline.triplets, pipeline.texts)]
        answers = [(one.prediction, one.probability) for one in load_judgments(pipeline.judgments, pipeline.texts)]
        results.append((rows, answers, pipeline.training.read_text()))
    assert results[0] == results[1] == results[2]
    assert all(record["output"] is None for record in read_json(pipeline.triplets))


def test_labels_change_no_decision_of_the_default_path(pipeline, tmp_path, texts_file, sentences):
    """From the vectors to the distilled embedder: true, shuffled and no labels give the same bytes."""
    texts = [f"{text} {i % 7}" for i, text in enumerate(sentences(520, n_words=5))]  # enough for a teacher in any case
    labels = ["card" if "card" in text or "bank" in text else "other" for text in texts]
    shuffled = random.Random(1).sample(labels, len(labels))
    name = "tiny_small_embedder"
    judged = f"{name}_m=40_seed=100-llm"
    results = []
    for labels_now in (labels, shuffled, None):
        records = [{"input": text} for text in texts]
        if labels_now:
            records = [{**record, "label": label} for record, label in zip(records, labels_now, strict=True)]
        write_jsonl(texts_file, records)
        pipeline.embed("--overwrite")
        pipeline.sample("--overwrite")
        pipeline.read("--overwrite")
        pipeline.judge("--judge", "answer", "--states_path", pipeline.states, "--overwrite")
        run_stage("convert_triplet", *pipeline.data, "--pred_path", tmp_path / f"{judged}-pred.json", "--output_path",
                  tmp_path, "--overwrite")  # fmt: skip
        run_stage("convert_states", "--dataset", "tiny", "--embedder", pipeline.embedder, "--llm", "llm", "--feat_path",
                  pipeline.embeds, "--states_path", pipeline.states, "--output_path", tmp_path,
                  "--overwrite")  # fmt: skip
        teacher = tmp_path / f"{name}-llm-teacher.npy"
        run_stage("finetune", *pipeline.data, "--embedder", pipeline.embedder, "--train_file", teacher, "--output_dir",
                  pipeline.checkpoint, "--num_train_epochs", 1, "--overwrite")  # fmt: skip
        pipeline.embed("--checkpoint", pipeline.checkpoint, "--overwrite")
        files = [pipeline.embeds, pipeline.states, teacher, tmp_path / f"{judged}-train.json",
                 pipeline.checkpoint / "model.safetensors", tmp_path / "tiny_small_embeds_checkpoint.npy"]  # fmt: skip
        records = [read_json(path) for path in (pipeline.triplets, tmp_path / f"{judged}-pred.json")]
        gold = [record.pop("output") for record in records[0]], [record.pop("output") for record in records[1]]
        assert any(gold[0]) == any(gold[1]) == bool(labels_now)  # the labels were there to be seen
        facts = [read_record(path).model_dump() for path in (teacher, pipeline.checkpoint)]
        results.append(({path.name: hash_file(path) for path in files}, records, facts))
    assert results[0] == results[1] == results[2]
    assert np.abs(np.load(pipeline.embeds) - np.load(files[-1])).max() > 1e-3  # something was learnt


def test_without_labels_the_measures_need_none(pipeline, tmp_path, texts_file, caplog):
    write_jsonl(texts_file, [{"input": json.loads(line)["input"]} for line in texts_file.read_text().splitlines()])
    pipeline.embed()
    measures = read_json(tmp_path / "tiny_small_embeds_embedder_measures.json")
    assert measures["silhouette"] == max(measures["silhouette_by_n_clusters"].values()) > -1
    assert "ACC" not in measures and "no labels" in caplog.text


def test_recorded_noise_changes_nothing(tmp_path, sentences, embedder_folder, caplog):
    """Answers by a coin, without probabilities in both orders: nothing but the embedder's own margins can tell."""
    texts = [f"{i} {text}" for i, text in enumerate(sentences(80))]
    data = ["--dataset", "tiny", "--data_path", write_jsonl(tmp_path / "t.jsonl", [{"input": text} for text in texts])]
    run_stage("get_embedding", *data, "--embedder", embedder_folder, "--output_path", tmp_path, "--no_measure")
    run_stage("random_triplet_sampling", *data, "--max_query", 1000, "--out_dir", tmp_path)
    rng = np.random.default_rng(0)
    records = read_json(tmp_path / "tiny_small_random_m=1000_seed=100.json")
    recorded = tmp_path / "coin-pred.json"
    recorded.write_text(json.dumps([{**one, "prediction": [str(rng.integers(1, 3))]} for one in records]))
    for more, n_triplets in ((["--feat_path", tmp_path / "tiny_small_embeds_embedder.npy"], 0), ([], 1000)):
        run_stage("convert_triplet", *data, "--pred_path", recorded, "--output_path", tmp_path, "--overwrite", *more)
        assert len(read_json(tmp_path / "coin-train.json")) == n_triplets
    assert "no more than noise would; use --orders 2 or judge more triplets" in caplog.text
    # A perspective that the embedder knows nothing of looks the same: its user says so.
    vectors = ["--feat_path", tmp_path / "tiny_small_embeds_embedder.npy", "--output_path", tmp_path, "--overwrite"]
    run_stage("convert_triplet", *data, "--pred_path", recorded, *vectors, "--no_check")
    assert len(read_json(tmp_path / "coin-train.json")) == 1000
    # Asked in both orders, a coin agrees with itself in half of the triplets; who agrees in more does not guess.
    answers = read_json(recorded)
    for share, n_triplets in ((0.5, 0), (0.6, 600)):
        asked_twice = Output(recorded, "judgments", {})
        asked_twice.record.judge = JudgeRecord(name="coin", kind="choice", orders=2)
        asked_twice.write_json(
            [{**one, "prediction": []} if row >= 1000 * share else one for row, one in enumerate(answers)]
        )
        run_stage("convert_triplet", *data, "--pred_path", recorded, *vectors)
        assert len(read_json(tmp_path / "coin-train.json")) == n_triplets


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_own_tables(tmp_path, texts_file, embedder_folder, suffix):
    import pandas as pd

    records = [json.loads(line) for line in texts_file.read_text().splitlines()]
    table = pd.DataFrame({"message": [r["input"] for r in records], "kind": [r["label"] for r in records]})
    path = tmp_path / f"own.{suffix}"
    table.to_csv(path, index=False, quoting=csv.QUOTE_ALL) if suffix == "csv" else table.to_parquet(path)
    run_stage("get_embedding", "--dataset", "own", "--data_path", path, "--text_column", "message",
              "--label_column", "kind", "--embedder", embedder_folder, "--output_path", tmp_path)  # fmt: skip
    assert read_json(tmp_path / "own_small_embeds_embedder_measures.json")["n_clusters"] == 2


def test_recorded_answers_in_all_published_spellings(pipeline, tmp_path, capsys):
    pipeline.embed()
    pipeline.sample()
    records = read_json(pipeline.triplets)
    spellings = (["1"], [" 2"], ["1", "2"], [])
    recorded = tmp_path / "theirs-pred.json"
    recorded.write_text(
        json.dumps([{**r, "content": "x", "prediction": spellings[i % 4]} for i, r in enumerate(records)])
    )
    run_stage("predict_triplet", *pipeline.data, "--triplet_path", pipeline.triplets, "--recorded_path", recorded,
              "--output_path", tmp_path)  # fmt: skip
    path = tmp_path / "tiny_small_embedder_m=40_seed=100-recorded-pred.json"
    got = [one.prediction for one in load_judgments(path, pipeline.texts)]
    assert got == [(("1",), ("2",), (), ())[i % 4] for i in range(40)]
    run_stage("convert_triplet", *pipeline.data, "--pred_path", path, "--output_path", tmp_path)
    training = read_json(tmp_path / "tiny_small_embedder_m=40_seed=100-recorded-train.json")
    texts = [json.loads(line)["input"] for line in pipeline.text_path.read_text().splitlines()]
    expected = [
        (texts[r["query_idx"]], texts[r[f"choice{1 + i % 4}_idx"]], texts[r[f"choice{2 - i % 4}_idx"]])
        for i, r in enumerate(records)
        if i % 4 < 2
    ]
    assert [(r["query"][1], r["pos"][1], r["neg"][1]) for r in training] == expected


def test_published_conversion_is_repeated(tmp_path):
    """A published prediction file gives the records that the published conversion writes."""
    published = ROOT.parent / "shared" / "reference" / "starling" / "banking77-starling-pred.json"
    texts = ROOT.parent / "shared" / "datasets" / "banking77" / "small.jsonl"
    if not published.exists():
        pytest.skip("the published predictions are not on this machine")
    data = [json.loads(line)["input"] for line in texts.read_text().splitlines()]
    prompt = "Represent the bank purpose for retrieval: "
    run_stage("convert_triplet", "--dataset", "banking77", "--data_path", texts, "--pred_path", published,
              "--instruction", "--output_path", tmp_path)  # fmt: skip
    ours = read_json(tmp_path / "banking77-starling-train.json")
    theirs = []
    for record in read_json(published):
        first, second = data[record["choice1_idx"]], data[record["choice2_idx"]]
        pos, neg = (first, second) if record["prediction"] == ["1"] else (second, first)
        theirs.append((prompt, data[record["query_idx"]], pos, neg, record["query_idx"]))
    assert [(r["query"][0], r["query"][1], r["pos"][1], r["neg"][1], r["query_idx"]) for r in ours] == theirs
    assert all(r["task_name"] == "banking77" and r["weight"] == 1.0 for r in ours)


def test_self_training_follows_the_embedder(pipeline, tmp_path):
    pipeline.embed()
    pipeline.sample()
    pipeline.judge()
    run_stage("convert_triplet_self", *pipeline.data, "--pred_path", pipeline.judgments, "--feat_path",
              pipeline.embeds, "--output_path", tmp_path)  # fmt: skip
    vectors = np.load(pipeline.embeds)
    texts = [json.loads(line)["input"] for line in pipeline.text_path.read_text().splitlines()]
    records = read_json(tmp_path / "tiny_small_embedder_m=40_seed=100-llm-choice-self-train.json")
    assert len(records) == 40
    for record in records:
        near = {}
        for name in ("choice1_idx", "choice2_idx"):
            near[texts[record[name]]] = ((vectors[record["query_idx"]] - vectors[record[name]]) ** 2).sum()
        assert near[record["pos"][1]] <= near[record["neg"][1]]


def test_an_unreliable_judge_changes_nothing(pipeline, tmp_path, caplog):
    """A judge that always names the first position is recognised, and the embedder stays."""
    pipeline.embed()
    pipeline.sample()
    biased = [
        {**r, "prediction": [], "probability": 0.5, "swapped_probability": 0.1} for r in read_json(pipeline.triplets)
    ]
    pipeline.judgments.write_text(json.dumps(biased))
    pipeline.convert()
    assert "judge unreliable" in caplog.text and "100% of the answers name the first position" in caplog.text
    assert read_json(pipeline.training) == []
    pipeline.finetune()
    pipeline.embed("--checkpoint", pipeline.checkpoint)
    np.testing.assert_array_equal(np.load(pipeline.embeds), np.load(tmp_path / "tiny_small_embeds_checkpoint.npy"))


# refusals


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ('{"input": "a"}\n{"input": \n', "tiny.jsonl:2: bad JSON"),
        ('{"input": "a"}\n{"text": "b"}\n', 'tiny.jsonl:2: no "input" field (found: text)'),
        ('{"input": "a"}\n{"input": 7}\n', 'tiny.jsonl:2: "input" is int, not a text'),
        ('{"input": "a"}\n{"input": "  "}\n', 'tiny.jsonl:2: "input" is empty'),
        ('{"input": "a"}\n', "1 text; clustering needs at least two"),
        ('["a"]\n["b"]\n', "tiny.jsonl:1: expected an object, found list"),
    ],
)
def test_bad_texts(pipeline, texts_file, capsys, content, message):
    texts_file.write_text(content)
    assert message in refuse(capsys, "triplet_sampling", *pipeline.data)


def test_bad_vectors(pipeline, tmp_path, capsys):
    base = [*pipeline.data, "--out_dir", tmp_path, "--feat_path"]
    vectors = np.ones((N_TEXTS, 4), dtype=np.float32)
    cases = {
        "short.npy": (vectors[:5], "5 rows for 60 texts"),
        "flat.npy": (vectors[:, 0], "must be 2-D and not empty, got shape (60,)"),
        "nan.npy": (np.where(np.arange(4) == 1, np.nan, vectors), "row 0 holds NaN"),
        "ints.npy": (vectors.astype(int), "expected an array of floats"),
    }
    for name, (array, message) in cases.items():
        np.save(tmp_path / name, array)
        assert message in refuse(capsys, "triplet_sampling", *base, tmp_path / name)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps({"a": 1}))
    assert "pickle" in refuse(capsys, "triplet_sampling", *base, tmp_path / "pickle.npy")
    assert "no such file" in refuse(capsys, "triplet_sampling", *base, tmp_path / "none.npy")
    assert not list(tmp_path.glob("*_m=*"))


def test_bad_triplets(pipeline, tmp_path, capsys):
    triplet = {"task": "tiny", "query_idx": 0, "choice1_idx": 1, "choice2_idx": 2}
    cases = (
        ([{**triplet, "query_idx": 60}], "query_idx 60, but there are 60 texts"),
        ([{**triplet, "task": "banking77"}], "made for data set 'banking77', not 'tiny'"),
        ([{**triplet, "choice1_idx": "1"}], 'no row number in "choice1_idx"'),
        ({"a": 1}, "expected a list of records, found dict"),
    )
    path = tmp_path / "t.json"
    for content, message in cases:
        path.write_text(json.dumps(content))
        line = refuse(capsys, "predict_triplet", *pipeline.data, "--triplet_path", path, "--judge", "choice",
                      "--output_path", tmp_path)  # fmt: skip
        assert message in line


def test_unknown_names_get_the_nearest(pipeline, capsys, tmp_path):
    assert "did you mean banking77?" in refuse(capsys, "triplet_sampling", "--dataset", "bankin77")
    assert "did you mean --max_query?" in refuse(capsys, "triplet_sampling", "--dataset", "demo", "--max_qury", 3)
    line = refuse(capsys, "get_embedding", *pipeline.data, "--embedder", "minilmm", "--output_path", tmp_path)
    assert "did you mean minilm?" in line
    assert not list(tmp_path.glob("*.npy"))


def test_unreachable_hub_says_how_to_work_offline(pipeline, capsys, tmp_path):
    line = refuse(capsys, "get_embedding", *pipeline.data, "--embedder", "gte", "--output_path", tmp_path)
    assert "the hub cannot be reached" in line and "hf download" in line


def test_a_failed_stage_has_no_traceback(tmp_path):
    command = stage_command("triplet_sampling", "--dataset", "demo", "--feat_path", tmp_path / "none.npy")
    done = subprocess.run(command, capture_output=True, text=True, env=stage_environment(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "name", ["get_embedding", "triplet_sampling", "predict_triplet", "convert_triplet", "finetune"]
)
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_stage(name, "--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "Reads:" in shown and "Writes:" in shown and STAGES[name] in shown


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_disk_full_leaves_nothing(pipeline, tmp_path, capsys, monkeypatch):
    """A write that the disk refuses: one line, and no half-written file."""
    import errno

    pipeline.embed()

    def refuse_write(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse_write)
    with pytest.raises(SystemExit) as stopped:
        pipeline.sample()
    assert stopped.value.code == 2
    assert "m=40_seed=100.json.meta.json: cannot be written, the disk is full" in capsys.readouterr().err
    assert not list(tmp_path.glob("*m=40*")) and not list(tmp_path.glob(".*"))


def test_a_judged_teacher_needs_the_embedder_that_learned_the_triplets(pipeline, tmp_path, capsys):
    pipeline.embed()
    inputs = ("--embedder", pipeline.embedder, "--feat_path", pipeline.embeds, "--states_llm", "none")
    with pytest.raises(SystemExit) as stopped:
        run_stage("convert_states", "--dataset", "tiny", *inputs, "--judged", "--output_path", tmp_path)
    assert stopped.value.code == 2
    assert "no such file; run finetune_gte.sh and get_finetuned_embedding_gte.sh" in capsys.readouterr().err


def test_an_unreliable_judge_changes_no_teacher(pipeline, tmp_path, caplog):
    """Nothing was learned from its triplets, and nothing is said to have been."""
    pipeline.embed()
    pipeline.read()
    nothing = tmp_path / "none-train.json"
    untrained = Output(nothing, "training triplets", {})
    untrained.record.judge = JudgeRecord(name="guesser")
    save_training_triplets(untrained, [], "tiny")
    run_stage("finetune", *pipeline.data, "--embedder", pipeline.embedder, "--train_file", nothing, "--output_dir",
              pipeline.checkpoint, "--recipe", "standard")  # fmt: skip
    pipeline.embed("--checkpoint", pipeline.checkpoint)
    inputs = ("--embedder", pipeline.embedder, "--llm", "llm", "--feat_path", pipeline.embeds, "--output_path")
    judged = ("--judged_path", tmp_path / "tiny_small_embeds_checkpoint.npy")

    def teach(folder, *options):
        run_stage("convert_states", "--dataset", "tiny", *inputs, tmp_path / folder, *options)
        (teacher,) = (tmp_path / folder).glob("*-teacher.npy")
        return hash_file(teacher), read_record(teacher).judge.name

    states = ("--states_path", pipeline.states)
    assert teach("both", *states, *judged) == teach("states", *states) and "llm" in teach("both", *states, *judged)[1]
    assert "learned judged triplets" not in caplog.text and "teaches itself" not in caplog.text
    alone = teach("none", "--states_llm", "none", *judged)
    assert alone == teach("control", "--by_embedder") and alone[1] == "the embedder itself"
    assert "the judge was unreliable and there are no answer states: the embedder teaches itself" in caplog.text


def test_an_embedder_trained_on_labels_stays_marked(pipeline, tmp_path):
    embedder = pipeline.embedder
    for name, uses_labels in (("oracle-0", True), ("llm", False)):
        data = Output(tmp_path / f"{name}-train.json", "training triplets", {})
        data.record.judge = JudgeRecord(name=name, uses_labels=uses_labels)
        save_training_triplets(data, [], "tiny")
        run_stage("finetune", "--dataset", "tiny", "--embedder", embedder, "--train_file", data.path, "--output_dir",
                  tmp_path / name, "--recipe", "standard")  # fmt: skip
        embedder = tmp_path / name
    assert "**Trained on labels**" in (embedder / "README.md").read_text()
    assert read_record(embedder).judge == JudgeRecord(name="llm", uses_labels=True)
