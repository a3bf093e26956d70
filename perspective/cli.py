"""What every entry script shares: its parser, its log and its way to fail."""

from __future__ import annotations

import argparse
import errno
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from transformers.hf_argparser import HfArgumentParser
from transformers.utils.logging import disable_progress_bar

from perspective.errors import DataError, PerspectiveError, suggest_name
from perspective.runtime.distributed import claim_error, is_main, join, leave, n_processes

Settings = TypeVar("Settings")

logger = logging.getLogger(__name__)

NOISY_LIBRARIES = (
    *("httpx", "httpcore", "httpx2", "httpcore2", "openai"),
    *("sentence_transformers", "transformers", "huggingface_hub"),
)
USER_ERROR = 2  # argparse's own exit code for a call that cannot be carried out
MAX_SEED = 2**32 - 1  # numpy's and scikit-learn's


class _Parser(HfArgumentParser):
    """HfArgumentParser whose errors are one line and name the nearest option."""

    def error(self, message: str) -> NoReturn:
        _fail(f"{message} (see --help)")

    def parse(self, argv: Sequence[str] | None) -> tuple[Any, ...]:
        namespace, unknown = self.parse_known_args(argv)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            name = unknown[0].split("=")[0]
            self.error(f"unknown option {name}: {suggest_name(name, options)}")
        values = vars(namespace)
        for seed in values.get("seeds") or [values.get("seed", 0)]:
            if not 0 <= seed <= MAX_SEED:
                raise DataError(f"--seed {seed}: must lie between 0 and {MAX_SEED}")
        return tuple(
            kind(**{key: values[key] for key in kind.__dataclass_fields__ if key in values})
            for kind in self.dataclass_types
        )


def parse_settings(
    kinds: type[Settings] | Sequence[type[Any]],
    argv: Sequence[str] | None = None,
    description: str | None = None,
) -> Any:  # noqa: ANN401  one dataclass, or a tuple of them
    """Parse the command line into settings.

    Args:
        kinds: One dataclass of settings, or several whose fields do not overlap.
        argv: Arguments; those of the process when None.
        description: The entry script's docstring, shown by `--help` as it is.

    Returns:
        An instance of the dataclass, or a tuple of instances in the order given.
    """
    several = [kinds] if isinstance(kinds, type) else list(kinds)
    parser = _Parser(
        several,
        description=description,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    settings = parser.parse(argv)
    return settings[0] if isinstance(kinds, type) else settings


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults beside each option, the docstring's own lines kept."""


def entry_point(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap an entry script's `main`: set up the log, turn a user's error into one line.

    Errors of `perspective.errors` and of the file system end the process with code 2 and no
    traceback; an interrupt ends it with 130, the shell's code for it.
    """
    return _wrap(main, shared=False)


def shared_entry_point(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap, as `entry_point` does, a `main` that torchrun and `accelerate launch` may start several times.

    Only the main process logs, and only the first that fails says why.
    """
    return _wrap(main, shared=True)


def _wrap(main: Callable[..., None], shared: bool) -> Callable[..., None]:
    @functools.wraps(main)
    def wrapped(argv: Sequence[str] | None = None) -> None:
        level = logging.INFO if is_main() else logging.CRITICAL
        logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
        _quiet_libraries()
        try:
            if not shared and n_processes() > 1:
                raise DataError("this stage is the work of one process; start it without torchrun or accelerate")
            join()
            main(argv)
            leave()
        except PerspectiveError as error:
            _fail(str(error))
        except OSError as error:
            _fail(_explain_os_error(error))
        except KeyboardInterrupt:
            logger.error("interrupted; the same command goes on where it stopped")
            sys.exit(130)
        except Exception:
            if claim_error():
                raise
            sys.exit(USER_ERROR)  # another process failed and told why

    return wrapped


def _fail(message: str) -> NoReturn:
    if claim_error():
        # A message may quote data: one line, whatever the data holds.
        print("error: " + " ".join(message.split()), file=sys.stderr)  # noqa: T201
    sys.exit(USER_ERROR)


def _explain_os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    hints = {
        errno.ENOSPC: "no space left on the disk; free some and run the same command again",
        errno.EACCES: "permission denied; choose a folder that you can write to",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOENT: "no such file or folder",
        errno.ENOTDIR: "a file stands where a folder is expected",
        errno.EISDIR: "a folder stands where a file is expected",
    }
    return where + hints.get(error.errno or 0, str(error.strerror or error))


def _quiet_libraries() -> None:
    """Keep the libraries' own chatter off the terminal; their errors still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    disable_progress_bar()  # of loading and saving weights; downloads and our own bars stay
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    # What they will change in one another
    warnings.filterwarnings("ignore", category=FutureWarning, module="accelerate|sentence_transformers")
