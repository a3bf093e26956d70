import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from perspective.artifacts import JudgeRecord, Output, ResultRecord, sidecar_path
from perspective.errors import DataError
from perspective.evaluation import comparison
from perspective.evaluation.comparison import (
    COLUMNS,
    Comparison,
    add_measures_to_card,
    draw_comparison,
    format_csv,
    format_markdown,
    format_text,
    load_comparison,
    make_rows,
)
from perspective.evaluation.intervals import measure_text_variance
from perspective.training.history import draw_loss


def measures(acc, nmi=(70, 70, 70), ari=(50, 50, 50)):
    found = {"ACC": list(acc), "NMI": list(nmi), "ARI": list(ari)}
    for metric in ("ACC", "NMI", "ARI"):
        found |= {f"{metric}_mean": float(np.mean(found[metric])), f"{metric}_std": float(np.std(found[metric]))}
    return found


@pytest.fixture
def make_comparison():
    def make(before=(60, 62, 64), after=(65, 67, 69), unchanged=False, published=None, dataset="banking77"):
        runs = [measures(run) for run in (after if np.ndim(after) > 1 else [after])]
        return Comparison(dataset, "minilm", "smollm2", unchanged, measures(before), runs, published)

    return make


@pytest.mark.parametrize(
    ("after", "unchanged", "verdict"),
    [
        ([(75, 77, 79), (76, 78, 80), (74, 77, 79)], False, "gain"),
        ([(45, 47, 49), (46, 48, 50), (44, 47, 49)], False, "loss"),
        ([(61, 62, 63), (66, 67, 68), (62, 63, 64)], False, "undecided"),  # 2 more, but runs 5 apart
        ([(75, 77, 79), (76, 78, 80)], False, "two training seeds"),
        ([(75, 77, 79)], False, "one training seed"),  # by 15 for each k-means seed: still one run
        ([(75, 77, 79), (76, 78, 80), (74, 77, 79)], True, "unchanged"),
    ],
)
def test_a_verdict_needs_three_training_seeds_that_agree(make_comparison, after, unchanged, verdict):
    one = make_comparison(after=after, unchanged=unchanged)
    assert one.verdict("ACC") == verdict
    assert one.difference("ACC") == pytest.approx(np.mean(after) - 62)
    assert one.spread("ACC") == pytest.approx(np.std(np.array(after) - [60, 62, 64]))


def test_tables_hold_the_same_cells(make_comparison):
    both = [
        make_comparison(published={"ACC": (64.1, 68.25)}),
        make_comparison(after=(59, 61, 63), dataset="mtop, domain"),
    ]
    rows = make_rows(both)
    acc = ("banking77", "minilm", "smollm2", "ACC", "62.00 ± 1.63", "67.00 ± 1.63", "+5.00", "one training seed")
    assert rows[0] == (*acc, "64.10 -> 68.25")
    assert rows[1][3:] == ("NMI", "70.00 ± 0.00", "70.00 ± 0.00", "+0.00", "one training seed", "")
    assert rows[3][0] == "mtop, domain"
    assert rows[3][6:8] == ("-1.00", "one training seed")
    assert list(csv.reader(io.StringIO(format_csv(both)))) == [list(row) for row in (COLUMNS, *rows)]
    text = format_text(both).split("\n")
    assert len(text) == 7
    assert [line.index("ACC") for line in (text[1], text[4])] == [text[0].index("metric")] * 2  # columns line up
    markdown = format_markdown(both).split("\n")
    assert markdown[1] == "|" + " --- |" * len(COLUMNS)
    assert markdown[2] == "| " + " | ".join(rows[0]) + " |"


