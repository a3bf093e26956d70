import numpy as np
import pandas as pd
import pytest
from helpers import make_vectors, run_stage, write_jsonl

from perspective.artifacts import Judgment, Output, Triplet, load_triplets, read_facts, read_json, save_judgments
from perspective.data.corpus import CorpusSettings
from perspective.errors import DataError
from perspective.evaluation.clustering_scores import score_clustering
from perspective.evaluation.gold import add_gold_answers, keep_labelled
from perspective.evaluation.labels import find_labelled, load_labels


@pytest.fixture
def load(tmp_path):
    """Load the labels of texts that have these; None writes no label."""

    def load(*labels, name="texts.jsonl"):
        records = [
            {"input": f"text {i}"} | ({} if label is None else {"label": label}) for i, label in enumerate(labels)
        ]
        path = tmp_path / name
        if path.suffix == ".csv":
            pd.DataFrame(records).to_csv(path, index=False)
        else:
            write_jsonl(path, records)
        return load_labels(CorpusSettings("mine", data_path=str(path)))

    return load


def test_a_part_of_the_texts_may_have_labels(load):
    assert load("a", None, "a", " ", "b", "\u200b") == ["a", None, "a", None, "b", None]
    assert load("a", None, "a", "b", name="texts.csv") == ["a", None, "a", "b"]
    assert list(find_labelled(["a", None, "b"])) == [0, 2]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("x", "x", None), 'the 2 values of "label" are all the same'),
        (("x", None, None), 'the 1 values of "label" are all the same'),
        ((17, 18, 19), 'the 3 values of "label" are all different, as ids are'),
    ],
)
def test_labels_that_measure_nothing_are_ignored_with_a_warning(load, caplog, labels, found):
    assert load(*labels) is None
    assert f"texts.jsonl: {found}; measured as texts without labels" in caplog.text


def test_no_labels_are_no_warning(load, caplog):
    assert load(None, None) is None and not caplog.records


def test_a_column_that_is_named_must_hold_labels(tmp_path):
    path = write_jsonl(tmp_path / "texts.jsonl", [{"input": "a", "intent": "x"}])
    with pytest.raises(DataError, match='no text has a value in "intend"; see --label_column'):
        load_labels(CorpusSettings("mine", data_path=str(path)), "intend")


def test_texts_without_a_label_are_left_out_of_the_scores():
    vectors = make_vectors(60, n_groups=3)
    labels = [f"{i % 3}" if i % 2 else None for i in range(60)]
    of_part = score_clustering(vectors, labels)
    of_labelled = score_clustering(vectors[1::2], labels[1::2])
    assert of_part.pop("n_labelled") == 30
    assert of_part == of_labelled and "n_labelled" not in of_labelled


def test_a_triplet_with_an_unlabelled_text_has_no_gold_answer():
    triplets = [Triplet(0, 1, 2), Triplet(0, 1, 3), Triplet(3, 4, 0)]
    labels = ["a", "a", "b", None, None]
    assert [triplet.gold for triplet in add_gold_answers(triplets, labels)] == [" 1", None, None]
    assert keep_labelled(triplets, labels) == triplets[:1]


@pytest.mark.parametrize("kind", ["half", "ids"])
def test_the_stages_take_half_labelled_texts_and_ids(tmp_path, sentences, embedder_folder, caplog, kind):
    caplog.set_level("INFO")
    texts = [f"{text} {i}" for i, text in enumerate(sentences(60))]
    labels = [i if kind == "ids" else ("ab"[i % 4 // 2] if i % 2 else None) for i in range(60)]
    path = write_jsonl(
        tmp_path / "mine.jsonl", [{"input": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    )
    data = ("--dataset", "mine", "--data_path", path)
    run_stage("get_embedding", *data, "--embedder", embedder_folder, "--output_path", tmp_path)
    embeds = tmp_path / "mine_small_embeds_embedder.npy"
    measures = read_json(tmp_path / "mine_small_embeds_embedder_measures.json")
    if kind == "ids":
        assert "ACC" not in measures and "silhouette" in measures
        assert "as ids are" in caplog.text
        return
    assert (measures["n_clusters"], measures["n_labelled"]) == (2, 30)
    assert "measured on the 30 of 60 texts that have a label" in caplog.text

    run_stage("triplet_sampling", *data, "--embedder", embedder_folder, "--feat_path", embeds, "--max_query", 40,
              "--max_distance", 8, "--out_dir", tmp_path)  # fmt: skip
    sampled = tmp_path / "mine_small_embedder_m=40_seed=100.json"
    triplets = load_triplets(sampled, texts)
    labelled = keep_labelled(triplets, labels)
    assert 0 < len(labelled) < len(triplets)
    assert all(triplet.gold is None for triplet in triplets if triplet not in labelled)
    answerable = np.mean([triplet.gold in (" 1", " 2") for triplet in labelled])
    assert read_facts(sampled)["answerable_fraction"] == pytest.approx(answerable)

    judged = tmp_path / "judged-pred.json"
    judgments = [Judgment(triplet, ("1",), probability=0.75) for triplet in triplets]
    save_judgments(Output(judged, "judgments", {}), judgments, texts, "mine")
    run_stage("calculate_accuracy", *data, "--pred_path", judged, "--feat_path", embeds)
    assert f"analysed on the {len(labelled)} of {len(triplets)} triplets" in caplog.text
    analysis = read_json(tmp_path / "judged-accuracy.json")
    assert analysis["n_judgments"] == len(labelled)
    decided = [triplet.gold for triplet in labelled if triplet.gold in (" 1", " 2")]
    assert analysis["llm_accuracy"] == pytest.approx(100 * np.mean([gold == " 1" for gold in decided]))
