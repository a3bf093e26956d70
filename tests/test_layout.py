import ast
import shutil
import subprocess
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from helpers import ROOT, STAGES, run_stage, stage_environment

from perspective.artifacts.names import name_dataset
from perspective.layout import Layout, measures_path

STAGE_SCRIPTS = {
    "1_predict_triplet": ("triplet_sampling", "read_states", "predict_triplet"),
    "2_finetune": (
        "get_embedding_gte",
        "convert_triplet",
        "convert_states",
        "finetune_gte",
        "get_finetuned_embedding_gte",
    ),
}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my-tickets 2024.csv", "my_tickets_2024"),
        ("상품후기.csv", "상품후기"),
        ("고객문의.v2.jsonl", "고객문의_v2"),
        ("हिन्दी.csv", "हिन्दी"),
        ("…!.csv", "__"),
    ],
)
def test_letters_and_digits_of_every_script_stay_in_a_name(file, name):
    assert name_dataset(Path("some/folder") / file) == name
    assert name_dataset(Path(unicodedata.normalize("NFD", file))) == unicodedata.normalize("NFC", name)


def test_names_of_files_fit_in_any_round_and_script():
    """Hangul takes three bytes a letter; a file system takes 255, with the ends of sidecar and temporary file."""
    dataset, embedder = name_dataset(Path(f"{'가' * 90}.csv")), "intfloat/multilingual-e5-small"
    for _ in range(4):
        run = Layout(dataset, "small", embedder, judge="qwen2.5-0.5b-instruct-choice")
        paths = (run.judged_teacher, run.judgments, run.teacher, measures_path(run.after_embeds), run.description.page)
        assert max(len(f".{path.name}.meta.json.4194304.tmp".encode()) for path in paths) <= 255
        embedder = str(run.checkpoint)


def test_run_names_texts_by_their_file(tmp_path):
    """A copy of run.sh whose stages print the data sets that they are called for."""
    (tmp_path / "scripts").mkdir()
    for name in ("run.sh", "common.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    for name in ("setup.sh", "compare.sh"):
        (tmp_path / "scripts" / name).touch()
    for folder, scripts in STAGE_SCRIPTS.items():
        (tmp_path / "perspective" / folder / "scripts").mkdir(parents=True)
        for script in scripts:
            (tmp_path / "perspective" / folder / "scripts" / f"{script}.sh").write_text('echo "$DATASETS $*"\n')
    named = {}
    for file in ("고객문의.csv", "상품후기.csv"):
        (tmp_path / file).touch()
        command = ["bash", "scripts/run.sh", "--no_describe", "--data_path", file]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=stage_environment(LC_ALL="C.UTF-8")
        )
        assert done.returncode == 0, done.stderr
        (named[file],) = {line.split()[0] for line in done.stdout.splitlines() if line}
        assert f"--data_path {tmp_path / file}" in done.stdout
    assert named == {"고객문의.csv": "고객문의", "상품후기.csv": "상품후기"}


@pytest.mark.parametrize("stage", sorted(STAGES))
@pytest.mark.parametrize("name", ["../x", "a/b", "my tickets", "..", "", "a\tb", "a\\b"])
def test_no_stage_takes_a_name_that_leads_out_of_its_folders(stage, name, capsys):
    required = ("--documents_path", ".") if stage == "weak_pairs" else ()
    with pytest.raises(SystemExit) as ended:
        run_stage(stage, "--dataset", name, *required)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: --dataset ")


def test_no_two_public_classes_share_a_name():
    trees = (ast.parse(path.read_text()) for path in (ROOT / "perspective").rglob("*.py"))
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert not [name for name, n in names.items() if n > 1 and not name.startswith("_")]
