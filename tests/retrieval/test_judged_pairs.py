import importlib
from dataclasses import replace

import numpy as np
import pytest
from helpers import write_jsonl

from perspective.artifacts import LABELS, ROOT, Judgment, Output, read_record
from perspective.artifacts.jsonl import read_jsonl
from perspective.data.pairs import Pair, load_pairs
from perspective.errors import DataError
from perspective.judging.protocol import NO_ANSWER, judgment_from_probabilities
from perspective.retrieval.embedding import EmbeddedTexts
from perspective.retrieval.judged_pairs import (
    PairJudgingSettings,
    create_corpus_questions,
    create_pair_questions,
    load_or_collect_judgments,
    make_pairs,
    weight_pairs,
)


class Reader:
    """A judge that finds the text with the larger number at its end closer, as sure as is said."""

    def __init__(self, sure=0.9, position_bias=0.0):
        self.sure, self.position_bias = sure, position_bias
        self.n_asked = 0
        self.identity, self.facts = {"kind": "reader"}, {}

    def judge(self, questions):
        for question in questions:
            self.n_asked += 1
            first, second = (int(text.split()[-1]) for text in (question.choice1, question.choice2))
            sure = self.sure if first > second else 0.5 if first == second else 1 - self.sure
            forward, swapped = min(1.0, sure + self.position_bias), min(1.0, 1 - sure + self.position_bias)
            yield judgment_from_probabilities(question.triplet, forward, swapped)


@pytest.fixture
def pairs():
    """Documents score 5; each third pair has a hard negative that scores more."""
    return [
        Pair(f"query {i}", f"document {i} 5", (f"near {i} {9 if i % 3 == 0 else 2}", f"far {i} 1"), weight=0.5)
        for i in range(40)
    ] + [Pair("alone", "document 5")]


def ask(tmp_path, questions, judge, name="j.json", **options):
    output = Output(tmp_path / name, "judgments", {"kind": "reader"})
    return load_or_collect_judgments(questions, "tiny", output, "reader", lambda: judge, **options)


def test_pairs_are_weighed_and_false_negatives_dropped(tmp_path, pairs):
    questions = create_pair_questions(pairs, seed=1)
    assert len(questions.triplets) == 80
    texts = [[questions.texts[row] for row in triplet.key] for triplet in questions.triplets]
    n_first = sum(choice1.startswith("document") for _, choice1, _ in texts)
    assert 20 < n_first < 60  # the document is choice 1 by a coin
    weighed, facts = weight_pairs(pairs, questions, ask(tmp_path, questions, Reader()), 0.5)
    for i, (before, after) in enumerate(zip(pairs[:-1], weighed, strict=False)):
        is_false = i % 3 == 0
        assert after.hard_negatives == (before.hard_negatives[1:] if is_false else before.hard_negatives)
        assert after.weight == pytest.approx(0.5 * (0.5 if is_false else 0.9))
    assert weighed[-1] == pairs[-1]
    assert facts["n_dropped_negatives"] == 14 and facts["is_reliable"]
    assert facts["document_closer_fraction"] == pytest.approx(66 / 80)
    scored = [replace(pair, scores=tuple(range(1 + len(pair.hard_negatives)))) for pair in pairs]
    kept = weight_pairs(scored, questions, ask(tmp_path, questions, Reader()), 0.5)[0]
    assert [pair.scores for pair in kept[:2]] == [(0, 2), (0, 1, 2)] and kept[-1] == scored[-1]
    strict, _ = weight_pairs(pairs, questions, ask(tmp_path, questions, Reader()), 0.95)
    assert not any(pair.hard_negatives for pair in strict)


