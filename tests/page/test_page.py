"""The content of the page, and the page in a real browser."""

import base64
import json
import re
import sys
import time

import numpy as np
import pytest
from helpers import find_browser
from helpers import wait_for as wait_at_most
from page.page_files import ATTACK, describe

from perspective.artifacts import JudgeRecord, ResultRecord
from perspective.description.records import Name, Names
from perspective.page import assemble_page, build_content
from perspective.page.assembly import dump_for_html
from perspective.page.content import cut_texts
from perspective.page.verdict import _summarise, find_again, find_origins

TEXTS = [f"text number {i} about {('cards', 'rain', 'songs')[i % 3]}" for i in range(42)]


def decode(text, kind):
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def read_data(page):
    """The JSON of a page, as a browser reads it."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def test_the_verdict_names_whose_answers_are_trusted():
    trust = {"weight": 0.5, "consistency": 0.6, "background": 0.4}
    states = ResultRecord(judge=JudgeRecord(name="smollm2", kind="answer"))
    judged = ResultRecord(judge=JudgeRecord(name="gpt-server", kind="server"))
    assert _summarise(states, trust).startswith("The LLM (smollm2) was given 0.50 times")
    assert _summarise(judged, trust).startswith("The LLM whose answer states are used was given 0.50 times")
    assert _summarise(judged, trust).endswith("Before, the embedder had learned from the judgments of gpt-server.")
    assert "given 0.00 times the embedder's weight: it was set so, or there are too few texts" in _summarise(
        states, {"weight": 0.0, "consistency": None}
    )
    assert _summarise(judged, {}) == "The embedder learned from the judgments of gpt-server."


def test_content_holds_what_was_given():
    content = read_data(assemble_page(build_content(describe(TEXTS, [-1, *[i % 3 for i in range(41)]]))))
    assert content["texts"] == TEXTS and content["facts"] == "42 texts · 3 clusters · 6 outliers · by intent"
    assert decode(content["cluster"], "<i4").tolist() == [-1, *[i % 3 for i in range(41)]]
    assert content["clusters"][1] | {"examples": None} == {
        "id": 10,
        "name": "name of 1",
        "sentence": "Texts of kind 1.",
        "keywords": ["one", "two"],
        "source": "llm",
        "n_checked": 20,
        "n_nearest": 15,
        "check": 0.75,
        "merge_with": [],
        "size": 14,
        "cohesion": 0.8,
        "again": 0.75,
        "examples": None,
    }
    assert sorted(content["order"]) == [0, 1, 2] and content["tree"]["size"] == 41
    assert "75% of the texts checked" in content["names_note"]


def test_places_keep_their_shape():
    description = describe(TEXTS)
    content = build_content(description)
    for name in ("before", "after"):
        places = decode(content[name], "<u2").reshape(-1, 2) / 65535
        given = getattr(description.text_map, name)
        assert np.corrcoef(places[:, 0], given[:, 0])[0, 1] > 0.9999
        assert places.min() >= 0 and places.max() <= 1 and np.abs(places - 0.5).max() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(
    "hostile", [ATTACK, "</script><script>alert(1)//", "<!-- <script>", "\u2028\u2029&lt;", "\ud83d"]
)
def test_no_text_can_end_the_data(hostile):
    page = assemble_page(build_content(describe([hostile, *TEXTS], title=hostile)))
    assert len(re.findall(r"</script", page, re.IGNORECASE)) == 2  # of the data and of the page's own script
    assert hostile.replace("\ud83d", "?") in read_data(page)["texts"]
    assert "<img" not in page and "<!--" not in page
    dump_for_html(hostile).encode("utf-8")


def test_a_template_mark_in_a_text_stays_text():
    assert (
        "{{script}} {{data}}"
        in read_data(assemble_page(build_content(describe(["{{script}} {{data}}", *TEXTS]))))["texts"]
    )


def test_without_names_clusters_have_their_numbers():
    content = build_content(describe(TEXTS, names=None))
    assert [cluster["name"] for cluster in content["clusters"]] == ["cluster 0", "cluster 10", "cluster 20"]
    assert "name_clusters.sh" in content["names_note"]


def test_one_cluster_has_no_tree():
    content = build_content(describe(TEXTS, n_clusters=1, unchanged=True))
    assert content["tree"] is None and content["order"] == [0] and not content["has_before"]
    assert content["count"]["summary"].startswith("1 cluster:")


def test_long_texts_are_cut_so_that_the_page_stays_small():
    texts, length = cut_texts(["<" * 3000] * 9000)
    assert length == 300 and len(dump_for_html(texts)) < 17_500_000
    assert texts[0].endswith("…") and len(texts[0]) == 300


def test_measures_are_shown_only_with_labels():
    found = {
        f"{metric}_{part}": value for metric in ("ACC", "NMI", "ARI") for part, value in (("mean", 60), ("std", 1))
    }
    after = {name: value + 2 for name, value in found.items()} | {"n_clusters": 77, "seeds": [1, 2]}
    content = build_content(describe(TEXTS, measures=(found, after)))
    assert content["measures"][0] == ["ACC", "60.0 ± 1.0", "62.0 ± 3.0", "+2.0"]
    assert "(77)" in content["measures_note"]
    assert build_content(describe(TEXTS))["measures"] == []


def test_a_text_came_from_the_cluster_it_was_nearest_to():
    rng = np.random.default_rng(0)
    clusters = np.arange(60) % 3
    after = 3 * np.eye(3, 8)[clusters] + rng.standard_normal((60, 8)) / 5
    before = after.copy()
    before[0] = after[1]
    origins = find_origins(before, after, clusters, 3)
    assert origins[0] == 1 and np.array_equal(origins[1:], clusters[1:])
    assert find_origins(before, after, np.where(clusters == 0, -1, clusters), 3)[0] == -1


def test_clusters_are_found_again_as_far_as_they_are_stable():
    own = np.array([0, 0, 0, 1, 1, 1, -1])
    again = find_again(own, 3, [np.array([4, 4, 4, 2, 2, 7, 2])])
    assert again[0] == 1 and again[1] == 0.5  # also the text of no cluster is in the other one
    assert np.isnan(again[2])
    assert np.isnan(find_again(own, 3, [])).all()


# in a real browser


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="requirements-dev.txt is not installed")
    if not find_browser():
        pytest.skip("no Chromium: apt install chromium, or name one in CHROMIUM")
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox does not start for root, as whom containers run.
        browser = driver.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def load(browser, tmp_path):
    """Open a description's page from disk, without network; refuses any request and any error in the page."""
    opened = []

    def load(description, width=1200, height=800, **options):
        path = tmp_path / "the page é.html"
        path.write_text(assemble_page(build_content(description)), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        page = context.new_page()
        page.set_default_timeout(60_000)  # a busy machine is no fault
        page.asked, page.failures, page.refused = [], [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("requestfailed", lambda request: page.refused.append(request.failure))
        page.on("pageerror", lambda error: page.failures.append(str(error)))
        page.goto(path.as_uri())
        wait_for(page, "window.page && window.page.map.frameMilliseconds > 0")
        opened.append((page, path.as_uri()))
        return page

    yield load
    for page, address in opened:
        assert page.failures == [] and page.asked == [address]


def wait_for(page, condition):
    """Wait for an expression; Playwright's own way needs eval(), which the page's policy forbids."""
    wait_at_most(lambda: page.evaluate(condition), seconds=60)


def point_at(page, text):
    """Move the mouse to a text on the map."""
    box = page.locator("#labels").bounding_box()
    x, y = page.evaluate(f"page.map.toScreen({text})")
    page.mouse.move(box["x"] + x, box["y"] + y)
    return box["x"] + x, box["y"] + y


def colored_pixels(page):
    """Pixels of the map that differ from its ground."""
    return page.evaluate(
        """() => {
        const { width, height } = page.map.base;
        const pixels = new Uint32Array(page.map.base.getContext('2d').getImageData(0, 0, width, height).data.buffer);
        return pixels.reduce((sum, pixel) => sum + (pixel !== pixels[0]), 0);
    }"""
    )


@pytest.mark.slow
def test_hover_pick_search_and_switch(load):
    page = load(describe(TEXTS))
    assert colored_pixels(page) > 42 * 4
    point_at(page, 4)
    tip = page.locator("#tip")
    tip.wait_for()
    assert "text number 4 about rain" in tip.inner_text() and "name of 1" in tip.inner_text()

    x, y = point_at(page, 4)
    page.mouse.click(x, y)
    page.get_by_text("Texts of kind 1.").wait_for()  # the cluster of the text opens
    assert page.locator("#note").inner_text().startswith("14 of 42 texts marked")

    page.fill("#query", "SONGS")
    page.get_by_role("tab", name="Search 14").wait_for()
    assert page.locator(".item mark").first.inner_text() == "songs"
    page.fill("#query", "no such words")
    page.get_by_text("No text holds these words").wait_for()
    page.fill("#query", "")
    page.get_by_role("tab", name="Search").wait_for(state="detached")

    after = page.evaluate("page.map.toScreen(4)")
    page.get_by_text("before", exact=True).first.click()
    wait_for(page, "page.map.time === 0")
    before = page.evaluate("page.map.toScreen(4)")
    assert np.hypot(*np.subtract(before, after)) > 20
    page.get_by_text("after", exact=True).first.click()
    wait_for(page, "page.map.time === 1")
    assert page.evaluate("page.map.toScreen(4)") == pytest.approx(after)

    page.get_by_role("tab", name="Moved 2").click()
    assert page.locator("#panel .item").count() == 2 and "name of 1 → name of 0" in page.locator("#panel").inner_text()
    page.get_by_role("tab", name="Outliers 6").click()
    assert page.locator("#panel .item").count() == 6
    page.get_by_role("tab", name="How good?").click()
    shown = page.locator("#panel").inner_text()
    assert "no labels" in shown and "what it means" in shown and "3 clusters: the number by the criterion" in shown


@pytest.mark.slow
def test_the_table_sorts_and_the_tree_marks_branches(load):
    sizes = [0] * 20 + [1] * 15 + [2] * 7
    page = load(describe(TEXTS, sizes))
    names = page.locator("#clusters .name")
    assert names.all_inner_texts() == ["name of 0", "name of 1", "name of 2"]
    page.locator("th button", has_text="texts").click()
    assert names.all_inner_texts() == ["name of 2", "name of 1", "name of 0"]
    page.get_by_role("tab", name="Tree").click()
    page.locator("#tree").get_by_role("button", name="name of 0 and others").first.click()
    assert page.locator("#note").inner_text().startswith("35 of 42 texts marked")


@pytest.mark.slow
def test_it_can_be_used_by_keyboard_alone(load):
    page = load(describe(TEXTS))
    page.locator("#labels").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("page.map.zoom > 1 && page.map.center[0] < page.map.middle[0]")
    page.keyboard.press("0")
    assert page.evaluate("page.map.zoom") == 1
    page.get_by_role("tab", name="Clusters 3").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-tree"
    page.keyboard.press("ArrowLeft")
    page.locator("#clusters .name").first.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Texts of kind 0.").wait_for()
    page.get_by_role("radio", name="after").focus()
    page.keyboard.press("ArrowLeft")
    wait_for(page, "page.map.time === 0")


@pytest.mark.slow
def test_nothing_in_a_text_or_a_name_runs(load):
    names = Names(
        perspective=ATTACK,
        llm=ATTACK,
        names=[
            Name(id=10 * i, name=ATTACK, sentence=ATTACK, keywords=[ATTACK], source="llm", merge_with=[10])
            for i in range(3)
        ],
    )
    texts = [ATTACK, "</script><script>window.hacked = 3</script>", "javascript:window.hacked=4", *TEXTS]
    page = load(describe(texts, names=names, title=ATTACK))
    for tab in ("tree", "moved", "outliers", "verdict", "clusters"):
        page.locator(f"#tab-{tab}").click()
    page.locator("#clusters .name").first.click()
    page.locator("#panel").get_by_text("List its texts").click()
    page.fill("#query", "<script>")
    page.get_by_role("tab", name="Search 2").wait_for()
    point_at(page, 0)
    assert ATTACK in page.locator("#tip").inner_text() and page.locator("h1").inner_text() == ATTACK
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0 and page.locator("body script").count() == 2


@pytest.mark.slow
def test_the_policy_blocks_what_is_added_later(load):
    """Even if a text became markup by a fault of the page, it would not run."""
    page = load(describe(TEXTS))
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', "
        '\'<img src="http://127.0.0.1:9/x" onerror="window.hacked = 1">\')'
    )
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), { text: 'window.hacked = 2' }))"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert all(failed == "csp" for failed in page.refused)  # asked for by this test, and refused
    del page.asked[1:]


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_in_both_themes(load, theme):
    texts = ["مرحبا بكم في هذا النص الطويل", "👩‍👩‍👧‍👦 emoji 🇰🇷", "עברית", "a" * 900, *TEXTS]
    page = load(describe(texts), width=360, height=740, color_scheme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 380) == (theme == "light")
    for tab in ("tree", "moved", "outliers", "verdict", "clusters"):
        page.locator(f"#tab-{tab}").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360, tab
    page.fill("#query", "مرحبا")
    page.get_by_role("tab", name="Search 1").wait_for()
    words = page.locator(".item .words").first
    assert words.get_attribute("dir") == "auto"
    assert page.evaluate("getComputedStyle(document.querySelector('.item .words')).direction") == "rtl"
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground


