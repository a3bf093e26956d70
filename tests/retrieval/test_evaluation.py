"""The evaluation stage: results, prompts, resuming, comparing, mteb."""

import importlib
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import write_jsonl

from perspective.artifacts import read_json
from perspective.data.collection import Collection, load_collection
from perspective.data.mteb_tasks import load_task
from perspective.errors import DataError
from perspective.models.prompts import find_prompts
from perspective.retrieval import embedding, evaluation
from perspective.retrieval.evaluation import evaluate_retriever
from perspective.retrieval.layout import mteb_path
from perspective.retrieval.results import compare_results, format_scores, format_task_result, load_result
from perspective.retrieval.settings import EvaluationSettings

evaluate = importlib.import_module("perspective.6_retrieval.evaluate")


@pytest.fixture
def vectors_folder(tmp_path, monkeypatch):
    """Embeddings go into the test's own folder."""
    folder = tmp_path / "vectors"
    monkeypatch.setattr(
        "perspective.retrieval.embedding.vectors_path", lambda name, model, part: folder / f"{name}_{part}.npy"
    )
    return folder


@pytest.fixture
def folder(tmp_path, sentences):
    """A collection: a query shares words with the document of its number."""
    folder = tmp_path / "set"
    folder.mkdir()
    texts = [f"{text} pin {number}" for number, text in enumerate(sentences(40, seed=1))]
    write_jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "text": text} for n, text in enumerate(texts)])
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"lost {texts[n]}"} for n in range(12)])
    rows = "".join(f"q{n}\td{n}\t2\nq{n}\td{n + 20}\t1\n" for n in range(12))
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return folder


@pytest.fixture
def call(folder, vectors_folder, tmp_path, embedder_folder):
    """Run the entry script on the collection; returns the results folder."""

    def run(*options, collection=folder, embedder=embedder_folder):
        named = ["--collection", collection, "--embedder", embedder, "--output_path", tmp_path / "results"]
        evaluate.main([str(option) for option in (*named, *options)])
        return tmp_path / "results"

    return run


def test_result_file_has_what_others_read(call, capsys):
    results = call()
    result = load_result(results / "set_embedder.json")
    assert {key: result[key] for key in ("collection", "retriever", "n_queries", "n_documents", "cutoffs")} == {
        "collection": "set", "retriever": "dense", "n_queries": 12, "n_documents": 40, "cutoffs": [1, 3, 5, 10],
    }  # fmt: skip
    metrics = ("NDCG", "F1", "Precision", "Recall", "MRR", "MAP")
    assert set(result["scores"]) == {f"{metric}@{k}" for metric in metrics for k in (1, 3, 5, 10)}
    assert set(result["per_query"]) == {f"{metric}@{k}" for metric in ("NDCG", "F1") for k in (1, 3, 5, 10)}
    low, high = result["interval"]["NDCG@10"]
    assert 0 <= low < result["scores"]["NDCG@10"] < high <= 100
    assert np.mean(list(result["per_query"]["F1@3"].values())) == pytest.approx(result["scores"]["F1@3"])
    printed = capsys.readouterr().out
    assert f"NDCG@10 {result['scores']['NDCG@10']:.2f}, 95% interval {low:.2f} to {high:.2f}" in printed


