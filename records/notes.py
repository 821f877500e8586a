"""Notes for the user on stderr: what was assumed or left out. Each is printed once per process.

print_note("videos: a.mp4 is interlaced")
"""

import multiprocessing
import sys
from functools import cache


@cache
def print_note(text: str) -> None:
    """Prints the text as one line on stderr, the first time; worker processes print nothing."""
    if multiprocessing.parent_process() is None:
        sys.stderr.write(f"{text}\n")
