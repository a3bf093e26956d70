import numpy as np
import pytest

from perspective import conversion
from perspective.artifacts import Judgment, TrainingTriplet, Triplet
from perspective.conversion import choose_instruction, convert_by_embedder, convert_judgments, read_prompt
from perspective.errors import DataError

TEXTS = ["query", "near", "far", "middle"]
VECTORS = np.array([[0, 0], [1, 0], [0, 5], [-2, 0]], dtype=np.float32)


def judgment(prediction, probability=None, key=(0, 1, 2), gold=None):
    return Judgment(Triplet(*key, gold), prediction, probability=probability)


def test_the_chosen_text_is_the_positive():
    judgments = [
        judgment(("1",), 0.9),
        judgment(("2",), 0.25, gold=" 1"),  # the gold answer is not looked at
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


def test_self_training_takes_the_nearer_choice_whatever_was_judged():
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


def test_nothing_converts_to_nothing():
    assert convert_judgments([judgment(())], TEXTS) == []
    assert convert_judgments([], TEXTS) == []
    assert convert_by_embedder([], TEXTS, VECTORS) == []


def test_instruction_before_each_text(tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"banking77": "Represent the bank purpose for retrieval: "}')
    monkeypatch.setattr(conversion, "PROMPTS", prompts)
    assert choose_instruction("minilm", "banking77", instructed=True) == "Represent the bank purpose for retrieval: "
    assert choose_instruction("e5", "banking77", instructed=False) == "query: "
    assert choose_instruction("minilm", "banking77", instructed=False) == ""
    assert choose_instruction("gte", "mine", instructed=False) == ""
    with pytest.raises(DataError, match=r'prompts\.json: no prompt for "bankin77": did you mean banking77\?'):
        choose_instruction("gte", "bankin77", instructed=True)


@pytest.mark.parametrize("stage", ["1_predict_triplet", "2_finetune"])
def test_the_prompts_of_both_stages_can_be_read(stage):
    path = conversion.ROOT / "perspective" / stage / "prompts.json"
    for dataset in ("banking77", "few_nerd_nat", "mtop_domain", "stackexchange"):
        assert read_prompt(path, dataset).strip()
