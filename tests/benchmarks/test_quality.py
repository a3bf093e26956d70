import dataclasses
import json

import numpy as np
import pytest
from helpers import write_jsonl

from perspective import layout
from perspective.benchmarks import quality as study
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


@pytest.mark.slow
def test_the_study_runs_and_goes_on(tmp_path, monkeypatch, sentences, embedder_folder, llm_folder, caplog):
    """Arms of each kind at tiny size; what is measured already is not measured again."""
    texts = sentences(60, n_words=8)
    folder = tmp_path / "datasets" / "banking77"
    folder.mkdir(parents=True)
    write_jsonl(folder / "small.jsonl", [{"input": f"{i} {t}", "label": t.split()[0]} for i, t in enumerate(texts)])
    monkeypatch.setattr("perspective.data.corpus.DATASETS", tmp_path / "datasets")
    monkeypatch.setattr(layout, "MEASURES", tmp_path / "measures")
    arms = ["untouched", "method", "method+llm", "no_guard", "no_training", "self_triplets", "starling"]
    settings = study.StudySettings(["banking77"], arms, [7], str(embedder_folder), str(llm_folder))
    # Random weights are not believed: told to be, so that the blend has something to blend.
    monkeypatch.setattr("perspective.trust.stability.MIN_RISE", -1.0)
    path = tmp_path / "measures" / "study.json"
    results = study.run_study(settings, path)
    assert set(results["banking77"]) == {*arms} - {"starling"}  # no recorded answers were given
    trained = {path.name for path in settings.folder.iterdir() if path.is_dir()}
    assert trained == {"banking77-taught-1-7", "banking77-self_triplets-7"}  # one training for equal teachers
    stamp = json.loads(path.read_text())
    anew = dataclasses.replace(settings, arms=["no_guard"], overwrite=True)
    monkeypatch.setattr("perspective.trust.stability.MIN_RISE", 2.0)
    assert study.run_study(anew, path)["banking77"]["method"] == stamp["banking77"]["method"]
    monkeypatch.setattr(study, "ARMS", dict.fromkeys(arms))
    settings = study.StudySettings(["banking77"], arms[:-1], [7], str(embedder_folder), str(llm_folder))
    assert study.run_study(settings, path) == stamp
    assert np.isfinite(stamp["banking77"]["method"]["7"]["ACC"]).all()


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
        study.StudySettings(["demo"])


def test_another_pair_has_its_own_files():
    assert study.StudySettings().folder.name == "benchmark_quality"
    assert study.StudySettings(llm="my/qwen.gguf").folder.name == "benchmark_quality-minilm-qwen"
