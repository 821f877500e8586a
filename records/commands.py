"""What all commands have in common: their options, how they end, and how they are written in a manifest.

    @exits_as("train", stopped="the same command resumes here")
    def main(arguments: list[str]) -> int:
        options = read_options(parser(), arguments)
        command = command_line("train", arguments)

Imports nothing heavy: a command's --help answers at once.
"""

import argparse
import difflib
import json
import os
import shlex
import signal
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

from framelens.records.notes import VERBOSITY

Command = Callable[..., int]
"""A command as it is called: without arguments it takes those of the command line."""


def exits_as(name: str = "", stopped: str = "") -> Callable[[Callable[[list[str]], int]], Command]:
    """A decorator of `main(arguments)`, which gives its exit status.

    Where it raises ValueError or OSError, `framelens name: why` is printed on stderr and the status is 2; on
    Ctrl-C `framelens name: stopped; ` and what to do then, and 130. A second Ctrl-C is ignored. Other errors
    are mistakes of framelens and pass through.
    """
    name = f"framelens {name}".strip()

    def decorate(main: Callable[[list[str]], int]) -> Command:
        @wraps(main)
        def run(arguments: Sequence[str] | None = None) -> int:
            try:
                with _interrupts_once(until_exit=arguments is None):
                    return main(sys.argv[1:] if arguments is None else list(arguments))
            except (ValueError, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"{name}: stopped; {stopped}" if stopped else f"{name}: stopped", file=sys.stderr)
                return 130

        return run

    return decorate


@contextmanager
def _interrupts_once(until_exit: bool) -> Iterator[None]:
    """Within it, the first Ctrl-C raises KeyboardInterrupt and later ones are ignored, so that files and
    processes are cleaned up; with `until_exit` also after it, for a process that ends with this command."""
    if threading.current_thread() is not threading.main_thread():  # which cannot receive signals
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if not until_exit or signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


@contextmanager
def block_interrupts() -> Iterator[None]:
    """Within it, Ctrl-C waits, and processes that are started never receive it, though a terminal sends it to
    all: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def command_line(name: str, arguments: Sequence[str]) -> str:
    """The command as a user can give it again, for manifests and messages."""
    return shlex.join(["framelens", *name.split(), *arguments])


def read_options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line; what stands on it replaces what a --config file gives.

    Adds the options that every command has: --config, -q and -v, of which nothing is left in the result.
    ValueError for a --config file that cannot be read or that gives an unknown option.
    """
    add_common_options(parser)
    given = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    given.add_argument("--config", type=Path)
    known, _ = given.parse_known_args(arguments)
    stored = [] if known.config is None else _stored_arguments(known.config, parser)
    options = parser.parse_args([*stored, *arguments])
    os.environ[VERBOSITY] = str(int(options.verbose) - int(options.quiet))
    for name in ("config", "quiet", "verbose"):
        delattr(options, name)
    return options


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """The options that every command has."""
    common = parser.add_argument_group("of every command")
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="options from a TOML file (clips = 4), or those of the command in a manifest.json; options on "
        "the command line replace them",
    )
    how_much = common.add_mutually_exclusive_group()
    how_much.add_argument("-q", "--quiet", action="store_true", help="print results and errors only")
    how_much.add_argument("-v", "--verbose", action="store_true", help="print also what each part takes")


def _stored_arguments(path: Path, parser: argparse.ArgumentParser) -> list[str]:
    """The arguments that a file gives, in the order of the file."""
    try:
        text = path.read_text(encoding="utf-8")
        stored = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"--config {path} cannot be read as {path.suffix[1:] or 'toml'}: {error}") from None
    if path.suffix == ".json":
        return _arguments_of_manifest(path, stored)
    flags = [flag for flag in _flags(parser) if flag.startswith("--")]
    arguments: list[str] = []
    for name, value in stored.items():
        flag = f"--{name.replace('_', '-')}"
        if flag not in flags or flag == "--config":
            near = difflib.get_close_matches(flag, flags, n=1)
            hint = f"did you mean {near[0][2:]}?" if near else f"there are {', '.join(f[2:] for f in flags)}"
            raise ValueError(f"--config {path}: found no option {name!r}; {hint}")
        arguments += _spell(flag, value, flags)
    return arguments


def _arguments_of_manifest(path: Path, stored: Any) -> list[str]:
    command = stored.get("command") if isinstance(stored, dict) else None
    words = shlex.split(command) if isinstance(command, str) else []
    options = [index for index, word in enumerate(words) if word.startswith("--")]
    if not words:
        raise ValueError(f"--config {path} stores no command; give a manifest.json of a run, or a .toml file")
    return words[options[0] :] if options else []


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]


def _spell(flag: str, value: Any, flags: Sequence[str]) -> list[str]:
    """One option of a TOML file as arguments."""
    if isinstance(value, bool):
        no = flag.replace("--", "--no-", 1)
        return [flag] if value else [no] if no in flags else []
    if isinstance(value, Mapping):
        return [
            flag,
            *(
                f"{name}={json.dumps(item) if not isinstance(item, str) else item}"
                for name, item in value.items()
            ),
        ]
    return [flag, *map(str, value)] if isinstance(value, list) else [flag, str(value)]
