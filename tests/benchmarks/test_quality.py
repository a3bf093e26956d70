import dataclasses
import json

import numpy as np
import pytest
from helpers import write_jsonl

from perspective.artifacts import ROOT, Judgment, Output, Triplet, load_training_triplets, save_judgments
from perspective.artifacts.provenance import METHOD_VERSIONS
from perspective.benchmarks import judges, perspectives, unseen, views
from perspective.benchmarks import quality as study
from perspective.data.corpus import load_texts
from perspective.errors import DataError


def cell(acc, nmi):
    return {"ACC": acc, "NMI": nmi, "ARI": nmi}


def test_the_table_pairs_each_k_means_seed():
    results = {
        "banking77": {
            "untouched": {"100": cell([60.0, 64.0], [80.0, 80.0])},
            "method": {"100": cell([63.0, 67.0], [82.0, 82.0]), "13": cell([65.0, 69.0], [82.0, 84.0])},
        }
    }
    table = study.format_study(results)
    assert "| untouched (ACC / NMI) |  | 62.00 ± 2.00 / 80.00 ± 0.00 |" in table
    # Unpaired, the spread of ACC would be 2.2: that of the seeds, not of the gain.
    assert "| method | 2 | +4.00 ± 1.00 / +2.50 ± 0.87 | +4.00 / +2.50 |" in table
    # A star needs three training seeds.
    results["banking77"]["method"]["21"] = cell([65.0, 69.0], [82.0, 83.0])
    assert "| method | 3 | +4.33 ± 0.94 / +2.50 ± 0.76* | +4.33 / +2.50 |" in study.format_study(results)


@pytest.fixture
def labelled(tmp_path, monkeypatch, sentences):
    """60 labelled texts in the place of banking77, and of clinc with two kinds of labels."""
    texts = sentences(60, n_words=8)
    for name, word in (("banking77", 0), ("clinc", 0), ("clinc_domain", -1)):
        folder = tmp_path / "datasets" / name
        folder.mkdir(parents=True)
        rows = [{"input": f"{i} {text}", "label": text.split()[word]} for i, text in enumerate(texts)]
        write_jsonl(folder / "small.jsonl", rows)
    monkeypatch.setattr("perspective.data.corpus.DATASETS", tmp_path / "datasets")


@pytest.mark.slow
def test_the_study_runs_and_resumes(tmp_path, monkeypatch, labelled, embedder_folder, llm_folder):
    """Arms of each kind at tiny size; a finished cell is not measured again."""
    models = (str(embedder_folder), str(llm_folder))
    arms = [
        "method",
        "method+llm",
        "no_llm",
        "two_rounds",
        "teacher_weight_1",
        "teacher",
        "random_triplets",
        "self_triplets",
        "starling",
    ]
    settings = study.StudySettings(
        datasets=["banking77"], arms=arms, seeds=[7], embedder=models[0], llm=models[1], output_path=str(tmp_path)
    )
    monkeypatch.setattr("perspective.trust.specificity.MIN_CONTROL_TEXTS", 30)
    results = study.run_study(settings)
    cells = results["banking77"]
    assert set(cells) == {"untouched", *arms} - {"starling"}  # there are no recorded answers
    assert all(np.isfinite(cell["ACC"]).all() for seeds in cells.values() for cell in seeds.values())
    trained = [path.name for path in settings.folder.iterdir() if path.is_dir() and path.name.endswith("seed=7")]
    assert sum("-distill" in name for name in trained) == 2  # "method" and "no_llm"
    assert sum("-standard" in name for name in trained) == 2
    assert json.loads((tmp_path / f"{settings.folder.name}.json").read_text()) == results
    monkeypatch.setattr(study, "ARMS", dict.fromkeys(study.ARMS))
    assert study.run_study(settings) == results


