"""Figures and one page per run: every `fig_<name>.py` here is a figure.

    from reports import load, names
    from reports.runs import open_run

    run = open_run("runs/grid_dit/default")
    figure, table = load("depth").draw(run)

A figure file has `draw(run) -> (Figure, DataFrame)`, `needs` (the datasets it
reads), `order` (its place on the page), `title`, `caption` and `words(table)`
(its numbers as sentences); `is_for_some` where only some models have what it
shows, so that its absence is not worth a word. Nothing in this package imports torch.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType


def names() -> list[str]:
    """The figures that exist, without importing them."""
    return sorted(path.stem.removeprefix("fig_") for path in Path(__file__).parent.glob("fig_*.py"))


def load(name: str) -> ModuleType:
    """The module of one figure; an unknown name raises ValueError listing those that exist."""
    if name not in names():
        raise ValueError(f"no figure is called {name!r}; there are {names()}")
    return import_module(f"reports.fig_{name}")
