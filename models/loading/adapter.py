"""A model from a function of the user's own file: the file is code, and is run.

Its folder is on the import path while it runs, as that of a script is: what lies beside it is found, also
where its name is that of a folder of framelens.
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

TOLD = (ValueError, OSError, torch.OutOfMemoryError)  # pyright: ignore[reportPrivateImportUsage]
"""What an adapter may raise to say in its own words why there is no model."""


def built(place: Place, asked: dict[str, Any]) -> Any:
    """What the function gives; ValueError, in one line, for a file, request or model that will not do."""
    assert place.function is not None
    with _import_path(place.path.resolve().parent):
        try:
            function = _function(_module(place.path), place.path, place.function)
            _check_asked(function, place.name, asked)
            model = function(**asked)
        except TOLD:
            raise
        except ImportError as error:
            raise ValueError(f"{place.path} cannot be imported: {error}{remedy(error)}") from error
        except Exception as error:
            raise ValueError(f"{place.name} raised {error_line(error)}") from error
    refuse_undeclared(model, place.name)
    return model


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    """Puts the folder first on Python's path, and takes framelens' own off it.

    Where a command is started in a checkout, that one is on the path, and its models/ would hide a models/
    beside the adapter that has no __init__.py.
    """
    own = [(index, entry) for index, entry in enumerate(sys.path) if Path(entry).resolve() == ROOT]
    sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for index, entry in own:
            sys.path.insert(index, entry)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"framelens_adapter_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{path} is not valid Python: line {error.lineno}, {error.msg}") from None
    return module


def _function(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    if not callable(getattr(module, name, None)):
        things = (
            value for value in vars(module).values() if inspect.isfunction(value) or inspect.isclass(value)
        )
        found = sorted(thing.__name__ for thing in things if thing.__module__ == module.__name__)
        raise ValueError(f"{path} has no function {name!r}; it has {', '.join(found) or 'none'}")
    return getattr(module, name)


def _check_asked(function: Callable[..., Any], name: str, asked: dict[str, Any]) -> None:
    """Raises ValueError for what the function has no parameter for, or has to be told and is not."""
    signature = inspect.signature(function)
    try:
        signature.bind(**asked)
    except TypeError as error:
        can = ", ".join(str(parameter) for parameter in signature.parameters.values()) or "nothing"
        raise ValueError(f"{name}: {error}; it can be told {can} (--set NAME=VALUE)") from None
