import errno
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from perspective.artifacts import ROOT
from perspective.cli import entry_point, parse_settings
from perspective.errors import DataError
from perspective.options import option


@dataclass(frozen=True)
class Sampling:
    max_query: int = option("number of triplets", default=1024)
    max_distance: float | None = option("threshold", default=None, aliases=("--far",))
    shuffle_inds: bool = option("in random order", default=True)
    dry: bool = option("only print the steps", default=False)
    weighted: bool | None = option("use weights", default=None)
    scale: Literal["small", "large"] = option("size", default="small", group="input")


@dataclass(frozen=True)
class Seeded:
    seed: int = option("of drawing", default=100)


@dataclass(frozen=True)
class Lists:
    seeds: list[int] = option("of the runs", default=[100, 13], group="scale")
    orders: Literal[1, 2] | None = option("number of orders", default=None)
    names: list[Literal["a", "b"]] | None = option("which", default=None)
    urls: list[str] | None = option("addresses", default=None, extend=True)
    inner: int = 3  # not an option: for Python callers only


@dataclass(frozen=True)
class Corpus:
    dataset: str = option("name", group="input")

    def __post_init__(self):
        if self.dataset == "bad":
            raise DataError("--dataset bad: no such\nthing")


def test_one_and_several_dataclasses():
    assert parse_settings(Sampling, []) == Sampling()
    assert parse_settings(Sampling, ["--max_query=7", "--far", "2.5", "--no_shuffle_inds"]) == Sampling(7, 2.5, False)
    corpus, sampling = parse_settings([Corpus, Sampling], ["--dataset", "x", "--no_shuffle_inds"])
    assert (corpus, sampling) == (Corpus("x"), Sampling(shuffle_inds=False))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max_qurey", "3"], "unknown option --max_qurey: did you mean --max_query?"),
        (["--max_qurey=3"], "unknown option --max_qurey: did you mean --max_query?"),
        (["--max", "3"], "unknown option --max:"),  # no abbreviations: a later option must not change a call
        (["--max_query", "many"], "invalid int value: 'many'"),
        (["--scale", "huge"], "invalid choice: 'huge' (choose from 'small', 'large')"),
        (["--no_dry"], "unknown option --no_dry"),  # off by default
        (["--shuffle_inds", "false"], 'unexpected argument "false"'),
    ],
)
def test_a_wrong_call_prints_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_settings(Sampling, argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_switches_lists_and_choices():
    given = parse_settings(Sampling, ["--dry", "--no_weighted"])
    assert (given.dry, given.weighted, given.shuffle_inds) == (True, False, True)
    assert parse_settings(Lists, []) == Lists() == Lists([100, 13], None, None, None, 3)
    argv = ["--seeds", "1", "2", "3", "--seeds", "4", "--orders", "2", "--names", "b", "a"]
    assert parse_settings(Lists, argv) == Lists([4], 2, ["b", "a"])
    assert parse_settings(Lists, ["--urls", "x", "y", "--urls", "z"]).urls == ["x", "y", "z"]


@pytest.mark.parametrize("argv", [["--orders", "3"], ["--names", "a", "c"], ["--inner", "4"]])
def test_invalid_choices_and_fields_without_an_option_are_refused(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_settings(Lists, argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_option_shared_by_two_dataclasses_is_parsed_once():
    @dataclass(frozen=True)
    class Run:
        seed: int = option("of the run", default=100)

    assert parse_settings([Seeded, Run], ["--seed", "7"]) == (Seeded(7), Run(7))

    @dataclass(frozen=True)
    class Other:
        seed: int = option("of the run", default=1)

    with pytest.raises(TypeError, match="--seed: Other declares another type or default"):
        parse_settings([Seeded, Other], [])


@pytest.mark.parametrize("argv", [["--seed", "-1"], ["--seed", str(2**32)]])
def test_a_seed_out_of_range_is_refused(argv):
    with pytest.raises(DataError, match=f"--seed {argv[1]}: must be between 0 and {2**32 - 1}"):
        parse_settings(Seeded, argv)


def test_a_required_option_is_named(capsys):
    with pytest.raises(SystemExit):
        parse_settings([Corpus, Sampling], [])
    assert "--dataset" in capsys.readouterr().err


def test_help_shows_the_docstring_unchanged(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_settings(Sampling, ["--help"], "Draw triplets.\n\nReads:  vectors\nWrites: triplets\n")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "Draw triplets.\n\nReads:  vectors\nWrites: triplets\n" in shown
    assert "number of triplets (default: 1024)" in shown


def test_help_is_grouped_and_shows_each_option_once(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse_settings([Lists, Sampling, Corpus], ["--help"])
    assert (
        capsys.readouterr().out.partition("\n\n")[2]
        == """\
input:
  --scale {small,large}
                        size (default: small)
  --dataset TEXT        name (required)

method:
  --orders {1,2}        number of orders
  --names {a,b} [{a,b} ...]
                        which
  --urls TEXT [TEXT ...]
                        addresses
  --max_query N         number of triplets (default: 1024)
  --max_distance, --far X
                        threshold
  --shuffle_inds, --no_shuffle_inds
                        in random order
  --dry                 only print the steps
  --weighted, --no_weighted
                        use weights

scale:
  --seeds N [N ...]     of the runs (default: 100 13)
"""
    )


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


def test_a_bug_keeps_its_traceback_and_an_interrupt_exits_with_130():
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
