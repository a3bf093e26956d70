"""A reranker learns which document is a query's own, resumes, and refuses what it cannot learn from."""

import importlib
import logging

import numpy as np
import pytest
import torch
from helpers import fail_at_step
from reranker_files import make_pairs

from perspective.artifacts import Output
from perspective.data.pairs import Pair
from perspective.errors import DataError, ModelError
from perspective.reranking.loading import load_reranker, score_texts
from perspective.reranking.training import RerankerTrainSettings, load_body, make_groups, train_reranker


def settings(**changes):
    given = {"num_negatives": 3, "num_train_epochs": 8, "per_device_train_batch_size": 8, "learning_rate": 2e-3}
    return RerankerTrainSettings(**given | changes)


def train(folder, body, pairs, **changes):
    chosen = settings(**changes)
    output = Output(folder, "reranker", {"dataset": "tiny", **chosen.made_from()})
    train_reranker(load_body(str(body), chosen.seed), make_groups(pairs, chosen), chosen, output)
    return output


def rank_documents(folder, pairs):
    """The share of pairs whose document has the highest score."""
    model = load_reranker(str(folder), device="cpu")
    texts = [(pair.query, text) for pair in pairs for text in (pair.document, *pair.hard_negatives)]
    return float((score_texts(model, texts).reshape(len(pairs), -1).argmax(axis=1) == 0).mean())


def test_it_learns_from_an_embedder_s_body_and_is_a_cross_encoder(tmp_path, embedder_folder, one_thread):
    from sentence_transformers import CrossEncoder

    pairs = make_pairs()
    output = train(tmp_path / "reranker", embedder_folder, pairs)
    assert output.facts["final_loss"] < 0.7 * output.facts["first_loss"]
    assert output.facts["n_texts"] == 4 * len(pairs)
    assert rank_documents(output.path, make_pairs(40)[24:]) > 0.6  # of four; those rows were not trained on
    scores = CrossEncoder(str(output.path)).predict([("card 1", "card play"), ("card 1", "rain")])
    assert ((scores > 0) & (scores < 1)).all()
    card = (output.path / "README.md").read_text()
    assert "from sentence_transformers import CrossEncoder" in card and "text-ranking" in card


def test_the_loss_is_listwise_cross_entropy(tmp_path, embedder_folder):
    """The first loss, computed by hand from the body's own logits."""
    pairs = make_pairs(4)
    scored = [Pair(p.query, p.document, p.hard_negatives, scores=(3.0, 1.0, 0.5, -2.0)) for p in pairs]
    for distill, target in ((False, [1.0, 0, 0, 0]), (True, torch.tensor([3.0, 1.0, 0.5, -2.0]).softmax(0).tolist())):
        chosen = settings(distill=distill, num_train_epochs=1, per_device_train_batch_size=4, warmup_ratio=0.5)
        model = load_body(str(embedder_folder), 100).eval()
        from sentence_transformers.cross_encoder.losses import ListNetLoss

        groups = make_groups(scored, chosen)
        labels = [torch.tensor(row) for row in groups["label"]]
        found = ListNetLoss(model)([list(groups["query"]), list(groups["documents"])], labels)
        logits = [
            model.predict([(row["query"], text) for text in row["documents"]], activation_fn=torch.nn.Identity())
            for row in groups
        ]
        wanted = -(torch.tensor(np.stack(logits)).log_softmax(1) * torch.tensor(target)).sum(1).mean()
        assert found.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_a_killed_training_resumes_to_the_same_weights(tmp_path, embedder_folder, monkeypatch, one_thread):
    from safetensors.torch import load_file

    pairs = make_pairs(16)
    whole = train(tmp_path / "whole", embedder_folder, pairs, num_train_epochs=3, save_steps=1).path
    with monkeypatch.context() as patched:
        fail_at_step(patched, 4)
        with pytest.raises(Exception, match="killed"):
            train(tmp_path / "killed", embedder_folder, pairs, num_train_epochs=3, save_steps=1)
    assert list((tmp_path / "killed.partial").glob("checkpoint-*"))
    resumed = train(tmp_path / "killed", embedder_folder, pairs, num_train_epochs=3, save_steps=1).path
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=0)


def test_negatives_are_drawn_and_few_are_said(caplog):
    pairs = [*make_pairs(8), Pair("card", "card card"), Pair("pin", "pin pin", ("rain",))]
    with caplog.at_level(logging.WARNING):
        groups = make_groups(pairs, settings(num_negatives=2))
    assert "of 10 pairs, 1 without hard negatives are left out, and 1 have fewer than --num_negatives 2" in caplog.text
    assert [len(row) for row in groups["documents"]] == [3] * 8 + [2]
    assert [row[0] for row in groups["documents"]] == [pair.document for pair in pairs if pair.hard_negatives]
    assert (
        len(
            {
                tuple(row["documents"][1:]) == pair.hard_negatives[:2]
                for row, pair in zip(groups, pairs[:8], strict=False)
            }
        )
        == 2
    )
    assert groups["label"][0] == [0.0, -np.inf, -np.inf]
    with pytest.raises(DataError, match="no pair has a hard negative"):
        make_groups([Pair("card", "card card")], settings())
    with pytest.raises(DataError, match='--distill: the pair of "card 0" has no "scores"; run score_pairs first'):
        make_groups(pairs, settings(distill=True))


def test_a_decoder_is_not_trained(llm_folder):
    with pytest.raises(ModelError, match="a causal LM, which reranks without training: give it to evaluate.sh"):
        load_body(str(llm_folder), 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_negatives", "0"], "--num_negatives 0: must be at least 1"),
        (["--learning_rate", "0"], "--learning_rate 0.0: must be above 0"),
        (["--warmup_ratio", "1"], "--warmup_ratio 1.0: must be at least 0 and below 1"),
        ([], "mined_results/nowhere_minilm.jsonl: no such file (training pairs); run the stage that makes it first"),
    ],
)
def test_bad_input_is_one_line(capsys, options, message):
    main = importlib.import_module("perspective.6_retrieval.train_reranker").main
    with pytest.raises(SystemExit) as stop:
        main(["--dataset", "nowhere", *options])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("error: ") and message in line
