"""Notes for the user on stderr: what was assumed or left out. Each is printed once per process.

print_note("videos: a.mp4 is interlaced")
"""

import multiprocessing
import os
import sys
from functools import cache

VERBOSITY = "FRAMELENS_VERBOSITY"
"""The environment variable with how much is printed: -1 results and errors, 0 also notes and progress, 1 also
what each part takes. Worker processes inherit it."""


@cache
def print_note(text: str) -> None:
    """Prints the text as one line on stderr, the first time; worker processes print nothing."""
    if multiprocessing.parent_process() is None and not is_quiet():
        sys.stderr.write(f"{text}\n")


def is_quiet() -> bool:
    """Whether the user wants results and errors only (-q)."""
    return os.environ.get(VERBOSITY) == "-1"


def is_verbose() -> bool:
    """Whether the user wants what each part takes (-v)."""
    return os.environ.get(VERBOSITY) == "1"