@pytest.mark.slow
@pytest.mark.parametrize("texts", [["one", "two"], ["the same"] * 30], ids=["two texts", "all equal"])
def test_few_or_equal_texts_are_shown(load, texts):
    page = load(describe(texts, np.zeros(len(texts), int), n_clusters=1, names=None))
    assert "One cluster has no tree" in (page.locator("#tab-tree").click() or page.locator("#panel").inner_text())


@pytest.mark.slow
def test_100_000_texts_stay_fluid(load, tmp_path, capsys):
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(20)])
    texts = [" ".join(words[rng.integers(len(words), size=14)]) for _ in range(100_000)]
    started = time.perf_counter()
    page = load(describe(texts, rng.integers(150, size=len(texts)), n_clusters=150), width=1400, height=900)
    loaded = time.perf_counter() - started
    assert (tmp_path / "the page é.html").stat().st_size < 25e6
    box = page.locator("#labels").bounding_box()
    frames = []
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    for step in range(10):
        page.mouse.move(box["x"] + 300 + 10 * step, box["y"] + 300)
        frames.append(
            page.evaluate(
                "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame("
                "() => done(page.map.frameMilliseconds))))"
            )
        )
    page.mouse.up()
    assert page.evaluate("page.map.center[0] < page.map.middle[0]")
    with capsys.disabled():
        sys.stderr.write(
            f"\n100,000 texts: built and loaded in {loaded:.1f} s, a frame in {np.median(frames):.0f} ms\n"
        )
    assert np.median(frames) < 1000  # 20 ms on an idle core; a busy machine is no fault