def test_pictures_are_whole_and_the_same_each_time(make_comparison, tmp_path):
    both = [make_comparison(), make_comparison(dataset="mtop_domain")]
    for name in ("a.png", "b.png"):
        draw_comparison(both, tmp_path / name)
    draw_loss(range(1, 101), np.linspace(3, 1, 100), tmp_path / "loss.png")
    draw_loss([1], [2.0], tmp_path / "one.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 5  # something is drawn
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_card_gets_the_measures_once(make_comparison, tmp_path):
    card = tmp_path / "README.md"
    add_measures_to_card(tmp_path, make_comparison())
    assert not card.exists()  # no card, none made
    card.write_text("---\ntags: []\n---\n# Model\n\nTrained on 512 triplets.\n")
    for after in ((55, 57, 59), (65, 67, 69)):
        add_measures_to_card(tmp_path, make_comparison(after=after))
    text = card.read_text()
    assert text.startswith("---\ntags: []\n---\n# Model\n\nTrained on 512 triplets.\n\n## Measured\n\nThe embedder was")
    assert "Measured over one training seed.\n\n| data set |" in text
    assert text.count("## Measured") == 1
    assert "+5.00" in text
    assert "-5.00" not in text


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The files of one run."""
    published = {"embedder": "gte", "results": {"banking77": {"ACC": [1, 2], "NMI": [3, 4], "ARI": [5, 6]}}}
    (tmp_path / "published.json").write_text(json.dumps(published))
    monkeypatch.setattr(comparison, "PUBLISHED", tmp_path / "published.json")
    before, after, checkpoint = tmp_path / "before.json", tmp_path / "after.json", tmp_path / "checkpoint"
    before.write_text(json.dumps(measures((60, 62, 64))))
    after.write_text(json.dumps(measures((65, 67, 69))))
    write_record(checkpoint, judge=JudgeRecord(name="smollm2"))
    return before, after, checkpoint


def write_record(checkpoint, settings=None, content=None, **record):
    made = Output(checkpoint, "embedder", settings or {})
    made.record = ResultRecord(**record)
    made.write_json(content or {})


def edit_sidecar(path, **changes):
    sidecar = sidecar_path(path)
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | changes))


def write_measures(path, scores, label_column="label", **inputs):
    Output(path, "measures", {"label_column": label_column}, inputs).write_json(measures(scores))


def write_vectors(path, checkpoint, value, **settings):
    output = Output(path, "embeddings", settings, {"checkpoint": checkpoint})
    output.write_vectors(np.full((2, 2), value, dtype=np.float32))


def compare(run, dataset, embedder, n_seeds=1, **more):
    before, after, checkpoint = run
    return load_comparison(
        before, [after] * n_seeds, [checkpoint] * n_seeds, dataset, embedder, with_texts=True, **more
    )


def test_load_comparison(run):
    one = compare(run, "banking77", "gte")
    assert (one.judge, one.unchanged, one.verdict("ACC")) == ("smollm2", False, "one training seed")
    assert one.published == {"ACC": (1, 2), "NMI": (3, 4), "ARI": (5, 6)}
    # The published figures stand beside the same embedder and data set only.
    assert compare(run, "banking77", "minilm").published is None
    assert compare(run, "demo", "gte").published is None
    assert compare(run, "banking77", "gte", scale="large").published is None
    write_record(run[2], unchanged=True, judge=JudgeRecord(name="oracle-0", uses_labels=True))
    assert compare(run, "demo", "gte").unchanged and compare(run, "demo", "gte").judge == "oracle-0, by labels"
    # Unchanged are several seeds only together.
    trained = run[2].with_name("trained")
    write_record(trained, judge=JudgeRecord(name="oracle-0", uses_labels=True))
    both = load_comparison(run[0], [run[1]] * 2, [run[2], trained], "demo", "gte")
    assert (both.unchanged, both.judge) == (False, "oracle-0, by labels")
    sidecar_path(run[2]).unlink()
    assert (compare(run, "demo", "gte").judge, compare(run, "demo", "gte").unchanged) == ("?", False)


def test_what_cannot_be_compared_is_named(run):
    before, after, _ = run
    after.write_text('{"n_clusters_estimated": 5}')
    with pytest.raises(DataError, match=r"after\.json: measured without labels"):
        compare(run, "banking77", "gte")
    after.unlink()
    with pytest.raises(DataError, match=r"after\.json: no such file; run .*get_finetuned_embedding_gte\.sh first"):
        compare(run, "banking77", "gte")
    before.unlink()
    with pytest.raises(DataError, match=r"before\.json: no such file; run .*/get_embedding_gte\.sh first"):
        compare(run, "banking77", "gte")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: write_record(run.other, {"seed": 7, "num_train_epochs": 9}), "other: trained with other settings"),
        (
            lambda run: write_record(run.other, {"seed": 7}, judge=JudgeRecord(name="gpt")),
            "another judge or version than first",
        ),
        (lambda run: edit_sidecar(run.other, method_version=1), "another judge or version than first"),
        (lambda run: edit_sidecar(run.other, precision="bfloat16"), "trained with other settings"),
        (
            lambda run: write_measures(run.after[1], (65, 67, 69), label_column="intent", texts=run.texts),
            "other texts or labels than",
        ),
        (lambda run: edit_sidecar(run.after[1], inputs={"texts": "0" * 64}), "other texts or labels than"),
        (
            lambda run: write_measures(run.after[1], (65, 67), texts=run.texts),
            "over another number of seeds than before",
        ),
        (lambda run: run.after[1].write_text('{"ACC": "x"}'), "ACC is 'x', not a list of figures"),
        (lambda run: run.after[1].write_text("5"), "expected an object, found int"),
        (lambda run: write_vectors(run.vectors, run.first, 2), "of other vectors than are there now"),
        (lambda run: write_vectors(run.base, run.texts, 1, embedder="e5"), "of another embedder than first began with"),
        (lambda run: edit_sidecar(run.base, precision="bfloat16"), "in None, before_measures.json in bfloat16"),
        (lambda run: write_record(run.first, {"seed": 3}, content={"trained": "again"}), "not of first as it is now"),
    ],
)
def test_only_runs_that_belong_together_are_compared(tmp_path, change, message):
    run = SimpleNamespace(first=tmp_path / "first", other=tmp_path / "other", before=tmp_path / "before_measures.json")
    run.after, run.vectors = [tmp_path / f"{name}_measures.json" for name in ("a", "b")], tmp_path / "a.npy"
    for checkpoint, seed in ((run.first, 3), (run.other, 7)):
        write_record(checkpoint, {"seed": seed}, judge=JudgeRecord(name="smollm2"))
    run.texts = tmp_path / "texts.jsonl"
    run.texts.write_text("{}")
    run.base = tmp_path / "before.npy"
    write_vectors(run.base, run.texts, 1)
    write_measures(run.before, (60, 62, 64), texts=run.texts)
    write_vectors(run.vectors, run.first, 1)
    write_measures(run.after[0], (65, 67, 69), texts=run.texts, embeddings=run.vectors)
    write_measures(run.after[1], (65, 67, 69), texts=run.texts)

    def load():
        return load_comparison(run.before, run.after, [run.first, run.other], "demo", "minilm")

    assert load().difference("ACC") == 5
    change(run)
    with pytest.raises(DataError, match=message):
        load()


def test_three_training_seeds_are_also_compared_over_texts(run):
    """The clusterings beside the measures give the variance over texts, which makes the interval longer."""
    before, after, checkpoint = (run[0].with_name("a_measures.json"), run[1].with_name("b_measures.json"), run[2])
    run[0].rename(before)
    run[1].rename(after)
    moved = (before, after, checkpoint)
    with pytest.raises(DataError, match=r"a_clusterings\.npy: no such file; run .*get_embedding_gte\.sh again"):
        compare(moved, "demo", "minilm", 3)
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=80)
    runs = {name: rng.integers(4, size=(3, 80)) for name in ("a", "b")}
    for name, clusterings in runs.items():
        np.save(before.with_name(f"{name}_clusterings.npy"), np.stack([labels, *clusterings]) * 1.0)
    one = compare(moved, "demo", "minilm", 3)
    assert one.text_variance == measure_text_variance(labels, runs["a"], np.tile(runs["b"], (3, 1)))
    assert one.text_variance["ACC"] > 1
    assert one.verdict("ACC") == "undecided"  # 5 points on 80 texts
    np.save(after.with_name("b_clusterings.npy"), np.zeros((4, 80)))
    with pytest.raises(DataError, match=r"b_clusterings\.npy: made with other labels"):
        compare(moved, "demo", "minilm", 3)