def test_questions_that_failed_say_nothing_and_are_asked_again(tmp_path, pairs):
    class Failing(Reader):
        def judge(self, questions):
            for place, judgment in enumerate(super().judge(questions)):
                yield (
                    replace(judgment, content=NO_ANSWER, prediction=(), probability=None, swapped_probability=None)
                    if (place % 4 == 3)
                    else judgment
                )

        @property
        def facts(self):
            return {"n_unanswered": self.n_asked // 4}

        @facts.setter
        def facts(self, value):
            pass

    questions = create_pair_questions(pairs, seed=1)
    judgments = ask(tmp_path, questions, Failing())
    failed = [place for place, judgment in enumerate(judgments) if judgment.probability is None]
    assert len(failed) == 20
    weighed, facts = weight_pairs(pairs, questions, judgments, 0.5)
    for place in failed:
        row = questions.pairs[place]
        _, *choices = (questions.texts[text] for text in questions.triplets[place].key)
        assert set(weighed[row].hard_negatives) & set(choices)  # the negative stays
    again = Reader()
    assert all(judgment.probability is not None for judgment in ask(tmp_path, questions, again))
    assert again.n_asked == 20


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (Reader(0.55, position_bias=0.4), "judge unreliable, its answers are not used"),
        (Reader(0.1), "prefers documents to hard negatives no more often than a guess: the pairs are unchanged"),
    ],
)
def test_a_judge_that_follows_position_or_prefers_negatives_changes_nothing(tmp_path, pairs, judge, message, caplog):
    questions = create_pair_questions(pairs, seed=1)
    weighed, facts = weight_pairs(pairs, questions, ask(tmp_path, questions, judge), 0.5)
    assert weighed == pairs and facts["unchanged"]
    assert message in caplog.text


def test_answers_are_kept_and_no_question_is_asked_twice(tmp_path, pairs):
    questions = create_pair_questions(pairs, seed=1)

    class Killed(Reader):
        def judge(self, questions):
            for judgment in super().judge(questions):
                if self.n_asked > 50:
                    raise RuntimeError("killed")
                yield judgment

    with pytest.raises(RuntimeError, match="killed"):
        ask(tmp_path, questions, Killed())
    again = Reader()
    judgments = ask(tmp_path, questions, again)
    assert again.n_asked == 80 - 50
    assert judgments == ask(tmp_path, questions, None, overwrite=True)  # no judge is needed any more
    other = Output(tmp_path / "j.json", "judgments", {"kind": "another"})
    with pytest.raises(DataError, match="made with other kind"):
        load_or_collect_judgments(questions, "tiny", other, "reader", Reader)
    assert len(load_or_collect_judgments(questions, "tiny", other, "reader", Reader, overwrite=True)) == 80


def embed(n_queries, n_documents):
    def point(angle):
        return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)

    return EmbeddedTexts(
        None,
        {f"query {i}": point(i / 10) for i in range(n_queries)},
        {f"document {i}": point(i / 10 + 0.01) for i in range(n_documents)},
    )


def test_a_corpus_is_asked_about_by_rank(tmp_path):
    embedded = embed(30, 60)
    questions = create_corpus_questions(embedded, PairJudgingSettings(top_k=4, triplets_per_query=2))
    assert len(questions.triplets) == 60
    nearest_first = 0
    for triplet in questions.triplets:
        query, *choices = (questions.texts[row] for row in triplet.key)
        own = int(query.split()[-1])
        ranks = {abs(int(text.split()[-1]) - own) for text in choices}
        assert 0 in ranks and max(ranks) <= 3  # its nearest, and one of the next three
        nearest_first += choices[0] == f"document {own}"
    assert 15 < nearest_first < 45
    made, facts = make_pairs(questions, ask(tmp_path, questions, Reader()))
    assert facts["is_reliable"] and len(made) == 60
    for pair in made:
        assert int(pair.document.split()[-1]) > int(pair.hard_negatives[0].split()[-1])
        assert pair.weight == pytest.approx(0.8)
    with pytest.raises(DataError, match="no training pairs: this judge is unreliable here"):
        make_pairs(questions, ask(tmp_path, questions, Reader(0.55, 0.4), "other.json"))


def test_a_query_that_is_a_document_is_not_its_own_answer():
    embedded = embed(3, 6)
    both = EmbeddedTexts(None, embedded.queries, {**embedded.queries, **embedded.documents})
    for triplet in (questions := create_corpus_questions(both, PairJudgingSettings(top_k=3))).triplets:
        query, *choices = (questions.texts[row] for row in triplet.key)
        assert query not in choices


def test_settings_and_data_that_do_not_fit(pairs):
    with pytest.raises(DataError, match="--triplets_per_query 3"):
        PairJudgingSettings(top_k=3, triplets_per_query=3)
    with pytest.raises(DataError, match="no pair has a hard negative"):
        create_pair_questions(pairs[-1:], 0)
    with pytest.raises(DataError, match="two are needed"):
        create_corpus_questions(embed(2, 1), PairJudgingSettings())
    one, two = embed(2, 0).queries.items()
    with pytest.raises(DataError, match="no query has two documents to compare"):
        create_corpus_questions(EmbeddedTexts(None, dict([one]), dict([one, two])), PairJudgingSettings())


