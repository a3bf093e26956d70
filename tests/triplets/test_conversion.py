import json

import numpy as np
import pytest
from helpers import run_stage, write_jsonl

from perspective.artifacts import ROOT, ROW_FIELDS, Judgment, TrainingTriplet, Triplet, read_json
from perspective.errors import DataError
from perspective.models import prompts
from perspective.models.prompts import choose_instruction, read_prompt
from perspective.triplets.conversion import (
    MIN_EVIDENCE,
    ConvertSettings,
    convert_by_embedder,
    convert_by_evidence,
    convert_judgments,
)
from perspective.trust.evidence import Evidence
from perspective.vectors import score_margins

TEXTS = ["query", "near", "far", "middle"]
VECTORS = np.array([[0, 0], [1, 0], [0, 5], [-2, 0]], dtype=np.float32)


def judgment(prediction, probability=None, key=(0, 1, 2), gold=None):
    return Judgment(Triplet(*key, gold), prediction, probability=probability)


def test_the_chosen_text_is_the_positive():
    judgments = [
        judgment(("1",), 0.9),
        judgment(("2",), 0.25, gold=" 1"),  # the gold answer is not used
        judgment((), 0.45),
        judgment(("2",)),
        judgment(("1",), 1.0, key=(3, 2, 0)),
    ]
    triplets = convert_judgments(judgments, TEXTS, "Represent: ")
    assert [(t.anchor, t.positive, t.negative) for t in triplets] == [
        ("query", "near", "far"),
        ("query", "far", "near"),
        ("query", "far", "near"),
        ("middle", "far", "query"),
    ]
    assert [t.weight for t in triplets] == pytest.approx([0.8, 0.5, 1.0, 1.0])
    assert triplets[1] == TrainingTriplet("Represent: ", "query", "far", "near", judgments[1].triplet, 0.5)


def test_self_training_uses_the_nearer_choice_not_the_judgment():
    judgments = [
        judgment(("2",), 0.1),
        judgment(()),
        judgment(("1",), key=(0, 2, 3)),
        judgment(("1",), key=(1, 3, 0)),
    ]
    triplets = convert_by_embedder(judgments, TEXTS, VECTORS, "i")
    assert [t.positive for t in triplets] == ["near", "near", "middle", "query"]
    assert [t.negative for t in triplets] == ["far", "far", "far", "middle"]
    assert {(t.weight, t.instruction) for t in triplets} == {(1.0, "i")}
    assert [t.triplet for t in triplets] == [one.triplet for one in judgments]


def evidence(*probability):
    return Evidence(np.array(probability), {}, {})


def test_evidence_decides_choice_and_weight():
    judgments = [judgment(("2",), 0.1, gold=" 2"), judgment(()), judgment(("1",), key=(3, 2, 0)), judgment(("1",), 1.0)]
    triplets = convert_by_evidence(judgments, TEXTS, evidence(0.9, 0.25, 0.6, 0.5), "i")
    assert [(t.anchor, t.positive, t.negative) for t in triplets] == [
        ("query", "near", "far"),  # the judge chose the other
        ("query", "far", "near"),  # the judge abstained
        ("middle", "far", "query"),
    ]
    assert [t.weight for t in triplets] == pytest.approx([0.8, 0.5, 0.2])
    assert triplets[2].triplet == judgments[2].triplet and triplets[2].instruction == "i"


def test_weak_evidence_is_left_out():
    bounds = 0.5 + np.array([-1.02, -0.98, 0.98, 1.02]) * MIN_EVIDENCE / 2
    triplets = convert_by_evidence([judgment(("1",))] * 4, TEXTS, evidence(*bounds))
    assert [t.positive for t in triplets] == ["far", "near"]
    assert convert_by_evidence([], TEXTS, evidence()) == []


def test_evidence_of_other_triplets_and_states_without_evidence_are_refused():
    with pytest.raises(DataError, match="evidence of 2 triplets for 1 judgments"):
        convert_by_evidence([judgment(("1",))], TEXTS, evidence(0.1, 0.2))
    with pytest.raises(DataError, match="--states_path: answer states are used only with --evidence"):
        ConvertSettings(states_path="states.npy")
    assert not ConvertSettings().evidence


