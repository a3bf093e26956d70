import errno
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from perspective.artifacts import ROOT
from perspective.cli import entry_point, parse_settings
from perspective.errors import DataError


@dataclass(frozen=True)
class Sampling:
    max_query: int = field(default=1024, metadata={"help": "number of triplets"})
    max_distance: float | None = field(default=None, metadata={"help": "threshold", "aliases": ["--far"]})
    shuffle_inds: bool = field(default=True, metadata={"help": "in random order"})
    scale: str = field(default="small", metadata={"help": "size", "choices": ["small", "large"]})


@dataclass(frozen=True)
class Seeded:
    seed: int = field(default=100, metadata={"help": "of drawing"})


@dataclass(frozen=True)
class Corpus:
    dataset: str = field(metadata={"help": "name"})

    def __post_init__(self):
        if self.dataset == "bad":
            raise DataError("--dataset bad: no such\nthing")


def test_one_and_several_dataclasses():
    assert parse_settings(Sampling, []) == Sampling()
    assert parse_settings(Sampling, ["--max_query=7", "--far", "2.5", "--shuffle_inds", "false"]) == Sampling(
        7, 2.5, False
    )
    corpus, sampling = parse_settings([Corpus, Sampling], ["--dataset", "x", "--no_shuffle_inds"])
    assert (corpus, sampling) == (Corpus("x"), Sampling(shuffle_inds=False))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max_qurey", "3"], "unknown option --max_qurey: did you mean --max_query?"),
        (["--max_qurey=3"], "unknown option --max_qurey: did you mean --max_query?"),
        (["--max", "3"], "unknown option --max:"),  # no abbreviations: a later option must not change a call
        (["--max_query", "many"], "invalid int value: 'many'"),
        (["--scale", "huge"], "invalid choice: 'huge'"),
    ],
)
def test_a_wrong_call_is_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_settings(Sampling, argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("argv", [["--seed", "-1"], ["--seed", str(2**32)]])
def test_a_seed_that_numpy_would_refuse(argv):
    with pytest.raises(DataError, match=f"--seed {argv[1]}: must lie between 0 and {2**32 - 1}"):
        parse_settings(Seeded, argv)


def test_a_required_option_is_named(capsys):
    with pytest.raises(SystemExit):
        parse_settings([Corpus, Sampling], [])
    assert "--dataset" in capsys.readouterr().err


def test_help_shows_the_docstring_as_it_is(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_settings(Sampling, ["--help"], "Draw triplets.\n\nReads:  vectors\nWrites: triplets\n")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "Draw triplets.\n\nReads:  vectors\nWrites: triplets\n" in shown
    assert "number of triplets (default: 1024)" in shown


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("a.jsonl:3: bad\n JSON"), "error: a.jsonl:3: bad JSON"),
        (FileNotFoundError(errno.ENOENT, "x", "a.npy"), "error: a.npy: no such file or folder"),
        (OSError(errno.ENOSPC, "x", "a.npy"), "error: a.npy: no space left on the disk"),
        (PermissionError(errno.EACCES, "x", "a"), "error: a: permission denied"),
        (OSError("plain words"), "error: plain words"),
    ],
)
def test_a_user_error_ends_in_one_line_and_code_2(error, message, capsys):
    @entry_point
    def main(argv=None):
        raise error

    with pytest.raises(SystemExit) as stop:
        main([])
    shown = capsys.readouterr().err
    assert stop.value.code == 2
    assert shown.startswith(message)
    assert shown.count("\n") == 1


def test_a_bug_keeps_its_traceback_and_an_interrupt_its_code():
    @entry_point
    def main(argv=None):
        raise (KeyboardInterrupt if argv else ZeroDivisionError)

    with pytest.raises(ZeroDivisionError):
        main([])
    with pytest.raises(SystemExit) as stop:
        main(["x"])
    assert stop.value.code == 130


def test_settings_are_checked_inside_the_entry_point(capsys):
    @entry_point
    def main(argv=None):
        parse_settings(Corpus, argv)

    with pytest.raises(SystemExit) as stop:
        main(["--dataset", "bad"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: --dataset bad: no such thing\n"


def test_a_real_script_fails_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "perspective.judging.convert_reward", "--output_path", str(tmp_path)]
    call = subprocess.run([*command, "--checkpoint", "gone.bin"], cwd=ROOT, capture_output=True, text=True)
    assert (call.returncode, call.stdout) == (2, "")
    assert call.stderr == "error: gone.bin: no such file or folder\n"