def test_scores_are_those_of_sentence_transformers(call, folder, embedder_folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    result = load_result(call() / "set_embedder.json")
    collection = load_collection(folder)
    evaluator = InformationRetrievalEvaluator(
        collection.queries, collection.corpus, {key: set(grades) for key, grades in collection.qrels.items()}
    )
    expected = evaluator(SentenceTransformer(str(embedder_folder), device="cpu"))
    assert result["scores"]["Recall@5"] == pytest.approx(100 * expected["cosine_recall@5"])
    assert result["scores"]["MRR@10"] == pytest.approx(100 * expected["cosine_mrr@10"])


def test_retrievers_share_embeddings_and_are_compared(call, vectors_folder, capsys, caplog):
    pytest.importorskip("bm25s")
    results = call()
    made = {path: path.stat().st_mtime_ns for path in vectors_folder.glob("*.npy")}
    call("--retriever", "bm25")
    call("--retriever", "hybrid", "--compare", results / "set_embedder.json", "--metric", "F1@3")
    assert {path: path.stat().st_mtime_ns for path in vectors_folder.glob("*.npy")} == made
    names = {path.name for path in results.glob("*.json") if not path.name.endswith("meta.json")}
    assert names == {"set_embedder.json", "set_bm25.json", "set_embedder-bm25-hybrid.json"}
    bm25 = load_result(results / "set_bm25.json")
    assert (bm25["model"], bm25["retriever"]) == ("bm25", "bm25")
    assert bm25["scores"]["Recall@1"] == 50  # every query holds its first document's number
    assert "F1@3 against set_embedder: " in capsys.readouterr().out
    with caplog.at_level(logging.INFO):
        call("--retriever", "bm25")
    assert "already made from the same inputs and settings" in caplog.text


@pytest.mark.parametrize("prompt", ["", "card: "])  # the second in place of finished vectors
def test_killed_evaluation_embeds_only_what_is_left(call, folder, embedder_folder, vectors_folder, monkeypatch, prompt):
    from sentence_transformers import SentenceTransformer

    options = ()
    if prompt:
        call()
        options = ("--document_prompt", prompt, "--overwrite")
    monkeypatch.setattr(embedding, "TEXTS_AT_A_TIME", 16)
    embed_texts, seen = embedding.embed_texts, []

    def embed_twice(side, texts, *options):
        if side.encode_side.func.__name__ == "encode_document":
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(len(texts))
        return embed_texts(side, texts, *options)

    monkeypatch.setattr(embedding, "embed_texts", embed_twice)
    with pytest.raises(SystemExit) as stop:
        call(*options)
    assert stop.value.code == 130
    assert seen == [16, 16]
    seen.clear()
    call(*options)
    assert seen == [8]
    assert not list(vectors_folder.glob("*.partial"))
    texts = list(load_collection(folder).corpus.values())
    expected = SentenceTransformer(str(embedder_folder), device="cpu").encode(texts, prompt=prompt)
    assert np.load(vectors_folder / "set_corpus.npy") == pytest.approx(expected, abs=1e-5)


def test_vectors_of_another_prompt_are_recomputed(call, vectors_folder):
    results = call()
    before = np.load(vectors_folder / "set_corpus.npy")
    with pytest.raises(SystemExit):
        call("--document_prompt", "card: ")  # the result is there with another setting
    call("--document_prompt", "card: ", "--overwrite")
    assert not np.allclose(np.load(vectors_folder / "set_corpus.npy"), before)
    assert read_json(results / "set_embedder.json.meta.json")["settings"]["document_prompt"] == "card: "


def model_with(prompts, default=None):
    return SimpleNamespace(prompts=prompts, default_prompt_name=default)


@pytest.mark.parametrize(
    ("name", "prompts", "default", "expected"),
    [
        ("minilm", {"query": "", "document": ""}, None, ("", "")),
        ("e5", {"clustering": "query: "}, "clustering", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large", {}, None, ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", {}, None, ("", "")),
        ("runs/stage5", {}, None, ("", "")),
        ("nlpai-lab/KoE5", {}, None, ("query: ", "passage: ")),
        ("org/model", {"query": "Q ", "passage": "P "}, None, ("Q ", "P ")),
        ("jinaai/jina-v3", {"retrieval.query": "Q ", "retrieval.passage": "P "}, None, ("Q ", "P ")),
        ("x/e5-mistral", {"web_search_query": "Instruct: "}, None, ("Instruct: ", "")),
        ("nomic-ai/nomic-embed-text-v1.5", {}, None, ("search_query: ", "search_document: ")),
        ("org/koe5-tuned", {"query": "Ask: ", "document": ""}, None, ("Ask: ", "")),
        ("gte", {"clustering": "query: "}, "clustering", ("", "")),  # as thenlper/gte-large
        ("runs/tuned_gte", {"clustering": "query: "}, "clustering", ("query: ", "query: ")),
    ],
)
def test_prompts(name, prompts, default, expected):
    assert find_prompts(model_with(prompts, default), name) == expected


def test_prompts_given_win():
    assert find_prompts(model_with({}), "e5", query_prompt="", document_prompt="text: ") == ("", "text: ")


def test_the_document_with_the_query_s_own_id_is_left_out_where_asked():
    pytest.importorskip("bm25s")
    corpus = {"a": "card bank", "b": "card", "c": "rain"}
    made = Collection("own", corpus, {"a": "card bank"}, {"a": {"b": 1}}, skip_same_id=True)
    settings = EvaluationSettings(retriever="bm25", cutoffs=[1])
    assert evaluate_retriever(made, settings)["scores"]["Recall@1"] == 100


@pytest.mark.parametrize(
    "corpus_id, text, judged, expected",
    [
        ("q", "Title A claim", "other", True),  # as in ArguAna
        ("q", "Another text", "other", False),  # ids that are counted on both sides
        ("q", "Title A claim", "q", False),
        ("x", "Title A claim", "other", False),
    ],
)
def test_queries_that_are_documents_do_not_find_themselves(tmp_path, corpus_id, text, judged, expected):
    documents = [{"_id": corpus_id, "text": text}, {"_id": "other", "text": "A counterclaim"}]
    write_jsonl(tmp_path / "corpus.jsonl", documents)
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "A claim"}])
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\nq\t{judged}\t1\n")
    assert load_collection(tmp_path).skip_same_id == expected


