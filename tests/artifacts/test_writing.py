import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import limit_file_size, stage_environment

from perspective.artifacts import Output, atomic_path, keep_block, write_text
from perspective.artifacts.writing import finish_replacing
from perspective.errors import DataError

# Replaces folder "model" by one that says "new"; the process dies at its n-th rename or removal.
KILLED_AT = """
import os, shutil, sys
from pathlib import Path
from perspective.artifacts import atomic_path

steps = 0
def dies(call):
    def step(*arguments, **options):
        global steps
        if steps == int(sys.argv[1]):
            os._exit(9)
        steps += 1
        return call(*arguments, **options)
    return step

Path.rename, Path.unlink, shutil.rmtree = map(dies, (Path.rename, Path.unlink, shutil.rmtree))
with atomic_path(Path("model")) as folder:
    folder.mkdir()
    (folder / "weights").write_text("new")
"""


@pytest.mark.parametrize(("n_steps", "kept"), [(0, "old"), (1, "new"), (2, "new"), (None, "new")])
def test_a_kill_while_a_folder_is_replaced_loses_neither(tmp_path, n_steps, kept):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    command = [sys.executable, "-c", KILLED_AT, str(99 if n_steps is None else n_steps)]
    done = subprocess.run(command, cwd=tmp_path, env=stage_environment())
    assert done.returncode == (0 if n_steps is None else 9)
    assert n_steps != 1 or not folder.exists()  # between the two renames
    finish_replacing(folder)
    assert (folder / "weights").read_text() == kept
    assert not list(tmp_path.glob(".*.old"))
    write_text(folder / "other", "x")
    with atomic_path(folder) as again:
        again.mkdir()
    assert [part.name for part in tmp_path.rglob("*")] == ["model"]  # nothing of the killed process is left


def test_a_stage_finds_a_folder_that_was_moved_aside(tmp_path):
    aside = tmp_path / f".model.{os.getpid()}.old"
    aside.mkdir()
    Output(tmp_path / "vectors.npy", "embeddings", {}, {"checkpoint": tmp_path / "model"})
    assert (tmp_path / "model").is_dir() and not aside.exists()


def write_vectors(path):
    Output(path, "embeddings", {}).write_vectors(np.ones((100, 100)))


def write_big_json(path):
    Output(path, "measures", {}).write_json(["x" * 9000])


def write_block(path):
    keep_block(path, 100, lambda: np.ones((100, 100)))


def write_safetensors(path):
    import torch
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({"a": torch.ones(100, 100)}, temporary)


def write_torch(path):
    import torch

    with atomic_path(path) as temporary:
        torch.save({"a": torch.ones(100, 100)}, temporary)


@pytest.mark.parametrize("write", [write_vectors, write_big_json, write_block, write_safetensors, write_torch])
def test_a_full_disk_is_one_line_with_the_path(tmp_path, write):
    path = tmp_path / "result"
    with (
        limit_file_size(8000),
        pytest.raises(DataError, match=r"result: cannot be written, the disk is full .* MB free"),
    ):
        write(path)
    assert list(tmp_path.iterdir()) == []
    write(path)
    assert path.exists()


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "denied")
    with pytest.raises(DataError, match="^a: row 3$"), atomic_path(tmp_path / "a"):
        raise DataError("a: row 3")


def test_a_link_to_a_folder_is_replaced_and_what_it_names_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights").write_text("old")
    (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    with atomic_path(tmp_path / "model") as folder:
        folder.mkdir()
    assert not list((tmp_path / "model").iterdir()) and (tmp_path / "elsewhere" / "weights").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "model"]
