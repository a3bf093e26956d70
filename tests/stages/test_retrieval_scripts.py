"""The script of the whole retrieval stage."""

import shutil
import subprocess

import pytest
from helpers import ROOT, stage_environment

SCRIPTS = "perspective/6_retrieval/scripts"
STAGES = ("make_docs_set", "evaluate", "mine_negatives", "finetune")


@pytest.fixture
def run(tmp_path):
    """Run a copy of run.sh whose stages, minutes each, only print how they were called."""
    for name in (SCRIPTS, "scripts"):
        (tmp_path / name).mkdir(parents=True)
    for name in (f"{SCRIPTS}/run.sh", "scripts/common.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "scripts" / "setup.sh").touch()
    for stage in STAGES:
        shown = f'printf "%s\\t" {stage} "${{EMBEDDER##*/}}" "$@"'  # a path may hold spaces
        (tmp_path / SCRIPTS / f"{stage}.sh").write_text(f"{shown}; echo\n")

    def call(*options):
        command = ["bash", tmp_path / SCRIPTS / "run.sh", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=stage_environment(EMBEDDER="minilm"))
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_stages_run_in_order_with_their_arguments(run, options):
    code, shown, log = run(*options)
    assert (code, log) == (0, "")
    calls = [line.split("\t")[:-1] for line in shown.splitlines()]
    assert [call[0] for call in calls] == [STAGES[0], "evaluate", "evaluate", *STAGES[2:], "evaluate"]
    assert all(call[2 : 2 + len(options)] == options for call in calls)
    assert ("--overwrite" in shown) == bool(options)
    assert [call[1] for call in calls] == ["minilm"] * 5 + ["docstrings_minilm"]
    assert calls[-1][-2] == "--compare" and calls[-1][-1].endswith("measures/retrieval/docstrings_minilm.json")


def test_help_and_unknown_options(run):
    code, shown, _ = run("--help")
    assert code == 0 and shown.startswith("usage: bash perspective/6_retrieval/scripts/run.sh")
    code, shown, log = run("--overwrite", "--overwite")
    assert (code, shown) == (2, "")
    assert log == "error: unknown option --overwite; known: --overwrite --help\n"
