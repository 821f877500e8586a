"""Statistics and conclusions, one file each; no files, no models, no plots.

    from analyses import load, names
    statistic = load("step_similarity").Statistic()
    statistic.add(at, hook_name, value)        # for every firing
    statistic.result()                         # -> xarray.Dataset

A file with a `class Statistic` is a streaming statistic; the other files hold
plain functions (`analyses.intervals.bootstrap`) and are imported by their name.
"""

import importlib
import re
from pathlib import Path
from types import ModuleType

_DECLARES_STATISTIC = re.compile(r"^class Statistic\b", re.MULTILINE)


def names() -> list[str]:
    """The streaming statistics, by file name, found by reading the files and not by importing them."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return [file.stem for file in files if _DECLARES_STATISTIC.search(file.read_text(encoding="utf-8"))]


def load(name: str) -> ModuleType:
    """The module of one streaming statistic: its `reads` and its class `Statistic`."""
    if name not in names():
        raise ValueError(f"no statistic is called {name!r}; there are {names()}")
    return importlib.import_module(f"{__name__}.{name}")
