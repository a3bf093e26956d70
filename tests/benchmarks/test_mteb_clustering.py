"""mteb's clustering benchmark on a task of the same layout as its own, with local texts and tiny models."""

import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers import write_jsonl

from perspective.benchmarks import mteb_clustering as benchmark
from perspective.errors import DataError
from perspective.training.settings import RECIPES

TASK = "MadeUpClustering.v2"


@pytest.fixture
def task(tmp_path, monkeypatch, sentences):
    """Register a task that mteb loads from a folder; mteb embeds half of its texts. Return the folder."""
    import mteb
    from mteb.abstasks.clustering import AbsTaskClustering
    from mteb.abstasks.task_metadata import TaskMetadata

    folder = tmp_path / "made_up"
    folder.mkdir()
    texts = [f"{text} {i % 9}" for i, text in enumerate(sentences(600))]
    records = [{"sentences": text, "labels": f"class {text.split()[0]}"} for text in texts]
    write_jsonl(folder / "test.jsonl", [*records, {"sentences": " ", "labels": "empty"}])

    class MadeUpClustering(AbsTaskClustering):
        max_fraction_of_documents_to_embed = 0.5
        metadata = TaskMetadata(
            name=TASK,
            description="Texts by their first word.",
            dataset={"path": str(folder), "revision": "1"},
            type="Clustering",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="v_measure",
        )

    assert mteb.get_task  # registers the tasks
    monkeypatch.setitem(sys.modules["mteb.get_tasks"]._TASKS_REGISTRY, TASK, MadeUpClustering)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setitem(RECIPES, "distill", replace(RECIPES["distill"], num_train_epochs=2))
    return folder


@pytest.mark.slow
def test_an_embedder_is_measured_by_mteb_before_and_after(tmp_path, task, embedder_folder, llm_folder, caplog):
    import mteb
    from mteb.models import ModelMeta
    from sentence_transformers import SentenceTransformer

    settings = benchmark.MtebSettings(
        tasks=[TASK], embedder=str(embedder_folder), llm=str(llm_folder), adapt_on=520, output_path=str(tmp_path)
    )
    found = benchmark.run_benchmark(settings)[TASK]
    assert (found["perspective"], found["n_texts"], found["unchanged"]) == ("topic", 520, False)
    assert found["before"] != found["after"]

    # What mteb measures without this project, and what it loads from the folder.
    plain = mteb.evaluate(SentenceTransformer(str(embedder_folder), device="cpu"), mteb.get_task(TASK), cache=None)
    assert found["before"] == pytest.approx(100 * plain.task_results[0].get_score(), abs=0.3)
    loaded = {model.model_name: model for model in mteb.ResultCache(settings.folder).load_results().model_results}
    base, adapted = "local/embedder", "local/embedder-llm-adapted-to-texts-of-each-task"
    scores = {name: 100 * model.task_results[0].get_score() for name, model in loaded.items()}
    assert scores == pytest.approx({base: found["before"], adapted: found["after"]}, abs=0.01)
    meta = ModelMeta.model_validate_json_resolved(
        next(settings.folder.glob("results/*adapted*/seed=100/model_meta.json")).read_bytes()
    )
    assert meta.adapted_from == base and meta.training_datasets == {TASK} and not meta.is_zero_shot_on([TASK])
    assert loaded[base].model_meta.training_datasets is None

    # Texts alone reach the stages, none of them empty.
    texts = (settings.folder / TASK / "texts.jsonl").read_text().splitlines()
    assert len(texts) == 520 and {tuple(json.loads(line)) for line in texts} == {("input",)}
    assert "class" not in "".join(texts)

    # A finished task needs neither its texts nor a model.
    shutil.rmtree(task)
    caplog.clear()
    caplog.set_level("INFO")
    assert benchmark.run_benchmark(settings) == {TASK: found}
    assert "wrote" not in caplog.text
    with pytest.raises(DataError, match=r"made with other adapt_on \(520, now 500\)"):
        benchmark.run_benchmark(replace(settings, adapt_on=500))


def test_texts_of_every_layout():
    """Tasks before v2 hold one set of texts a row; tasks of several languages hold one part a language."""
    rows = {"sentences": [["a", "b"], ["c"]], "labels": [[0, 1], [0]]}
    task = SimpleNamespace(hf_subsets=["default"], eval_splits=["test"], input_column_name="sentences")
    assert list(benchmark.list_texts(SimpleNamespace(**vars(task), dataset={"test": rows, "train": {}}))) == list("abc")
    parts = {"eng": {"test": {"sentences": ["a"]}}, "kor": {"test": {"sentences": ["가"]}}, "deu": {}}
    task.hf_subsets = ["eng", "kor"]
    assert list(benchmark.list_texts(SimpleNamespace(**vars(task), dataset=parts))) == ["a", "가"]


def test_the_default_tasks_are_those_of_the_english_benchmark():
    import mteb

    tasks = mteb.get_benchmark("MTEB(eng, v2)").tasks
    assert {task.metadata.name for task in tasks if task.metadata.type == "Clustering"} == set(benchmark.PERSPECTIVES)


def test_what_is_no_clustering_task_is_refused():
    with pytest.raises(DataError, match=r'--tasks "MedrxivClusteringS2S.v3": did you mean MedrxivClusteringS2S'):
        benchmark.find_task("MedrxivClusteringS2S.v3")
    with pytest.raises(DataError, match="give clustering tasks of mteb, such as ArXivHierarchicalClusteringP2P"):
        benchmark.find_task("banking")
    with pytest.raises(DataError, match="NFCorpus: a task of type Retrieval; only clustering"):
        benchmark.find_task("NFCorpus")
    with pytest.raises(DataError, match="--adapt_on 3: must be at least 9"):
        benchmark.MtebSettings(adapt_on=3)


def test_a_task_that_cannot_be_downloaded_is_one_line(tmp_path):
    settings = benchmark.MtebSettings(tasks=["StackExchangeClustering.v2"], output_path=str(tmp_path))
    with pytest.raises(DataError, match=r"StackExchangeClustering\.v2: its texts cannot be loaded from the hub"):
        benchmark.TaskRun("StackExchangeClustering.v2", settings).collect_texts()
    assert not list(tmp_path.rglob("texts.jsonl*"))
