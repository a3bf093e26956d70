import csv
import io
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from helpers import ROOT, find_browser, stage_environment
from helpers import wait_for as wait_at_most
from leaderboard_files import SCORES, write_json, write_pair, write_result, write_study

pytest.importorskip("streamlit", reason="requirements-retrieval.txt is not installed")
from streamlit.testing.v1 import AppTest  # noqa: E402

PAGE = ROOT / "perspective" / "leaderboard" / "page.py"
SCRIPT = ROOT / "scripts" / "leaderboard.sh"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page over an empty folder."""
    monkeypatch.setattr(sys, "argv", [str(PAGE), "--root", str(tmp_path)])
    return AppTest.from_file(str(PAGE), default_timeout=60)


def run(page):
    page.run()
    assert not page.exception
    return page


def models(page, table=0):
    return list(page.dataframe[table].value["model"])


def test_with_nothing_measured_it_says_what_to_run(page):
    run(page)
    notes = " ".join(note.value for note in page.info)
    assert "6_retrieval/scripts/evaluate.sh" in notes and "scripts/run.sh" in notes
    assert models(page) == ["KoE5", "BGE-M3", "mE5-large", "mGTE", "kf-deberta"]
    assert page.selectbox(key="metric").value == "NDCG@1"
    assert not page.warning


def test_it_shows_filters_and_sorts(page, tmp_path):
    write_result(tmp_path, "docs", "minilm")
    write_result(tmp_path, "docs", "tuned", add=6)
    write_result(tmp_path, "sites", "minilm", add=2)
    write_result(tmp_path, "sites", "tuned", add=-6)
    write_pair(tmp_path)
    write_study(tmp_path)
    run(page)
    assert page.selectbox(key="metric").value == "NDCG@10"
    assert models(page) == ["minilm", "tuned"]
    assert list(page.dataframe[0].value.columns) == ["model", "retriever", "source", "mean", "docs", "sites"]
    assert [header.value for header in page.subheader] == ["Before and after fine-tuning", "Study of the method"]
    page.selectbox(key="sort").select("docs")
    assert models(run(page)) == ["tuned", "minilm"]
    page.multiselect(key="datasets").select("sites")
    run(page)
    assert list(page.dataframe[0].value.columns) == ["model", "retriever", "source", "sites"]
    assert models(page) == ["minilm", "tuned"]
    page.multiselect(key="models").select("tuned")
    assert models(run(page)) == ["tuned"]
    page.multiselect(key="datasets").set_value([])
    page.multiselect(key="models").set_value([])
    page.selectbox(key="metric").select("NDCG@1")
    assert "KoE5" in models(run(page))
    page.button_group(key="sources").select("published")
    assert set(run(page).dataframe[0].value["source"]) == {"published"}
    page.multiselect(key="datasets").set_value(["docs"])
    assert "No result fits these filters." in [note.value for note in run(page).info]
    page.multiselect(key="datasets").set_value([])
    run(page).button_group(key="measure").set_value("ARI")
    assert run(page).dataframe[-2].value["before"].iloc[0] == 42.0


def test_rerankers_and_languages_are_rows_and_columns(page, tmp_path):
    write_result(tmp_path, "gnome-help-ko", "me5")
    write_result(tmp_path, "gnome-help-en", "me5", add=1)
    first_stage = {"reranker": "mine", "n_reranked": 50, "recall": 97.5, "scores": SCORES}
    write_result(tmp_path, "gnome-help-ko", "me5", "hybrid+rerank-mine", add=4, first_stage=first_stage)
    write_result(tmp_path, "gnome-help-ko", "me5", "hybrid+rerank-other", add=3)
    run(page)
    shown = page.dataframe[0].value
    assert {"gnome-help-ko", "gnome-help-en"} < set(shown.columns)
    assert set(shown["retriever"]) == {"dense", "hybrid+rerank-mine", "hybrid+rerank-other"}
    page.selectbox(key="metric").select("Ceiling@50")
    assert list(run(page).dataframe[0].value["gnome-help-ko"]) == [97.5]


def test_a_new_file_appears_and_selections_stay(page, tmp_path):
    write_result(tmp_path, "docs", "minilm")
    run(page)
    page.selectbox(key="metric").select("F1@1")
    page.multiselect(key="models").set_value(["minilm"])
    run(page)
    write_result(tmp_path, "docs", "minilm", "hybrid", add=3)
    write_result(tmp_path, "docs", "other", add=3)
    run(page)
    assert page.selectbox(key="metric").value == "F1@1"
    assert models(page) == ["minilm", "minilm"]
    assert list(page.dataframe[0].value["retriever"]) == ["hybrid", "dense"]


def test_a_broken_file_is_one_line_of_plain_text(page, tmp_path):
    write_result(tmp_path, "docs", "minilm")
    write_json(tmp_path / "measures" / "retrieval" / "[a](b).json", "{")
    write_result(tmp_path, "docs", "![x](http://evil) <script>alert(1)</script>", version=2, name="newer.json")
    run(page)
    warnings = [warning.value for warning in page.warning]
    assert len(warnings) == 2
    assert "a result of version 2, not 1" in "".join(warnings) and r"\[a\]\(b\).json" in "".join(warnings)
    assert models(page) == ["minilm"]


def test_names_in_results_are_shown_as_data(page, tmp_path):
    name = "![x](http://evil/y) <script>alert(1)</script> :red[z] $a$"
    write_result(tmp_path, name, f"a/{name}", name="strange.json")
    run(page)
    assert name in page.dataframe[0].value.columns
    assert not any("evil" in block.value for block in [*page.markdown, *page.caption])


def test_settings_of_a_run_are_shown(page, tmp_path):
    write_result(tmp_path, "docs", "minilm")
    sidecar = write_result(tmp_path, "docs", "tuned").with_name("docs_tuned-dense.json.meta.json")
    run(page)
    page.selectbox(key="run").select_index(1)
    run(page)
    assert '"top_k":100' in page.json[0].value.replace(" ", "")
    sidecar.unlink()
    run(page)
    assert "how this result was made is unknown" in page.warning[0].value.replace("\\", "")


# the script, and a real browser


def script_environment(**more):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return stage_environment(PATH=path, **more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prot", "1"], "unknown option --prot; known: --port, --address, --root"),
        (["--port"], "--port needs a value"),
        (["--port", "x"], "--port x: must be a number from 1 to 65535"),
        (["--port", "70000"], "--port 70000: must be a number from 1 to 65535"),
        (["--root", "/not/there"], "--root /not/there: no such folder"),
    ],
)
def test_the_script_tells_of_bad_options_in_one_line(arguments, message):
    done = subprocess.run(["bash", SCRIPT, *arguments], capture_output=True, text=True, env=script_environment())
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_the_script_tells_what_installs_streamlit(tmp_path):
    write_json(tmp_path / "streamlit.py", "raise ImportError('not here')")
    environment = script_environment()
    environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: streamlit is not installed") and done.stderr.count("\n") == 1
    assert "requirements-retrieval.txt" in done.stderr


@pytest.fixture
def served(tmp_path):
    """The page over `tmp_path`, served by the script; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["bash", str(SCRIPT), "--port", str(port), "--root", str(tmp_path)]
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, env=script_environment(), start_new_session=True)
    address = f"http://127.0.0.1:{port}"

    def answers():
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        try:
            return urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).status == 200
        except OSError:
            return False

    try:
        wait_at_most(answers, seconds=60)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
        log.close()