def test_the_reranker_reads_as_many_hits_as_asked(monkeypatch):
    pytest.importorskip("bm25s")

    class LongestFirst:
        def predict(self, inputs, **options):
            return np.array([len(document) for _, document in inputs])

    monkeypatch.setattr(evaluation, "load_reranker", lambda name, **_: LongestFirst())
    corpus = {str(n): "card" + " rain" * n for n in range(120)}  # BM25 ranks the shortest first
    made = Collection("deep", corpus, {"q": "card"}, {"q": {"119": 1}})
    settings = EvaluationSettings(retriever="bm25", reranker="longest", n_reranked=120, cutoffs=[1])
    assert evaluate_retriever(made, settings)["scores"]["Recall@1"] == 100


def test_reranking_tells_what_the_first_stage_found(monkeypatch):
    pytest.importorskip("bm25s")

    class ShortestFirst:
        def predict(self, inputs, **options):
            return np.array([-len(document) for _, document in inputs])

    monkeypatch.setattr(evaluation, "load_reranker", lambda name, **_: ShortestFirst())
    corpus = {"a": "card card", "b": "card", "c": "card rain rain", "d": "sun"}
    made = Collection("tiny", corpus, {"q": "card"}, {"q": {"b": 1, "d": 1}})
    settings = EvaluationSettings(retriever="bm25", reranker="runs/shortest", n_reranked=3, cutoffs=[1])
    result = evaluate_retriever(made, settings)
    assert result["retriever"] == "bm25+rerank-shortest"
    assert result["scores"]["Recall@1"] == 50
    assert result["first_stage"]["recall"] == 50  # "d" is not among the hits: no reranker finds it
    assert result["first_stage"]["scores"]["NDCG@1"] in (0, 100)
    assert "the 3 hits that were reranked hold 50.00% of the relevant documents" in format_scores(result)
    assert "first_stage" not in evaluate_retriever(made, EvaluationSettings(retriever="bm25", cutoffs=[1]))


