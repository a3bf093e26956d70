"""Command-line parsing, logging and error handling of all entry scripts."""

from __future__ import annotations

import argparse
import errno
import functools
import logging
import os
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from perspective.artifacts.names import check_name
from perspective.artifacts.recipes import read_recipe
from perspective.errors import DataError, PerspectiveError, suggest_name
from perspective.options import GROUPS
from perspective.runtime.distributed import claim_error, end_process_group, init_process_group, is_main, n_processes

Settings = TypeVar("Settings")

logger = logging.getLogger(__name__)

NOISY_LIBRARIES = (
    *("httpx", "httpcore", "httpx2", "httpcore2", "openai"),
    *("sentence_transformers", "transformers", "huggingface_hub", "matplotlib", "openTSNE"),
)
USER_ERROR = 2  # argparse's exit code for a wrong call
MAX_SEED = 2**32 - 1  # numpy's and scikit-learn's
FILE_NAMES = ("dataset", "datasets", "variant")  # options whose values become parts of file names
RECIPE_OPTION = "recipe_file"  # names a file of options
METAVARS: dict[type, str] = {int: "N", float: "X", str: "TEXT"}


def parse_settings(
    kinds: type[Settings] | Sequence[type[Any]],
    argv: Sequence[str] | None = None,
    description: str | None = None,
) -> Any:  # noqa: ANN401  one dataclass, or a tuple of them
    """Parse the command line into settings.

    Args:
        kinds: One dataclass with fields made by `perspective.options.option`, or several. A field
            that several of them have is one option: the first describes it, all receive its value.
        argv: Arguments; `sys.argv` when None.
        description: The entry script's docstring, shown unchanged by `--help`.

    Returns:
        An instance of the dataclass, or a tuple of instances in the order given.
    """
    classes: list[Any] = [kinds] if isinstance(kinds, type) else list(kinds)
    values = _parse(_collect_options(classes), argv, description)
    for seed in values.get("seeds") or [values.get("seed", 0)]:
        if not 0 <= seed <= MAX_SEED:
            raise DataError(f"--seed {seed}: must be between 0 and {MAX_SEED}")
    for option, names in values.items():
        for name in (names if isinstance(names, list) else [names]) if option in FILE_NAMES else ():
            check_name(f"--{option}", name)
    settings = tuple(
        kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values}) for kind in classes
    )
    return settings[0] if isinstance(kinds, type) else settings


@dataclass(frozen=True)
class _Option:
    """A command-line option read from a dataclass field.

    Attributes:
        name: Name of the field.
        hint: Type of the field without None.
        default: Default value; MISSING if the option is required.
        metadata: Metadata written by `perspective.options.option`.
    """

    name: str
    hint: Any
    default: Any
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, field: Field[Any], hint: Any) -> _Option:  # noqa: ANN401
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        return cls(field.name, hint, default, field.metadata)

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        names = [f"--{self.name}", *self.metadata["aliases"]]
        if self.hint is bool and self.default is not False:
            names.append(f"--no_{self.name}")
        # Options that are not given stay out of the namespace: the dataclass has the defaults.
        group.add_argument(
            *names,
            dest=self.name,
            required=self.default is MISSING,
            default=argparse.SUPPRESS,
            help=self._describe().replace("%", "%%"),
            **self._choose_action(),
        )

    def _choose_action(self) -> dict[str, Any]:
        if self.hint is bool:
            return {"action": _Switch}
        if typing.get_origin(self.hint) is list:
            action = "extend" if self.metadata["extend"] else "store"
            return {"action": action, "nargs": "+", **self._choose_type(*typing.get_args(self.hint))}
        return self._choose_type(self.hint)

    def _choose_type(self, hint: Any) -> dict[str, Any]:  # noqa: ANN401
        if typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            return {"type": type(choices[0]), "choices": choices}
        is_path = self.name.endswith(("_path", "_file", "_dir"))
        return {"type": hint, "metavar": "PATH" if is_path else METAVARS[hint]}

    def _describe(self) -> str:
        text: str = self.metadata["help"]
        if self.default is MISSING:
            return f"{text} (required)"
        if self.default in (None, "", []) or isinstance(self.default, bool):
            return text
        default = " ".join(map(str, self.default)) if isinstance(self.default, list) else self.default
        return f"{text} (default: {default})"


def _collect_options(kinds: Sequence[type[Any]]) -> dict[str, _Option]:
    """Return the options of several dataclasses by name.

    Raises:
        TypeError: Two dataclasses declare the same option with different types or defaults.
    """
    options: dict[str, _Option] = {}
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        for field in fields(kind):
            if "help" not in field.metadata:
                continue
            option = _Option.read(field, hints[field.name])
            first = options.setdefault(option.name, option)
            if (first.hint, first.default) != (option.hint, option.default):
                raise TypeError(f"--{option.name}: {kind.__name__} declares another type or default")
    return options


