import pytest

from perspective.artifacts import (
    JudgeRecord,
    Judgment,
    Output,
    Triplet,
    load_judgments,
    read_json,
    read_judge,
    save_judgments,
    sidecar_path,
)
from perspective.errors import JudgeError
from perspective.judging.protocol import Question, Wording
from perspective.judging.recorded import RecordedJudge
from perspective.judging.settings import JudgeSettings, JudgingTask, build_judge
from perspective.llm.server.settings import ServerSettings

TEXTS = list("abcdef")
RECORDS = [
    Judgment(Triplet(0, 1, 2), ("1",), "prompt", "Choice 1", 0.875, 0.75),
    Judgment(Triplet(0, 3, 4), ("2",), "", "Choice 2"),
    Judgment(Triplet(5, 3, 4), (), "", "?", 0.25),
]


def ask(triplets, records=RECORDS):
    questions = [Question(triplet, *(TEXTS[i] for i in triplet.key)) for triplet in triplets]
    judge = RecordedJudge(records, triplets)
    return list(judge.judge(questions)), judge


def test_recorded_answers_are_matched_by_index():
    triplets = [Triplet(5, 3, 4), Triplet(2, 3, 4), Triplet(0, 1, 2)]
    judgments, judge = ask(triplets)
    assert judgments == [
        Judgment(triplets[0], (), "", "?", 0.25),
        Judgment(triplets[1], (), content="not recorded"),
        Judgment(triplets[2], ("1",), "prompt", "Choice 1", 0.875, 0.75),
    ]
    assert judge.facts == {"n_recorded": 3, "n_matched": 2}


def test_the_mirror_image_is_answered_mirrored(tmp_path):
    triplets = [Triplet(0, 2, 1), Triplet(0, 4, 3), Triplet(5, 4, 3)]
    (both, words, one), _ = ask(triplets)
    # In the order of the file choice 1 had 1.0, in swapped order 0.75: the mirror's swapped order is the file's.
    assert (both.prediction, both.probability, both.swapped_probability) == (("2",), 0.125, 0.0)
    assert (words.prediction, words.probability, words.swapped_probability) == (("1",), None, None)
    assert (one.prediction, one.probability, one.swapped_probability) == ((), 0.75, None)
    # Mirrored twice, all is as it was; and what is mirrored can be saved and read.
    output = Output(tmp_path / "mirrored.json", "judgments", {})
    save_judgments(output, [both, words, one], TEXTS, "x")
    again, _ = ask([record.triplet for record in RECORDS], load_judgments(output.path, TEXTS))
    for judgment, record in zip(again, RECORDS, strict=True):
        assert (judgment.prediction, judgment.probability, judgment.swapped_probability) == (
            record.prediction,
            record.probability,
            record.swapped_probability,
        )


def test_a_foreign_record_is_refused():
    with pytest.raises(JudgeError, match=r"none of the 1 triplets is among the 3 recorded ones; .*--triplet_path"):
        ask([Triplet(1, 2, 3)])


def test_a_file_of_answers_by_labels_stays_marked_without_its_sidecar(tmp_path):
    oracle = JudgeRecord(name="oracle-0", kind="oracle", uses_labels=True)
    marked, plain = Output(tmp_path / "a.json", "judgments", {}), Output(tmp_path / "b.json", "judgments", {})
    marked.record.judge = oracle
    for output in (marked, plain):
        save_judgments(output, RECORDS, TEXTS, "x")
    assert read_judge(marked.path) == oracle and read_judge(plain.path) is None
    assert all(record["uses_labels"] is True for record in read_json(marked.path))
    assert not any("uses_labels" in record for record in read_json(plain.path))
    sidecar_path(marked.path).unlink()
    settings = JudgeSettings(recorded_path=str(marked.path))
    task = JudgingTask("x", Wording("topic", "?"), TEXTS, [RECORDS[0].triplet])
    assert build_judge(settings, ServerSettings(), task).identity["uses_labels"] is True


def test_what_was_told_by_labels_stays_marked():
    oracle = JudgeRecord(name="oracle-0", kind="oracle", uses_labels=True, asked={"noise": 0.0})
    judge = RecordedJudge(RECORDS, [RECORDS[0].triplet], oracle)
    assert judge.identity == {"kind": "recorded", "noise": 0.0, "orders": 1, "uses_labels": True}