@pytest.mark.parametrize("retriever", ["dense", "bm25", "hybrid"])
def test_empty_documents_are_kept_and_never_found(tmp_path, embedder_folder, vectors_folder, caplog, retriever):
    pytest.importorskip("bm25s")
    folder = tmp_path / "holes"
    folder.mkdir()
    texts = ["card", "", "rain", " \u200b", "sun", None]
    write_jsonl(folder / "corpus.jsonl", [{"_id": str(row), "text": text} for row, text in enumerate(texts)])
    write_jsonl(folder / "queries.jsonl", [{"_id": "q", "text": "card"}, {"_id": "r", "text": "rain"}])
    (folder / "qrels.tsv").write_text("q\t0\t1\nr\t1\t1\n")
    made = load_collection(folder)
    assert len(made.corpus) == 6 and "3 of 6 documents are empty; they are kept and never found" in caplog.text
    settings = EvaluationSettings(embedder=str(embedder_folder), retriever=retriever, cutoffs=[1, 5])
    hits = evaluation.search_collection(made, settings, 5)
    found = [row for row in hits.rows.flatten().tolist() if row >= 0]
    assert set(found) <= {0, 2, 4} and 0 in found
    assert retriever != "dense" or sorted(found) == [0, 0, 2, 2, 4, 4]
    result = evaluate_retriever(made, settings)
    assert result["n_documents"] == 6 and result["scores"]["Recall@5"] == 50  # the empty one is relevant, not found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cutoffs", "1", "50"], "--cutoffs 50: set has 40 documents; choose cutoffs up to that"),
        (["--cutoffs", "0"], "--cutoffs [0]: each must be at least 1"),
        (["--compare", "nowhere.json"], "nowhere.json: no such file"),
        (["--reranker", "x", "--n_reranked", "5"], "--n_reranked 5: must be at least the largest cutoff, 10"),
        (["--reranker", "nosuchmodel/here", "--retriever", "bm25"], "nosuchmodel/here: the hub cannot be reached"),
        (["--collection", "dcostrings"], 'dcostrings": '),
        (["--collection", "AutoRAGRetrieval"], "AutoRAGRetrieval: the hub cannot be reached"),
    ],
)
def test_bad_input_is_one_line(call, capsys, options, message):
    if options[0] == "--collection":
        pytest.importorskip("mteb")
    with pytest.raises(SystemExit) as stop:
        call(*options)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def make_result(values, **changes):
    per_query = {"NDCG@10": dict(zip("abcdefgh", values, strict=True))}
    return {"collection": "c", "n_documents": 5, "scores": {}, "per_query": per_query, "version": 1, **changes}


def test_paired_comparison():
    one, other = make_result([9, 8, 7, 9, 9, 8, 9, 8]), make_result([1, 1, 2, 1, 3, 1, 2, 1])
    found = compare_results(one, other)
    assert found.mean == pytest.approx(6.875)
    assert 5 < found.interval[0] < found.mean < found.interval[1] < 8
    assert found.p < 0.001
    reverse = compare_results(other, one)
    assert (reverse.mean, reverse.p) == (-found.mean, found.p)
    assert compare_results(one, one).p == 1


def test_what_cannot_be_compared(tmp_path):
    one = make_result(range(8))
    with pytest.raises(DataError, match="different collections: c and d"):
        compare_results(one, make_result(range(8), collection="d"))
    other = make_result(range(8))
    other["per_query"]["NDCG@10"]["z"] = other["per_query"]["NDCG@10"].pop("a")
    with pytest.raises(DataError, match="the results differ in 2 queries"):
        compare_results(one, other)
    with pytest.raises(DataError, match=r'--metric "MRR@10": not stored by query in both results .both store: NDCG@10'):
        compare_results(one, other, "MRR@10")
    path = tmp_path / "old.json"
    path.write_text(json.dumps(make_result(range(8), version=0)))
    with pytest.raises(DataError, match="old.json: has version 0, not 1; evaluate again"):
        load_result(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="old.json: not a result of evaluate"):
        load_result(path)


