"""README and docs say what the committed JSON gives, and their links lead somewhere."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from perspective.artifacts import ROOT
from perspective.errors import DataError
from perspective.leaderboard import measured
from perspective.leaderboard.pages import study_tables
from perspective.leaderboard.pages.docs import FIGURE, TABLE, fill_page, list_pages

MAX_README_LINES = 180
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
MEASURED_FIGURE = re.compile(r"\d\d\.\d\d|\d\.\d+ ± |± \d")  # such as a score: it must come from the JSON
LINKED_PAGES = [*list_pages(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def name_page(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", list_pages(), ids=name_page)
def test_a_page_shows_what_the_json_gives(path):
    text = path.read_text(encoding="utf-8")
    assert fill_page(text, path.name) == text, f"{path.name} is stale: bash scripts/make_docs.sh"


@pytest.mark.parametrize("path", list_pages(), ids=name_page)
def test_no_measured_figure_is_written_by_hand(path):
    text = path.read_text(encoding="utf-8")
    by_hand = CODE.sub("", FIGURE.sub("", TABLE.sub("", text)))
    assert MEASURED_FIGURE.findall(by_hand) == []


@pytest.mark.parametrize("path", list_pages(), ids=name_page)
def test_no_line_of_prose_begins_with_a_marker(path):
    # Markdown takes a line that begins with a comment for a block of HTML, which ends the paragraph.
    assert re.findall(r"^\s*<!-- (?:=|/) .*", path.read_text(encoding="utf-8"), re.MULTILINE) == []


def test_the_picture_shows_what_the_json_gives():
    with Image.open(study_tables.PICTURE) as picture:
        assert json.loads(picture.text["Description"]) == study_tables.picture_data(), "bash scripts/make_docs.sh"


def test_the_picture_is_drawn_the_same_every_time(tmp_path):
    study_tables.draw_results(tmp_path / "one.png")
    study_tables.draw_results(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_a_readme_is_one_page(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_both_readmes_show_the_same_tables_and_commands():
    english, korean = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
    for pattern in (TABLE, FIGURE):
        assert [match[0] for match in pattern.finditer(english)] == [match[0] for match in pattern.finditer(korean)]
    calls = [re.findall(r"^(?:export|bash|hf) \S+", text, re.MULTILINE) for text in (english, korean)]
    assert calls[0] == calls[1] != []


@pytest.mark.parametrize("path", LINKED_PAGES, ids=name_page)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in LINK.findall(CODE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue  # an address on the net
        place, _, anchor = target.partition("#")
        linked = (path.parent / place) if place else path
        assert linked.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in list_anchors(linked), f"{path.name}: {target}"


def list_anchors(path: Path):
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKED_PAGES, ids=name_page)
def test_every_printed_script_exists(path):
    text = path.read_text(encoding="utf-8")
    for script in re.findall(r"\b((?:perspective|scripts)/[\w/]+\.sh)\b", text):
        assert (ROOT / script).exists(), f"{path.name}: {script}"


def test_a_stale_figure_is_replaced():
    page = (
        "Gain <!-- = gain smollm2 method mean ACC -->+9.99<!-- / -->, see\n"
        "<!-- table: published -->\nold\n<!-- end -->\n"
    )
    filled = fill_page(page, "page")
    gain = measured.show_gain("smollm2", "method", "mean", "ACC")
    assert f"-->{gain}<!-- / -->" in filled and "old" not in filled
    assert study_tables.tabulate_published() in filled
    assert fill_page(filled, "page") == filled


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- table: publishd -->\n<!-- end -->", "did you mean published"),
        ("<!-- table: published -->\nno end", "has no end"),
        ("<!-- = gain smollm2 method banking7 ACC --><!-- / -->", "did you mean banking77"),
        ("<!-- = gain smollm2 --><!-- / -->", "missing 3 required"),
        ("<!-- = score smollm2 method mean ACC -->1 <!-- = gain smollm2 method mean ACC -->1<!-- / -->", "has no end"),
    ],
)
def test_a_wrong_marker_is_named(page, message):
    with pytest.raises(DataError, match=message):
        fill_page(page, "page")


def test_means_are_over_the_four_data_sets():
    cells = measured.load_study("smollm2")
    scores = [[one for cell in cells[name]["method"].values() for one in cell["NMI"]] for name in measured.DATASETS]
    by_hand = [sum(of_dataset) / len(of_dataset) for of_dataset in scores]
    assert measured.mean_score("smollm2", "method", "mean", "NMI") == pytest.approx(sum(by_hand) / 4)
    assert measured.published_score("mean", "ACC", "before") == pytest.approx((65.53 + 31.08 + 91.69 + 40.61) / 4)
