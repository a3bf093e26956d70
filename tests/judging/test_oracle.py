import random

import pytest

from perspective.artifacts import Output, Triplet
from perspective.errors import DataError
from perspective.judging.oracle import OracleJudge
from perspective.judging.protocol import Opinion, Question
from perspective.judging.session import judge_triplets

N = 2000


def make_triplets(n=N):
    return [Triplet(0, 1, 2, random.Random(row).choice((" 1", " 2"))) for row in range(n)]


def ask(triplets, noise=0.0, seed=0, rows=None):
    questions = [Question(row, "q", "a", "b") for row in (range(len(triplets)) if rows is None else rows)]
    return {opinion.row: opinion.prediction for opinion in OracleJudge(triplets, noise, seed).judge(questions)}


def count_turned(answers, triplets):
    return sum(answers[row] != (triplet.gold.strip(),) for row, triplet in enumerate(triplets))


def test_without_noise_it_says_what_the_labels_say():
    triplets = [Triplet(0, 1, 2, gold) for gold in (" 1", "2", "both", None, "neither")]
    judge = OracleJudge(triplets, 0, seed=5)
    assert list(judge.judge([Question(row, "q", "a", "b") for row in (1, 0, 2, 3, 4)])) == [
        Opinion(1, ("2",), content="Choice 2"),
        Opinion(0, ("1",), content="Choice 1"),
        *(Opinion(row, (), content="not decided by the labels") for row in (2, 3, 4)),
    ]
    assert judge.identity == {"kind": "oracle", "noise": 0, "seed": 5, "uses_labels": True}
    assert judge.facts == {"n_gold": 2, "n_turned": 0}


@pytest.mark.parametrize("noise", [0.1, 0.25, 0.5])
def test_as_many_answers_are_turned_round_as_the_noise_says(noise):
    triplets = make_triplets()
    turned = count_turned(ask(triplets, noise, seed=1), triplets)
    assert abs(turned - N * noise) < 4 * (N * noise * (1 - noise)) ** 0.5


def test_an_answer_depends_on_seed_row_and_noise_alone():
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
    triplets, texts = make_triplets(40), list("qab")
    whole = judge_triplets(OracleJudge(triplets, 0.3, 7), triplets, texts, Output(tmp_path / "a.json", "judgments", {}))

    class Killed(OracleJudge):
        def judge(self, questions):
            for opinion in super().judge(questions):
                if opinion.row == 15:
                    raise KeyboardInterrupt
                yield opinion

    output = Output(tmp_path / "b.json", "judgments", {})
    with pytest.raises(KeyboardInterrupt):
        judge_triplets(Killed(triplets, 0.3, 7), triplets, texts, output)
    assert judge_triplets(OracleJudge(triplets, 0.3, 7), triplets, texts, output) == whole


@pytest.mark.parametrize("noise", [-0.01, 0.51, float("nan")])
def test_noise_out_of_range_is_refused(noise):
    with pytest.raises(DataError, match=r"the oracle's noise is .*; it must lie between 0 and 0\.5"):
        OracleJudge(make_triplets(3), noise, 0)


@pytest.mark.parametrize("golds", [[], [None, None], ["both", None]])
def test_triplets_without_gold_answers_are_refused(golds):
    with pytest.raises(DataError, match=rf"none of the {len(golds)} triplets has a gold answer: an oracle needs"):
        OracleJudge([Triplet(0, 1, 2, gold) for gold in golds], 0.1, 0)