@pytest.mark.slow
def test_other_views_are_measured_and_kept(tmp_path, monkeypatch, labelled, embedder_folder, llm_folder):
    monkeypatch.setattr("perspective.trust.specificity.MIN_CONTROL_TEXTS", 30)
    models = ["--embedder", str(embedder_folder), "--llm", str(llm_folder)]
    options = ["--datasets", "banking77", *models, "--output_path", str(tmp_path)]
    views.main(options)
    (path,) = tmp_path.glob("benchmark_views-*.json")  # of these two models
    measured = json.loads(path.read_text())["banking77"]
    assert list(measured) == list(views.VIEWS)
    assert all(np.isfinite(cell["NMI"]).all() for cell in measured.values())
    assert len({tuple(cell["NMI"]) for cell in measured.values()}) > 1  # they are not the same teacher
    monkeypatch.setattr(views, "VIEWS", dict.fromkeys(views.VIEWS))
    views.main(options)


@pytest.mark.slow
def test_judges_are_compared_on_the_same_triplets(tmp_path, monkeypatch, labelled, llm_folder):
    options = ["--datasets", "banking77", "--llms", str(llm_folder), "--output_path", str(tmp_path)]
    judges.main([*options, "--max_query", "20"])
    path = tmp_path / "benchmark_judges.json"
    rows = json.loads(path.read_text())
    assert [row["judge"] for row in rows] == list(judges.KINDS)
    assert len({(row["n_judgments"], row["n_decidable"], row["embedder_accuracy"]) for row in rows}) == 1
    assert 0 < rows[0]["n_decidable"] < rows[0]["n_judgments"] == 20
    assert len({row["llm_leaning_accuracy"] for row in rows}) > 1
    assert rows[0]["order_kappa"] is None and rows[2]["llm_accuracy"] is not None  # 20 are too few for kappa

    monkeypatch.setattr(judges, "measure_judge", None)
    judges.main([*options, "--max_query", "20"])
    assert json.loads(path.read_text()) == rows


@pytest.mark.slow
def test_unseen_texts_and_two_perspectives_are_measured(
    tmp_path, monkeypatch, capsys, labelled, embedder_folder, llm_folder
):
    monkeypatch.setattr("perspective.trust.specificity.MIN_CONTROL_TEXTS", 30)
    monkeypatch.setattr(perspectives, "WORDINGS", {"intent": ("intent", "purpose"), "domain": ("domain",)})
    models = ["--embedder", str(embedder_folder), "--llm", str(llm_folder)]
    options = ["--seeds", "7", *models, "--output_path", str(tmp_path)]
    unseen.main(["--datasets", "banking77", *options])
    (measured,) = tmp_path.glob("benchmark_unseen-*.json")  # of these two models
    cell = json.loads(measured.read_text())["banking77"]["7"]
    assert cell["n_unseen"] == 12 and [len(cell[arm]["NMI"]) for arm in ("before", "after", "no_llm")] == [5] * 3
    perspectives.main(options)
    cells = json.loads((tmp_path / "benchmark_perspectives.json").read_text())
    found = [(cell["perspective"], cell["wording"], cell["seed"]) for cell in cells]
    trained = [("intent", "intent", 7), ("domain", "domain", 7)]
    taught = [("intent", "intent", None), ("intent", "purpose", None), ("domain", "domain", None)]
    assert found == [(None, None, None), *trained, *taught]
    by_intent, by_purpose = (cell["scores"]["intent"]["NMI"] for cell in cells[3:5])
    assert by_intent != by_purpose  # the LLM was asked in other words

    monkeypatch.setitem(METHOD_VERSIONS, "judgments", 99)  # no stage that they call makes any
    for again in (lambda: unseen.main(["--datasets", "banking77", *options]), lambda: perspectives.main(options)):
        with pytest.raises(SystemExit) as stopped:
            again()
        assert stopped.value.code == 2
    assert capsys.readouterr().err.count("made with other methods") == 2


@pytest.fixture
def cell_settings(tmp_path, monkeypatch, labelled):
    """A study of one cell that needs no model, run once."""
    arm = {"untouched": lambda run, seed: np.random.default_rng(seed).normal(size=(60, 8))}
    monkeypatch.setattr(study, "ARMS", arm)
    settings = study.StudySettings(datasets=["banking77"], output_path=str(tmp_path))
    cell = study.run_study(settings)["banking77"]["untouched"]["100"]
    assert cell["precision"] == "float32, trained in float32"
    return settings


