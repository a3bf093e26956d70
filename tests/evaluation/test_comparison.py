import csv
import io
import json

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
from perspective.training.history import draw_loss


def measures(acc, nmi=(70, 70, 70), ari=(50, 50, 50)):
    found = {"ACC": list(acc), "NMI": list(nmi), "ARI": list(ari)}
    for metric in ("ACC", "NMI", "ARI"):
        found |= {f"{metric}_mean": float(np.mean(found[metric])), f"{metric}_std": float(np.std(found[metric]))}
    return found


@pytest.fixture
def make_comparison():
    def make(before=(60, 62, 64), after=(65, 67, 69), unchanged=False, published=None, dataset="banking77"):
        return Comparison(dataset, "minilm", "smollm2", unchanged, measures(before), measures(after), published)

    return make


@pytest.mark.parametrize(
    ("after", "unchanged", "verdict"),
    [
        ((65, 67, 69), False, "gain"),  # by 5 for each seed, though the seeds lie 4 apart
        ((55, 57, 59), False, "loss"),
        ((70, 62, 56), False, "within spread"),  # by 0.67 on average, 7.4 to and fro
        ((60, 62, 64), False, "within spread"),
        ((65, 67, 69), True, "unchanged"),
    ],
)
def test_a_difference_within_the_spread_is_none(make_comparison, after, unchanged, verdict):
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
    acc = ("banking77", "minilm", "smollm2", "ACC", "62.00 ± 1.63", "67.00 ± 1.63", "+5.00 ± 0.00", "gain")
    assert rows[0] == (*acc, "64.10 -> 68.25")
    assert rows[1][3:] == ("NMI", "70.00 ± 0.00", "70.00 ± 0.00", "+0.00 ± 0.00", "within spread", "")
    assert rows[3][0] == "mtop, domain"
    assert rows[3][6:8] == ("-1.00 ± 0.00", "loss")
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
    assert text.startswith("---\ntags: []\n---\n# Model\n\nTrained on 512 triplets.\n\n## Measured\n\n| data set |")
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


def write_record(checkpoint, **record):
    made = Output(checkpoint, "embedder", {})
    made.record = ResultRecord(**record)
    made.write_json({})


def test_load_comparison(run):
    one = load_comparison(*run, "banking77", "gte")
    assert (one.judge, one.unchanged, one.verdict("ACC")) == ("smollm2", False, "gain")
    assert one.published == {"ACC": (1, 2), "NMI": (3, 4), "ARI": (5, 6)}
    # The published figures stand beside the same embedder and data set only.
    assert load_comparison(*run, "banking77", "minilm").published is None
    assert load_comparison(*run, "demo", "gte").published is None
    write_record(run[2], unchanged=True)
    assert load_comparison(*run, "demo", "gte").unchanged
    sidecar_path(run[2]).unlink()
    assert (load_comparison(*run, "demo", "gte").judge, load_comparison(*run, "demo", "gte").unchanged) == ("?", False)


def test_what_cannot_be_compared_is_named(run):
    before, after, _ = run
    after.write_text('{"n_clusters_estimated": 5}')
    with pytest.raises(DataError, match=r"after\.json: measured without labels"):
        load_comparison(*run, "banking77", "gte")
    after.unlink()
    with pytest.raises(DataError, match=r"after\.json: no such file; run .*get_finetuned_embedding_gte\.sh first"):
        load_comparison(*run, "banking77", "gte")
    before.unlink()
    with pytest.raises(DataError, match=r"before\.json: no such file; run .*/get_embedding_gte\.sh first"):
        load_comparison(*run, "banking77", "gte")