def run(*arguments):
    importlib.import_module("perspective.6_retrieval.judge_pairs").main([str(argument) for argument in arguments])


@pytest.mark.parametrize("by_corpus", [False, True])
def test_a_coin_that_answers_in_words_is_not_trusted(by_corpus, pairs, caplog):
    if by_corpus:
        questions = create_corpus_questions(embed(100, 200), PairJudgingSettings())
    else:
        questions = create_pair_questions(pairs, seed=1)
    answers = np.random.default_rng(0).choice(LABELS, len(questions.triplets))
    judgments = [Judgment(*both) for both in zip(questions.triplets, map(lambda a: (a,), answers), strict=True)]
    if by_corpus:
        with pytest.raises(DataError, match="no training pairs"):
            make_pairs(questions, judgments)
    else:
        assert weight_pairs(pairs, questions, judgments, 0.5)[0] == pairs
        assert "no more often than a guess" in caplog.text


@pytest.mark.parametrize("kind", ["choice", "pair", "answer"])
def test_stage_on_pairs(tmp_path, llm_folder, pairs, kind):
    records = [{"query": p.query, "document": p.document, "hard_negative": p.hard_negatives[0]} for p in pairs[:-1]]
    train_file = write_jsonl(tmp_path / "train.jsonl", records)
    options = ["--dataset", "tiny", "--llm", llm_folder, "--judge", kind, "--train_file", train_file]
    run(*options, "--output_path", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.jsonl")
    judged = load_pairs(path)
    record = read_record(path)
    assert record.judge.figures["n_judgments"] == len(judged) == 40
    assert record.judge.kind == kind
    unchanged = judged == load_pairs(train_file)
    assert unchanged == record.unchanged
    assert path.with_name(path.stem + "-judgments.json").exists()
    assert not list((tmp_path / "out").glob("*.partial*"))
    run(*options, "--output_path", tmp_path / "out")  # finished: nothing is asked
    run(*options, "--output_path", tmp_path / "out", "--min_probability", 0.6, "--overwrite")


def test_other_recorded_answers_are_noticed(tmp_path, llm_folder, pairs, capsys):
    records = [{"query": p.query, "document": p.document, "hard_negative": p.hard_negatives[0]} for p in pairs[:-1]]
    options = ["--dataset", "tiny", "--train_file", write_jsonl(tmp_path / "train.jsonl", records)]
    options += ["--output_path", tmp_path / "out"]
    run(*options, "--llm", llm_folder, "--judge", "pair")
    (answers,) = (tmp_path / "out").glob("*-judgments.json")
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(answers.read_text())
    bad.write_text(answers.read_text().replace("Choice 1", "Choice 3"))
    run(*options, "--recorded_path", good)
    with pytest.raises(SystemExit):
        run(*options, "--recorded_path", bad)
    assert "made with other recorded" in capsys.readouterr().err


@pytest.mark.real
def test_stage_on_a_corpus(tmp_path, llm_folder, capsys):
    texts = [record["input"] for _, record in read_jsonl(ROOT / "datasets" / "demo" / "small.jsonl")][::2]
    corpus = write_jsonl(
        tmp_path / "corpus.jsonl", [{"_id": str(i), "text": text} for i, text in enumerate(texts[40:])]
    )
    queries = write_jsonl(tmp_path / "queries.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(texts[:40])])
    options = ["--dataset", "tiny", "--embedder", "minilm", "--judge", "answer", "--perspective", "intent"]
    options += ["--corpus_path", corpus, "--queries_path", queries, "--output_path", tmp_path / "out"]
    options += ["--top_k", 40, "--triplets_per_query", 5]
    run(*options, "--llm", "smollm2")
    (path,) = (tmp_path / "out").glob("*.jsonl")
    judged = load_pairs(path)
    assert len(judged) > 20 and all(len(pair.hard_negatives) == 1 and pair.source == "judged" for pair in judged)
    with pytest.raises(SystemExit, match="2"):
        run(*options, "--llm", llm_folder)  # random weights: its answers agree with nothing
    assert "no training pairs: this judge is unreliable here" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run("--dataset", "tiny", "--corpus_path", corpus)