def _parse(options: Mapping[str, _Option], argv: Sequence[str] | None, description: str | None) -> dict[str, Any]:
    argv = list(sys.argv[1:] if argv is None else argv)
    if RECIPE_OPTION in options:
        # A first look, for the recipe alone: its values may be required options.
        look = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        look.add_argument(f"--{RECIPE_OPTION}")
        try:
            recipe = look.parse_known_args(argv)[0].recipe_file
        except argparse.ArgumentError:
            recipe = None  # without its value: an error below
        if recipe:
            argv = [*_read_recipe(Path(recipe), options, description), *argv]
    parser = _build_parser(options.values(), description)
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].split("=")[0]
        if not name.startswith("-"):
            parser.error(f'unexpected argument "{name}"')
        parser.error(f"unknown option {name}: {suggest_name(name, parser.list_names())}")
    return vars(namespace)


def _read_recipe(path: Path, options: Mapping[str, _Option], description: str | None) -> list[str]:
    """Return the options of a recipe as arguments, each checked by itself, so that an error names its line."""
    arguments = []
    for place, name, value in read_recipe(path):
        if name not in options or name == RECIPE_OPTION:
            raise DataError(f'{place}: unknown option "{name}": {suggest_name(name, options)}')
        if isinstance(value, bool) != (options[name].hint is bool):
            kind = "true or false" if options[name].hint is bool else "a value"
            raise DataError(f"{place}: {name}: {value}: must be {kind}")
        if value is False and options[name].default is False:
            continue
        # With "=", so that a value may begin with a dash.
        given = [f"--no_{name}" if value is False else f"--{name}"]
        if isinstance(value, list):
            given += value
        elif not isinstance(value, bool):
            given = [f"--{name}={value}"]
        _build_parser([replace(options[name], default=None)], description, f"{place}: ").parse_args(given)
        arguments += given
    return arguments


def _build_parser(options: Iterable[_Option], description: str | None, place: str = "") -> _Parser:
    options = list(options)
    required = "".join(f"--{option.name} ... " for option in options if option.default is MISSING)
    parser = _Parser(
        usage=f"%(prog)s {required}[options]",
        description=description,
        allow_abbrev=False,
        add_help=False,
        formatter_class=_HelpFormatter,
    )
    parser.place = place
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    for title in GROUPS:
        group = parser.add_argument_group(title)
        for option in options:
            if option.metadata["group"] == title:
                option.add_to(group)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line.

    Attributes:
        place: Put before the message.
    """

    place = ""

    def error(self, message: str) -> NoReturn:
        _fail(f"{self.place}{message} (see --help)")

    def list_names(self) -> list[str]:
        return list(self._option_string_actions)


class _Switch(argparse.Action):
    """`--flag`, and `--no_flag` unless False is the default."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        super().__init__(nargs=0, **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ANN401
        """Set the flag."""
        setattr(namespace, self.dest, not str(option_string).startswith("--no_"))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the docstring's line breaks; show an option's value once, after all of its names."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def entry_point(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap an entry script's `main`: set up logging, report user-facing errors in one line.

    Errors of `perspective.errors` and of the file system end the process with code 2 and no
    traceback; an interrupt ends it with the shell's code 130.
    """
    return _wrap(main, shared=False)


def shared_entry_point(main: Callable[..., None]) -> Callable[..., None]:
    """Like `entry_point`, for a `main` that torchrun or `accelerate launch` may run in several processes.

    Only the main process logs; only the first process that fails prints its error.
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
                raise DataError("this stage runs in one process; start it without torchrun or accelerate")
            init_process_group()
            main(argv)
            end_process_group()
        except PerspectiveError as error:
            _fail(str(error))
        except OSError as error:
            _fail(_explain_os_error(error))
        except KeyboardInterrupt:
            logger.error("interrupted; run the same command again to resume where it stopped")
            sys.exit(130)
        except Exception:
            if claim_error():
                raise
            sys.exit(USER_ERROR)  # another process failed first and printed its error

    return wrapped


def _fail(message: str) -> NoReturn:
    if claim_error():
        # A message may quote data with line breaks; print one line.
        print("error: " + " ".join(message.split()), file=sys.stderr)  # noqa: T201
    sys.exit(USER_ERROR)


def _explain_os_error(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    hints = {
        errno.ENOSPC: "no space left on the disk; free some and run the same command again",
        errno.EACCES: "permission denied; check who may read or write it",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOENT: "no such file or folder",
        errno.ENOTDIR: "expected a folder, found a file",
        errno.EISDIR: "expected a file, found a folder",
    }
    return place + hints.get(error.errno or 0, str(error.strerror or error))


def _quiet_libraries() -> None:
    """Show only errors of third-party libraries on the terminal."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # a name that no font has
    # Announcements of changes in their dependencies
    warnings.filterwarnings("ignore", category=FutureWarning, module="accelerate|sentence_transformers")