def test_abstentions_and_empty_input_give_no_triplets():
    assert convert_judgments([judgment(())], TEXTS) == []
    assert convert_judgments([], TEXTS) == []
    assert convert_by_embedder([], TEXTS, VECTORS) == []


def test_instruction_before_each_text(tmp_path, monkeypatch):
    path = tmp_path / "prompts.json"
    path.write_text('{"banking77": "Represent the bank purpose for retrieval: "}')
    monkeypatch.setattr(prompts, "PROMPTS", path)
    assert choose_instruction("minilm", "banking77", instructed=True) == "Represent the bank purpose for retrieval: "
    assert choose_instruction("e5", "banking77", instructed=False) == "query: "
    assert choose_instruction("minilm", "banking77", instructed=False) == ""
    assert choose_instruction("gte", "mine", instructed=False) == ""
    with pytest.raises(DataError, match=r'prompts\.json: no prompt for "bankin77": did you mean banking77\?'):
        choose_instruction("gte", "bankin77", instructed=True)


@pytest.mark.parametrize("stage", ["1_predict_triplet", "2_finetune"])
def test_the_prompts_of_both_stages_can_be_read(stage):
    path = ROOT / "perspective" / stage / "prompts.json"
    for dataset in ("banking77", "few_nerd_nat", "mtop_domain", "stackexchange"):
        assert read_prompt(path, dataset).strip()


def test_the_stage_converts_by_evidence(tmp_path, caplog):
    """From files to files: first judge, vectors and states agree; then the judge agrees with nothing."""
    caplog.set_level("INFO")
    rng = np.random.default_rng(0)
    n_texts, n_triplets = 60, 400
    meanings = rng.normal(size=(n_texts, 4))
    path = write_jsonl(tmp_path / "tiny.jsonl", [{"input": f"text {i}"} for i in range(n_texts)])
    for name in ("vectors", "states"):
        noisy = meanings + 0.5 * rng.normal(size=meanings.shape)
        np.save(tmp_path / f"{name}.npy", noisy.astype(np.float32))
    triplets = [Triplet(*map(int, rng.choice(n_texts, 3, replace=False))) for _ in range(n_triplets)]
    truth = score_margins(meanings, triplets) > 0
    chose_first = truth == (rng.random(n_triplets) < 0.8)

    def convert(name, answers, *more):
        judged = tmp_path / f"{name}-pred.json"
        judged.write_text(
            json.dumps(
                [
                    {**dict(zip(ROW_FIELDS, one.key, strict=True)), "prediction": ["1"] if first else ["2"]}
                    for one, first in zip(triplets, answers, strict=True)
                ]
            )
        )
        run_stage("convert_triplet", "--dataset", "tiny", "--data_path", path, "--pred_path", judged,
                  "--feat_path", tmp_path / "vectors.npy", "--output_path", tmp_path, *more)  # fmt: skip
        return read_json(tmp_path / f"{name}-train.json"), read_json(tmp_path / f"{name}-train.json.meta.json")

    def share_right(records):
        answers = {one.key: first for one, first in zip(triplets, truth, strict=True)}
        keys = [tuple(record[name] for name in ROW_FIELDS) for record in records]
        is_first = [r["pos"][1] == f"text {r['choice1_idx']}" for r in records]
        return np.mean([answers[key] == first for key, first in zip(keys, is_first, strict=True)])

    records, sidecar = convert("all", chose_first, "--evidence", "--states_path", tmp_path / "states.npy")
    assert set(sidecar["inputs"]) == {"texts", "judgments", "embeddings", "states"}
    assert sidecar["settings"]["evidence"] is True
    assert set(sidecar["facts"]["reliability"]) == {"llm", "embedder", "states"}
    plain, plain_sidecar = convert("plain", chose_first)
    assert plain_sidecar["settings"] == {"instruction": "", "check": True, "evidence": False}
    assert share_right(records) > share_right(plain) + 0.03
    assert min(record["weight"] for record in records) >= MIN_EVIDENCE and len(records) < n_triplets
    # A judge that agrees with nothing: the embedder alone would only teach itself.
    records, sidecar = convert("noise", ~chose_first, "--evidence")
    assert records == [] and sidecar["facts"]["reliability"]["llm"] == 0
    assert "no source except the embedder is trusted" in caplog.text