def test_a_finished_cell_is_kept(cell_settings, monkeypatch):
    monkeypatch.setattr(study, "ARMS", {"untouched": None})
    assert set(study.run_study(cell_settings)["banking77"]) == {"untouched"}


def test_a_cell_of_another_precision_is_refused(cell_settings, monkeypatch):
    monkeypatch.setenv("COMPUTE_DTYPE", "bfloat16")
    with pytest.raises(DataError, match=r"untouched-100\.json: made with other precision \(float32.*now bfloat16"):
        study.run_study(cell_settings)
    again = study.run_study(dataclasses.replace(cell_settings, overwrite=True))
    assert again["banking77"]["untouched"]["100"]["precision"].startswith("bfloat16")


@pytest.mark.parametrize("ingredient", study.INGREDIENTS)
def test_a_cell_of_an_older_method_is_refused(cell_settings, monkeypatch, ingredient):
    monkeypatch.setitem(METHOD_VERSIONS, ingredient, METHOD_VERSIONS.get(ingredient, 1) + 1)
    with pytest.raises(DataError, match="made with other methods"):
        study.run_study(cell_settings)


def test_abstentions_are_left_out_unless_forced(tmp_path, labelled):
    """Without the guard of `convert_triplet`: an ablation trains on whatever was judged."""
    judgments = [Judgment(Triplet(0, 1, 2), (), probability=0.25), Judgment(Triplet(3, 4, 5), ("1",), probability=0.75)]
    undecided = [Judgment(Triplet(0, i, i + 1), ()) for i in range(6, 50)]  # a reply without any probability
    path = tmp_path / "run-pred.json"
    run = study.StudyRun("banking77", study.StudySettings(datasets=["banking77"], output_path=str(tmp_path)))
    save_judgments(Output(path, "judgments", {}), [*judgments, *undecided], load_texts(run.corpus), "banking77")
    trained = [load_training_triplets(run.convert(path, forced)) for forced in (False, True)]
    assert [[one.triplet.key for one in triplets] for triplets in trained] == [[(3, 4, 5)], [(0, 1, 2), (3, 4, 5)]]
    assert trained[1][0].positive == load_texts(run.corpus)[2] and trained[1][0].weight == 0.5


def test_ingredients_are_the_schemas_of_the_stages():
    """A misspelt schema would let a cell outlive a change of its method."""
    stages = [
        path.read_text()
        for stage in ("1_predict_triplet", "2_finetune")
        for path in (ROOT / "perspective" / stage).glob("*.py")
    ]
    for ingredient in study.INGREDIENTS:
        assert any(f'"{ingredient}"' in text for text in stages), ingredient


def test_cells_measured_elsewhere_stay(tmp_path):
    earlier = {"banking77": {"untouched": {"100": cell([1.0], [1.0])}, "method": {"13": cell([2.0], [2.0])}}}
    (tmp_path / "banking77-method-100.json").write_text(json.dumps(cell([3.0], [3.0])))
    (tmp_path / "banking77-untouched-100.json").write_text(json.dumps(cell([4.0], [4.0])))
    results = study._gather(tmp_path, earlier)["banking77"]
    assert {arm: {seed: one["ACC"] for seed, one in cells.items()} for arm, cells in results.items()} == {
        "untouched": {"100": [4.0]},
        "method": {"13": [2.0], "100": [3.0]},
    }


def test_an_unknown_arm_is_refused():
    with pytest.raises(DataError, match='--arm "methd": did you mean method'):
        study.StudySettings(arms=["methd"])
    with pytest.raises(DataError, match='--dataset "demo": known: banking77'):
        study.StudySettings(datasets=["demo"])


def test_another_pair_has_its_own_files():
    assert study.StudySettings().folder.name == "benchmark_quality"
    assert study.StudySettings(llm="my/qwen.gguf").folder.name == "benchmark_quality-minilm-qwen"
