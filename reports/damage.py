"""A damaged file of a run gives one ValueError that names the file and what to do.

with name_damage("runs/a/b/cut.nc", "run again: make probe"):
    values = stored.cut.load()
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DAMAGE = (
    OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, RuntimeError, ArithmeticError,
    MemoryError,
)  # fmt: skip
"""What the libraries raise for a file that is cut off, overwritten, or lacks what it should hold."""
COUNT, NUMBERS, WHOLE_NUMBERS = "a whole number", "a list of numbers", "a list of whole numbers"
FIELDS = {
    "command": str,
    "model": dict,
    "model.name": str,
    "model.geometry": dict,
    "settings": dict,
    "settings.clips": COUNT,
    "settings.frames": COUNT,
    "settings.context": COUNT,
    "settings.steps": COUNT,
    "settings.probed_frames": WHOLE_NUMBERS,
    "sigmas": NUMBERS,
}
"""What reports read of the manifest of a probe run."""
WORDS = {str: "text", dict: "an object"}


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


def check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """NotReadable where a probe run's manifest lacks what reports read, or holds another kind of value."""
    for field, kind in FIELDS.items():
        value: Any = manifest
        for key in field.split("."):
            value = value.get(key)
        if not _is(value, kind):
            raise NotReadable(
                f"{path} has {field} = {value!r:.80}, which is not {WORDS.get(kind, kind)}; restore the "
                "file, or run the command that made it again"
            )


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, type):
        return isinstance(value, kind)
    if kind == COUNT:
        return _is_number(value, whole=True)
    is_whole = kind == WHOLE_NUMBERS
    return isinstance(value, list) and len(value) > 0 and all(_is_number(item, is_whole) for item in value)


def _is_number(value: Any, whole: bool) -> bool:
    kinds = (int,) if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)
