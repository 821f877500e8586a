"""A damaged file of a run gives one ValueError that names the file and what to do.

with name_damage("runs/a/b/cut.nc", "run again: make probe"):
    values = stored.cut.load()
"""

from collections.abc import Iterator
from contextlib import contextmanager

DAMAGE = (
    OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, RuntimeError, ArithmeticError,
    MemoryError,
)  # fmt: skip
"""What the libraries raise for a file that is cut off, overwritten, or lacks what it should hold."""


class NotReadable(ValueError):
    """A file of a run is damaged, or lacks what is read from it; the message names it."""


class NotShown(ValueError):
    """A figure cannot show what was measured; the message gives what it needs."""


@contextmanager
def name_damage(what: str, remedy: str) -> Iterator[None]:
    """NotReadable, with `what` and the remedy, for what a damaged file raises inside."""
    try:
        yield
    except (NotReadable, NotShown, FileNotFoundError):
        raise
    except DAMAGE as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NotReadable(f"{what} cannot be read ({why}); {remedy}") from error
