"""framelens completion bash: prints a script that completes commands and options in a shell.

framelens completion bash > ~/.local/share/bash-completion/completions/framelens
framelens completion zsh > a folder of $fpath, as _framelens
"""

import argparse
import sys
from importlib import import_module
from typing import Any

from framelens.records.commands import exits_as, read_options
from framelens.records.extras import extra

SHELLS = ("bash", "zsh", "tcsh")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="framelens completion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    return parser


@exits_as("completion")
def main(arguments: list[str]) -> int:
    """Exit status: 0, or 2 where the package `shtab` is missing."""
    options = read_options(parser(), arguments)
    with extra("completion"):
        import shtab
    sys.stdout.write(shtab.complete(whole_parser(), shell=options.shell) + "\n")
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """One parser with every command as a subcommand; commands of two words become nested ones.

    A command that ends in an option, such as `estimate --train`, is completed as the command before it.
    """
    from framelens.__main__ import COMMANDS

    whole = argparse.ArgumentParser(prog="framelens")
    places: dict[tuple[str, ...], Any] = {(): whole.add_subparsers()}
    for group in COMMANDS.values():
        for name, (module, about) in group.items():
            *outer, last = name.split()
            if last.startswith("-"):
                continue
            if tuple(outer) not in places:
                places[tuple(outer)] = places[()].add_parser(outer[0]).add_subparsers()
            own = import_module(f"framelens.{module}").parser()
            places[tuple(outer)].add_parser(
                last, help=about, description=own.description, parents=[own], add_help=False
            )
    return whole


if __name__ == "__main__":
    sys.exit(main())