@pytest.mark.slow
@pytest.mark.skipif(not find_browser(), reason="no Chromium: apt install chromium, or name one in CHROMIUM")
def test_in_a_real_browser(served, tmp_path):
    """Loads, shows a new file, filters, sorts by a click, downloads; asks nothing of other machines."""
    playwright = pytest.importorskip("playwright.sync_api", reason="requirements-dev.txt is not installed")
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox does not start for root, as whom containers run.
        browser = driver.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1800})
        page.set_default_timeout(60_000)  # a busy machine is no fault
        asked, failures = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))

        def wait_for(condition):
            wait_at_most(condition, seconds=60)

        def column(index):
            """A column of the first table, read as a screen reader reads it."""
            cells = page.locator("canvas").first.locator(f'[role="gridcell"][aria-colindex="{index}"]')
            return [text.strip() for text in cells.all_text_contents()]

        page.goto(served)
        page.get_by_text("Nothing measured yet").wait_for()
        wait_for(lambda: column(1) == ["KoE5", "BGE-M3", "mE5-large", "mGTE", "kf-deberta"])

        write_result(tmp_path, "docs", "minilm")
        write_result(tmp_path, "docs", "tuned", add=6)
        write_result(tmp_path, "docs", "bm25", "bm25", add=-9)
        wait_for(lambda: {"tuned", "minilm", "bm25"} < set(column(1)))  # nobody touched the page
        page.get_by_text("Nothing measured yet").wait_for(state="hidden")

        page.get_by_text("published", exact=True).first.click()
        wait_for(lambda: set(column(3)) == {"published"})
        page.get_by_text("published", exact=True).first.click()
        page.get_by_text("measured", exact=True).first.click()
        wait_for(lambda: column(1) == ["tuned", "minilm", "bm25"])

        place = page.locator("canvas").first.bounding_box()
        page.mouse.click(place["x"] + place["width"] - 40, place["y"] + 12)  # the header of the last column
        wait_for(lambda: column(1) == ["bm25", "minilm", "tuned"])
        write_result(tmp_path, "docs", "minilm", "hybrid+rerank-mine", add=20)
        wait_for(lambda: column(2)[-1:] == ["hybrid+rerank-mine"])

        with page.expect_download() as download:
            page.get_by_text("Download CSV").click()
        rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
        assert {row["model"] for row in rows} == {"minilm", "tuned", "bm25"}
        assert {row["retriever"] for row in rows} == {"dense", "bm25", "hybrid+rerank-mine"}

        page.get_by_role("tab", name="Settings of the runs").click()
        page.get_by_text("top_k").wait_for()
        write_json(tmp_path / "measures" / "retrieval" / "broken.json", "{")
        page.get_by_text("measures/retrieval/broken.json:1: bad JSON").wait_for()
        wait_for(lambda: page.get_by_text("top_k").is_visible())  # the tab stays open
        assert failures == []
        assert [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []
        browser.close()
