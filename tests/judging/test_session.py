import itertools
import json
import os
import subprocess
import sys

import pytest
from helpers import stage_environment

from perspective.artifacts import ROW_FIELDS, Judgment, Output, Triplet, read_sidecar
from perspective.errors import DataError
from perspective.judging.protocol import NO_ANSWER, is_unanswered, judgment_from_probabilities
from perspective.judging.session import judge_triplets, lock_judgments, partial_path

TEXTS = ["top up", "card \u2028 lost", "한국어", "line\nfeed", "rain"]
TRIPLETS = [Triplet(*rows) for rows in itertools.permutations(range(5), 3)][::5]


class DyingJudge:
    """Answers from the question's texts, last question first, and dies after `lives` answers."""

    def __init__(self, lives=100):
        self.identity, self.facts, self.lives, self.asked = {}, {}, lives, []

    def judge(self, questions):
        for question in reversed(questions):
            if self.lives == 0:
                raise KeyboardInterrupt
            self.lives -= 1
            self.asked.append(TRIPLETS.index(question.triplet))
            yield judgment_from_probabilities(
                question.triplet, len(question.query) / 20, 0.1 / 3, question.choice1, "\u2028"
            )


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path / "results" / "run-pred.json", "judgments", {"seed": 1})


@pytest.fixture
def whole(tmp_path):
    """What a run that nothing interrupts gives."""
    return judge_triplets(DyingJudge(), TRIPLETS, TEXTS, Output(tmp_path / "whole.json", "judgments", {}))


def run_until_death(lives, output):
    judge = DyingJudge(lives)
    with pytest.raises(KeyboardInterrupt):
        judge_triplets(judge, TRIPLETS, TEXTS, output)
    return judge.asked


def test_one_judgment_a_triplet_in_order(whole):
    assert [judgment.triplet for judgment in whole] == TRIPLETS
    for judgment in whole:
        expected = judgment_from_probabilities(judgment.triplet, len(TEXTS[judgment.triplet.query_idx]) / 20, 0.1 / 3)
        assert judgment == Judgment(
            judgment.triplet,
            expected.prediction,
            TEXTS[judgment.triplet.choice1_idx],
            "\u2028",
            expected.probability,
            expected.swapped_probability,
        )


@pytest.mark.parametrize("lives", [1, 7, 11])
def test_a_killed_run_asks_only_the_rest(lives, output, whole):
    asked = run_until_death(lives, output)
    again = DyingJudge()
    assert judge_triplets(again, TRIPLETS, TEXTS, output) == whole
    assert sorted(asked + again.asked) == list(range(12))
    third = DyingJudge(0)  # all is answered: nobody is asked
    assert judge_triplets(third, TRIPLETS, TEXTS, output) == whole


def test_killed_again_and_again(output, whole):
    asked = [row for lives in (3, 1, 4) for row in run_until_death(lives, output)]
    last = DyingJudge()
    assert judge_triplets(last, TRIPLETS, TEXTS, output) == whole
    assert sorted(asked + last.asked) == list(range(12))


def test_every_place_of_a_cut_is_survived(output, whole):
    run_until_death(3, output)
    partial = partial_path(output.path)
    written = partial.read_bytes()
    last_line = written[:-1].rfind(b"\n") + 1
    for cut in (0, 1, 20, last_line - 1, last_line, last_line + 1, len(written) - 5, len(written) - 1):
        partial.write_bytes(written[:cut])
        judge = DyingJudge()
        assert judge_triplets(judge, TRIPLETS, TEXTS, output) == whole
        kept = max(0, written[:cut].count(b"\n") - 1)  # the first line is the fingerprint
        assert len(judge.asked) == 12 - kept
        lines = partial.read_text(encoding="utf-8").split("\n")
        assert json.loads(lines[0]) == output.fingerprint.model_dump()
        kept_keys = {tuple(json.loads(line)[name] for name in ROW_FIELDS) for line in lines[1:-1]}
        assert kept_keys == {triplet.key for triplet in TRIPLETS} and len(lines[1:-1]) == 12


def test_a_partial_file_of_other_settings_is_refused(output, tmp_path):
    run_until_death(2, output)
    before = partial_path(output.path).read_bytes()
    other = Output(output.path, "judgments", {"seed": 2})
    with pytest.raises(DataError, match=r"partial\.jsonl: an unfinished run with other inputs or settings"):
        judge_triplets(DyingJudge(), TRIPLETS, TEXTS, other)
    assert partial_path(output.path).read_bytes() == before
    source = tmp_path / "triplets.json"
    source.write_text("[]")
    with pytest.raises(DataError, match="an unfinished run"):
        other = Output(output.path, "judgments", {"seed": 1}, {"triplets": source})
        judge_triplets(DyingJudge(), TRIPLETS, TEXTS, other)


