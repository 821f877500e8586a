"""A model from a function in a file of the user: an adapter. The file is code, and it is run.

Python can import the files beside it while it runs, as for a script, even if a folder beside it has the name
of a folder of framelens.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from framelens.models.loading.declared import refuse_undeclared
from framelens.models.loading.import_remedy import ROOT, remedy
from framelens.models.loading.locate import Place
from framelens.models.loading.model_errors import error_line
from framelens.models.loading.sources import read_sources
from framelens.records.identity import CodeFile

OWN_MESSAGE = (ValueError, OSError, torch.OutOfMemoryError)  # pyright: ignore[reportPrivateImportUsage]
"""Errors of an adapter whose message is shown unchanged: it says why the adapter gives no model."""


_imported: dict[Path, set[str]] = {}
"""The modules that were imported while an adapter ran, by its file: Python imports them once."""


def make_model(place: Place, asked: dict[str, Any]) -> tuple[Any, tuple[CodeFile, ...]]:
    """The model from the adapter's function, and the source files that it is made of.

    ValueError, in one line, for a wrong file, setting or model.
    """
    model, code = run_function(place, asked)
    refuse_undeclared(model, place.name)
    return model, code


def run_function(place: Place, asked: dict[str, Any]) -> tuple[Any, tuple[CodeFile, ...]]:
    """What a function of a file of the user gives, and the source files that it is made of.

    ValueError, in one line, for a wrong file or setting.
    """
    assert place.function is not None
    before = set(sys.modules)
    with _import_path(place.path.resolve().parent):
        try:
            function = _find_function(_import_file(place.path), place.path, place.function)
            _check_asked(function, place.name, asked)
            made = function(**asked)
        except OWN_MESSAGE:
            raise
        except ImportError as error:
            raise ValueError(f"{place.path} cannot be imported: {error}{remedy(error)}") from error
        except (Exception, SystemExit) as error:
            raise ValueError(f"{place.name} raised {error_line(error)}") from error
    imported = _imported.setdefault(place.path.resolve(), set())
    imported |= sys.modules.keys() - before
    return made, read_sources(place.path, imported)


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """Puts the folder first on Python's import path, and removes the folder of framelens from it.

    A command that starts in a checkout has that checkout on the path. Its models/ would hide a models/
    without __init__.py beside the adapter.
    """
    own = [(index, entry) for index, entry in enumerate(sys.path) if Path(entry).resolve() == ROOT]
    sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for index, entry in own:
            sys.path.insert(index, entry)


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"framelens_adapter_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{path} is not valid Python: line {error.lineno}, {error.msg}") from None
    return module


def _find_function(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    if not callable(getattr(module, name, None)):
        things = (
            value for value in vars(module).values() if inspect.isfunction(value) or inspect.isclass(value)
        )
        found = sorted(thing.__name__ for thing in things if thing.__module__ == module.__name__)
        raise ValueError(f"{path} has no function {name!r}; it has {', '.join(found) or 'none'}")
    return getattr(module, name)


def _check_asked(function: Callable[..., Any], name: str, asked: dict[str, Any]) -> None:
    """Raises ValueError for a setting that is not a parameter, or a required parameter without a setting."""
    signature = inspect.signature(function)
    try:
        signature.bind(**asked)
    except TypeError as error:
        can = ", ".join(str(parameter) for parameter in signature.parameters.values()) or "nothing"
        raise ValueError(f"{name}: {error}; its parameters are {can} (--set NAME=VALUE)") from None
