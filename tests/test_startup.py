"""Heavy libraries are imported where they are used: help, finished stages and all that needs no model start fast."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from perspective.artifacts import ROOT
from perspective.options import GROUPS

HEAVY = ("torch", "transformers", "sentence_transformers", "datasets", "mteb", "ray", "matplotlib", "openai", "pandas")
MEANT_FOR_MODELS = "perspective.benchmarks."  # they measure torch itself


def find_scripts() -> list[str]:
    """Names of all modules with a `main` that are run with `python -m`."""
    modules = []
    for path in sorted((ROOT / "perspective").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "\ndef main(argv" in text and 'if __name__ == "__main__":' in text:
            modules.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return [name for name in modules if not name.startswith(MEANT_FOR_MODELS)]


SCRIPTS = find_scripts()
# Names of data sets alone, or nothing at all, to choose.
WITHOUT_GROUPS = [
    "perspective.data.fetching",
    "perspective.leaderboard.pages.docs",
    "perspective.leaderboard.retrieval_summary",
]


def run(code: str, *arguments: str) -> str:
    call = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert call.returncode == 0, call.stderr
    return call.stdout


def call_stage(name: str, *argv: object) -> list[str]:
    """Run an entry script in a process of its own; return the heavy libraries that it imported."""
    code = f"""
import importlib, json, sys
importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    return json.loads(run(code, name, *map(str, argv)).splitlines()[-1])


@pytest.fixture(scope="module")
def helps() -> dict[str, dict]:
    """What each script's --help shows, the processor seconds of starting it and the heavy libraries it imported."""
    code = f"""
import contextlib, importlib, io, json, sys, time
started = time.process_time()
shown = io.StringIO()
with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
    importlib.import_module(sys.argv[1]).main(["--help"])
heavy = [name for name in {HEAVY} + ("sklearn", "scipy") if name in sys.modules]
print(json.dumps({{"help": shown.getvalue(), "heavy": heavy, "seconds": time.process_time() - started}}))
"""
    return {name: json.loads(run(code, name)) for name in SCRIPTS}


def test_all_entry_scripts_are_looked_at():
    numbered = {path for path in (ROOT / "perspective").glob("[0-9]_*/*.py") if path.name != "__init__.py"}
    assert {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in numbered} < set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_loads_nothing_heavy(helps, name):
    assert helps[name]["heavy"] == []
    assert helps[name]["seconds"] < 2  # far less


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in WITHOUT_GROUPS])
def test_help_shows_each_option_once_in_its_group(helps, name):
    shown = helps[name]["help"]
    assert "None)" not in shown and "False)" not in shown and "True)" not in shown
    lines = [line for line in shown.splitlines() if line.startswith("  -")]
    options = [word.strip(",") for line in lines for word in line.split("   ")[0].split() if word.startswith("--")]
    assert options and len(options) == len(set(options))
    assert not [option for option in options if "-" in option[2:]]
    titles = [line[:-1] for line in shown.splitlines() if line[:-1] in GROUPS]
    assert titles == [title for title in GROUPS if title in titles] != []


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A data set of four kinds of texts, and vectors of them."""
    path = tmp_path / "mine.jsonl"
    records = [{"input": f"text {row}", "label": str(row % 4)} for row in range(80)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "vectors.npy", np.eye(4, 8)[np.arange(80) % 4] + 0.3 * rng.normal(size=(80, 8)))
    return path


def test_sampling_needs_no_torch_and_a_finished_one_nothing_heavy(tmp_path, texts):
    stage = "perspective.1_predict_triplet.triplet_sampling"
    argv = ["--dataset", "mine", "--data_path", texts, "--feat_path", tmp_path / "vectors.npy", "--out_dir", tmp_path]
    argv += ["--max_query", 20, "--max_distance", 6]
    assert not {"torch", "transformers"} & set(call_stage(stage, *argv))
    assert len(list(tmp_path.glob("*m=20*seed=100.json"))) == 1
    assert call_stage(stage, *argv) == []


def test_measuring_and_comparing_need_no_torch(tmp_path):
    code = """
import sys
import numpy as np
from perspective.artifacts import write_text, dump_json
from perspective.evaluation.clustering_scores import score_clustering
from perspective.evaluation.comparison import draw_comparison, format_markdown, load_comparison
from pathlib import Path
vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
before, after = (Path(sys.argv[1]) / name for name in ("before.json", "after.json"))
for path in (before, after):
    write_text(path, dump_json(score_clustering(vectors, [str(i % 3) for i in range(40)])))
comparison = load_comparison(before, [after], [Path(sys.argv[1])], "mine", "minilm")
assert "mine" in format_markdown([comparison])
draw_comparison([comparison], Path(sys.argv[1]) / "chart.png")
assert not {"torch", "transformers"} & set(sys.modules)
"""
    run(code, str(tmp_path))
    assert (tmp_path / "chart.png").stat().st_size