def test_answers_outlive_triplets_that_are_sampled_again(tmp_path, whole):
    """More answers to earlier triplets give other ones: what both ask is not asked twice."""
    source = tmp_path / "triplets.json"

    def make_output():
        return Output(tmp_path / "run-pred.json", "judgments", {}, {"triplets": source})

    sampled = Output(source, "triplets", {})
    sampled.write_json(["earlier"])
    run_until_death(5, make_output())
    sampled.replace(read_sidecar(source))
    sampled.write_json(["later"])
    again = DyingJudge()
    assert judge_triplets(again, TRIPLETS[4:], TEXTS, make_output()) == whole[4:]
    assert sorted(again.asked) == [4, 5, 6]


def test_a_judge_that_forgets_a_question_is_not_sealed(output, whole):
    class Forgetful(DyingJudge):
        def judge(self, questions):
            return super().judge(questions[1:])

    with pytest.raises(DataError, match="1 of 12 triplets have no judgment; run the same command again"):
        judge_triplets(Forgetful(), TRIPLETS, TEXTS, output)
    judge = DyingJudge()
    assert judge_triplets(judge, TRIPLETS, TEXTS, output) == whole
    assert judge.asked == [0]


def test_a_partial_file_without_answers_gives_way(output, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        judge_triplets(DyingJudge(lives=0), TRIPLETS, TEXTS, output)
    assert partial_path(output.path).exists()
    other = Output(output.path, "judgments", {"seed": 2})
    assert len(judge_triplets(DyingJudge(), TRIPLETS, TEXTS, other)) == len(TRIPLETS)


def test_two_processes_do_not_ask_the_same_questions(output, whole):
    refused = pytest.raises(DataError, match=rf"process {os.getpid()} on \S+ is working on this file")
    with lock_judgments(output.path):
        with refused, lock_judgments(output.path):
            pass
        assert judge_triplets(DyingJudge(), TRIPLETS, TEXTS, output) == whole
    assert not list(output.path.parent.glob("*.lock"))
    with lock_judgments(output.path):  # free again
        assert output.path.with_name(f"{output.path.name}.lock").exists()


def test_a_lock_ends_with_its_process(output):
    """A killed process leaves its file, which locks nothing."""
    held = output.path.with_name(f"{output.path.name}.lock")
    code = (
        "import os, pathlib, sys; from perspective.judging.session import lock_judgments\n"
        "with lock_judgments(pathlib.Path(sys.argv[1])): os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(output.path)], env=stage_environment())
    assert done.returncode == 9 and held.exists()
    with lock_judgments(output.path):
        assert held.read_text().startswith(f"process {os.getpid()} on ")


def test_questions_that_failed_are_asked_again(output, whole):
    class Failing(DyingJudge):
        def judge(self, questions):
            for judgment in super().judge(questions):
                failed = Judgment(judgment.triplet, (), "prompt", f"{NO_ANSWER}500: oops")
                yield failed if TRIPLETS.index(judgment.triplet) in (3, 4) else judgment

    judgments = judge_triplets(Failing(), TRIPLETS, TEXTS, output)
    assert [i for i, judgment in enumerate(judgments) if is_unanswered(judgment)] == [3, 4]
    again = DyingJudge()
    assert judge_triplets(again, TRIPLETS, TEXTS, output) == whole
    assert sorted(again.asked) == [3, 4]
    # Likewise from a finished file.
    partial_path(output.path).unlink()
    again = DyingJudge()
    assert judge_triplets(again, TRIPLETS, TEXTS, output, earlier=judgments) == whole
    assert sorted(again.asked) == [3, 4]


def test_what_is_spent_after_the_last_answer_is_kept(output):
    class Spending(DyingJudge):
        def __init__(self, lives=100):
            super().__init__(lives)
            self.facts = {"prompt_tokens": 0, "n_answered": 0}

        def judge(self, questions):
            try:
                for judgment in super().judge(questions):
                    self.facts["prompt_tokens"] += 10
                    yield judgment
            finally:
                self.facts["prompt_tokens"] += 7  # a request without an answer

    first, second = Spending(3), Spending()
    with pytest.raises(KeyboardInterrupt):
        judge_triplets(first, TRIPLETS, TEXTS, output)
    judge_triplets(second, TRIPLETS, TEXTS, output)
    assert second.facts == {"prompt_tokens": 12 * 10 + 7 + 7, "n_answered": 3}


def test_judgments_of_a_finished_file_are_not_asked_again(output, whole):
    judge = DyingJudge()
    assert judge_triplets(judge, TRIPLETS, TEXTS, output, earlier=whole[:5]) == whole
    assert sorted(judge.asked) == list(range(5, 12))


def test_a_partial_file_of_blank_lines_is_one_line(output):
    partial = partial_path(output.path)
    partial.parent.mkdir(parents=True)
    partial.write_text("\n\n")
    with pytest.raises(DataError, match="has no first line that says what it was made from; remove it"):
        judge_triplets(DyingJudge(), TRIPLETS, TEXTS, output)
