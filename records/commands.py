"""How a command ends: its exit status and, where it fails, one line that says why.

    @exits_as("training", stopped="the same command goes on from here")
    def main(arguments: list[str] | None = None) -> int: ...

Imports nothing heavy: a command's --help answers at once.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


def exits_as(name: str, stopped: str = "") -> Callable[[Callable[P, int]], Callable[P, int]]:
    """A decorator of `main`, which gives its exit status.

    Where it raises ValueError or OSError, `name: why` is printed on stderr and the status is 2; on Ctrl-C
    `name: stopped; ` and what to do then, and 130. Other errors are mistakes of framelens and pass through.
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def run(*arguments: P.args, **options: P.kwargs) -> int:
            try:
                return main(*arguments, **options)
            except (ValueError, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"{name}: stopped; {stopped}" if stopped else f"{name}: stopped", file=sys.stderr)
                return 130

        return run

    return decorate
