"""How figures are written for a publication: their width, further file formats, without the title.

with publication(Publication(width=3.4, has_title=False, formats=("svg",))):
    style.save(module.draw(run)[0], table, path)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

FORMATS = ("svg", "eps")
"""Formats beside PNG, PDF and CSV, which are always written."""
NARROWEST, WIDEST = 2.0, 20.0


@dataclass(frozen=True)
class Publication:
    """What a publication asks of figures."""

    width: float | None = None
    """Inches; None for the width of the page. The height stays, and so do the sizes of letters."""
    has_title: bool = True
    """Whether the title, the model and the clips are written above the figure."""
    formats: tuple[str, ...] = ()
    """Formats of FORMATS that are written, too."""

    def __post_init__(self):
        if self.width is not None and not NARROWEST <= self.width <= WIDEST:
            raise ValueError(f"--width is {NARROWEST:g} to {WIDEST:g} inches, got {self.width:g}")


_current: ContextVar[Publication | None] = ContextVar("publication", default=None)


def current() -> Publication:
    """What holds for the figures that are drawn now."""
    return _current.get() or Publication()


@contextmanager
def publication(wanted: Publication) -> Iterator[None]:
    """Within it, figures are drawn and saved as that publication asks."""
    token = _current.set(wanted)
    try:
        yield
    finally:
        _current.reset(token)
