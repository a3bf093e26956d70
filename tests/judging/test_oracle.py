import random

import pytest

from perspective.artifacts import Judgment, Output, Triplet
from perspective.errors import DataError
from perspective.judging.oracle import OracleJudge
from perspective.judging.protocol import Question
from perspective.judging.session import judge_triplets

N = 2000


def make_triplets(n=N):
    return [Triplet(row, row + 1, row + 2, random.Random(row).choice((" 1", " 2"))) for row in range(n)]


def make_questions(triplets):
    return [Question(triplet, "q", "a", "b") for triplet in triplets]


def ask(triplets, noise=0.0, seed=0, rows=None):
    questions = make_questions(triplets if rows is None else [triplets[row] for row in rows])
    judgments = OracleJudge(triplets, noise, seed).judge(questions)
    return {judgment.triplet.query_idx: judgment.prediction for judgment in judgments}


def count_turned(answers, triplets):
    return sum(answers[row] != (triplet.gold.strip(),) for row, triplet in enumerate(triplets))


def test_without_noise_it_says_what_the_labels_say():
    triplets = [Triplet(row, 8, 9, gold) for row, gold in enumerate((" 1", "2", "both", None, "neither"))]
    judge = OracleJudge(triplets, 0, seed=5)
    assert list(judge.judge(make_questions(triplets[row] for row in (1, 0, 2, 3, 4)))) == [
        Judgment(triplets[1], ("2",), content="Choice 2"),
        Judgment(triplets[0], ("1",), content="Choice 1"),
        *(Judgment(triplet, (), content="not decided by the labels") for triplet in triplets[2:]),
    ]
    assert judge.identity == {"kind": "oracle", "noise": 0, "seed": 5, "uses_labels": True}
    assert judge.facts == {"n_gold": 2, "n_turned": 0}


@pytest.mark.parametrize("noise", [0.1, 0.25, 0.5])
def test_as_many_answers_are_turned_round_as_the_noise_says(noise):
    triplets = make_triplets()
    turned = count_turned(ask(triplets, noise, seed=1), triplets)
    assert abs(turned - N * noise) < 4 * (N * noise * (1 - noise)) ** 0.5


def test_an_answer_depends_on_seed_triplet_and_noise_alone():
    triplets = make_triplets(300)
    answers = ask(triplets, 0.3, seed=1)
    shuffled = random.Random(0).sample(range(300), 120)
    assert ask(triplets, 0.3, seed=1, rows=shuffled) == {row: answers[row] for row in shuffled}
    assert ask(triplets, 0.3, seed=2) != answers
    # More noise turns more, and turns nothing back.
    noisier = ask(triplets, 0.4, seed=1)
    right = {row for row in answers if answers[row] == (triplets[row].gold.strip(),)}
    assert {row for row in noisier if noisier[row] == (triplets[row].gold.strip(),)} < right


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    triplets, texts = make_triplets(40), [str(i) for i in range(42)]
    whole = judge_triplets(OracleJudge(triplets, 0.3, 7), triplets, texts, Output(tmp_path / "a.json", "judgments", {}))

    class Killed(OracleJudge):
        def judge(self, questions):
            for judgment in super().judge(questions):
                if judgment.triplet.query_idx == 15:
                    raise KeyboardInterrupt
                yield judgment

    output = Output(tmp_path / "b.json", "judgments", {})
    with pytest.raises(KeyboardInterrupt):
        judge_triplets(Killed(triplets, 0.3, 7), triplets, texts, output)
    assert judge_triplets(OracleJudge(triplets, 0.3, 7), triplets, texts, output) == whole


@pytest.mark.parametrize("noise", [-0.01, 0.51, float("nan")])
def test_noise_out_of_range_is_refused(noise):
    with pytest.raises(DataError, match=r"the oracle's noise is .*; it must be between 0 and 0\.5"):
        OracleJudge(make_triplets(3), noise, 0)


@pytest.mark.parametrize("golds", [[], [None, None], ["both", None]])
def test_triplets_without_gold_answers_are_refused(golds):
    with pytest.raises(DataError, match=rf"none of the {len(golds)} triplets has a gold answer: an oracle needs"):
        OracleJudge([Triplet(0, 1, 2, gold) for gold in golds], 0.1, 0)
