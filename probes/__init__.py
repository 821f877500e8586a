"""Experiments, one file each: which passes are run, under which instruments.

    python -m probes --model dense-tiles

An experiment is a file with `measure(subject)`, which gives the Datasets of one clip by name; where all
clips together say more, it also has `conclude(datasets)`.
"""

import importlib
import re
from pathlib import Path
from types import ModuleType

_IS_EXPERIMENT = re.compile(r"^def measure\(", re.MULTILINE)


def names() -> list[str]:
    """The experiments that exist, by file name, without importing them."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return [file.stem for file in files if _IS_EXPERIMENT.search(file.read_text())]


def load(name: str) -> ModuleType:
    """The experiment of that name; an unknown one raises ValueError with those that exist."""
    if name not in names():
        raise ValueError(f"no experiment is called {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"probes.{name}")