@pytest.mark.parametrize("source", ["result", "sidecar"])
def test_results_of_other_judgments_are_not_compared(call, folder, tmp_path, capsys, source):
    result = call() / "set_embedder.json"
    before = tmp_path / "before.json"
    for suffix in ("", ".meta.json"):
        result.with_name(result.name + suffix).rename(before.with_name(before.name + suffix))
    if source == "sidecar":  # as results were written at first
        found = read_json(before)
        del found["fingerprint"]
        before.write_text(json.dumps(found))
    else:
        before.with_name("before.json.meta.json").unlink()
    call("--compare", before)  # the same collection
    qrels = folder / "qrels.tsv"
    qrels.write_text(qrels.read_text().replace("\t2\n", "\t3\n"))
    with pytest.raises(SystemExit) as stop:
        call("--compare", before, "--overwrite")
    assert stop.value.code == 2
    assert "error: set: the results differ in texts or judgments; evaluate both again" in capsys.readouterr().err


def test_a_folder_with_an_at_sign_is_not_of_mteb():
    made = Collection("own", {"a": "x"}, {"q": "x"}, {"q": {"a": 1}}, origin="/home/me@work/own")
    formatted = format_task_result(made, {"NDCG@1": 50.0}, 1.0)
    assert (formatted["dataset_revision"], formatted["mteb_version"]) == (made.fingerprint[:40], None)


def test_missing_mteb_says_what_to_install(monkeypatch):
    monkeypatch.setattr("perspective.data.mteb_tasks.importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install -r requirements-retrieval.txt"):
        load_task("NFCorpus", known=["docstrings"])


@pytest.mark.slow
def test_mteb_reads_the_result(call):
    results = pytest.importorskip("mteb.results")
    folder = call()
    scores = load_result(folder / "set_embedder.json")["scores"]
    task_result = results.TaskResult.from_disk(mteb_path(folder / "set_embedder.json"))
    assert task_result.task_name == "set"
    assert task_result.get_score() == pytest.approx(scores["NDCG@10"] / 100, abs=1e-6)
    assert task_result.scores["test"][0]["mrr_at_5"] == pytest.approx(scores["MRR@5"] / 100, abs=1e-6)


@pytest.mark.slow
def test_a_task_of_mteb_scores_as_in_mteb(folder, embedder_folder, vectors_folder, monkeypatch):
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    source = load_collection(folder)

    class LocalRetrieval(mteb.get_task("AutoRAGRetrieval").__class__):
        def load_data(self, **options):
            split = {
                "corpus": Dataset.from_list([{"id": k, "title": "", "text": v} for k, v in source.corpus.items()]),
                "queries": Dataset.from_list([{"id": k, "text": v} for k, v in source.queries.items()]),
                "relevant_docs": source.qrels,
                "top_ranked": None,
            }
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    monkeypatch.setattr(mteb, "get_task", lambda name, **options: LocalRetrieval())
    collection = load_task("AutoRAGRetrieval")
    assert (collection.name, collection.split, collection.languages) == ("AutoRAGRetrieval", "test", ("kor-Hang",))
    ours = evaluate_retriever(collection, EvaluationSettings(embedder=str(embedder_folder)))
    formatted = format_task_result(collection, ours["scores"], 1.0)
    model = SentenceTransformer(str(embedder_folder), device="cpu")
    theirs = mteb.evaluate(model, LocalRetrieval(), cache=None, show_progress_bar=False).task_results[0]
    expected, found = theirs.scores["test"][0], formatted["scores"]["test"][0]
    compared = {name for name in found if "_at_" in name and not name.startswith("f1")} | {"main_score"}
    assert {name: found[name] for name in compared} == pytest.approx(
        {name: expected[name] for name in compared}, abs=1e-5
    )  # mteb rounds to five digits
    assert found["languages"] == expected["languages"]
    assert formatted["dataset_revision"] == theirs.dataset_revision
