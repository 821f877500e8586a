"""The source files that an adapter's model is made of: its own file, and the local modules that it imports.

files = read_sources(Path("my_adapter.py"), imported)

A module is local if it is neither of Python, nor installed, nor of framelens.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from framelens.models.loading.model_errors import owner_of
from framelens.records.identity import CodeFile

_read: WeakKeyDictionary[ModuleType, tuple[Any, CodeFile]] = WeakKeyDictionary()
"""Modules with the code that Python imported, and the spec it did this by: it does not import them again if
their files change, unless they are reloaded."""


def read_sources(adapter: Path, imported: Iterable[str]) -> tuple[CodeFile, ...]:
    """The adapter first, then the local modules that it names in an import or that were `imported` with it.

    Imports inside functions count too. Names are relative to the adapter's folder.
    """
    adapter = adapter.resolve()
    files = {adapter: CodeFile.read(adapter, adapter.name)}
    waiting = [*imported, *_imports(adapter, "", is_package=False)]
    while waiting:
        name = waiting.pop()
        path = _local_file(name, adapter.parent)
        if path is not None and path not in files:
            files[path] = _read_module(name, path, adapter.parent)
            if path.suffix == ".py":
                waiting += _imports(path, name, path.stem == "__init__")
    first, *others = files.values()
    return first, *sorted(others, key=lambda file: file.name)


def _read_module(name: str, path: Path, folder: Path) -> CodeFile:
    module = sys.modules.get(name)
    shown = path.relative_to(folder).as_posix() if folder in path.parents else f"{name} ({path.name})"
    if module is None:
        return CodeFile.read(path, shown)
    spec, code = _read.get(module, (None, None))
    if code is None or spec is not module.__spec__:
        code = CodeFile.read(path, shown)
        _read[module] = module.__spec__, code
    return code


def _local_file(name: str, folder: Path) -> Path | None:
    """The file of a local module: of an imported one, or of one in the folder that is not imported yet."""
    stated = getattr(sys.modules.get(name), "__file__", None)
    if stated is None:
        place = folder.joinpath(*name.split("."))
        candidates = [place.with_name(f"{place.name}.py"), place / "__init__.py"]
    else:
        candidates = [Path(stated).resolve()]
    return next((path for path in candidates if path.is_file() and owner_of(path) == "user"), None)


def _imports(path: Path, name: str, is_package: bool) -> Iterator[str]:
    """The dotted names that a file may import, with the packages that they are in."""
    package = name if is_package else name.rpartition(".")[0]
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return  # a file beside the adapter that nothing has imported yet
    for node in nodes:
        for found in _names_in(node, package):
            parts = found.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _names_in(node: ast.AST, package: str) -> Iterator[str]:
    """The dotted names that one statement imports, or a call of import_module with a text."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(level=0, module=str(module), names=names):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.ImportFrom(level=level, module=module, names=names):
            if package and package.count(".") + 1 >= level:
                base = resolve_name("." * level + (module or ""), package)
                yield from (f"{base}.{alias.name}" for alias in names)
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
            args=[ast.Constant(value=str(stated)), *_],
        ) if not stated.startswith("."):
            yield stated
