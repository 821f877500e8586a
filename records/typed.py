"""Frozen dataclasses as JSON files: read with every field there and of its type, written whole or not at all.

    plan = read(Plan, path, "plan", again="framelens plan --model X ...")
    write(path, "plan", plan)

A file says what `kind` of file it is and in which `format` it was written. Imports nothing heavy.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from framelens.records import read_json_object, write_json
from framelens.records.checks import check_types

FORMAT = 1
"""The version of the layout of plans and manifests. A file of another version is not read."""
T = TypeVar("T")


def read(cls: type[T], path: Path, kind: str, again: str) -> T:
    """The dataclass in a JSON file of that kind.

    FileNotFoundError where there is none; ValueError in one line for a damaged file, one of another kind or
    version, and a field that is missing or of another type. Both say what makes the file (again): the command
    that the file itself names, or else `again`.
    """
    values = read_values(path, kind, again)
    try:
        return build(cls, {name: value for name, value in values.items() if name not in ("kind", "format")})
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {_advice(values, again)}") from None


def read_values(path: Path, kind: str | None, again: str) -> dict[str, Any]:
    """The JSON in a file of that kind, of any kind for None, in today's format; errors as of `read`."""
    if not path.exists():
        raise FileNotFoundError(f"found no {kind or 'manifest'} at {path}; make one: {again}")
    try:
        values = read_json_object(path)
    except (ValueError, RecursionError) as error:
        error = error if isinstance(error, ValueError) else f"{path} is not valid JSON: {error}"
        raise ValueError(f"{error}; make it again: {again}") from None
    found = values.get("kind")
    if found is not None and kind not in (found, None):
        raise ValueError(f"{path} is not a {kind} but a file of kind {found!r}; make one: {again}")
    if values.get("format") != FORMAT or found is None:
        version = "it has no kind" if found is None else f"format {values.get('format')}, expected {FORMAT}"
        raise ValueError(
            f"{path} is not a {kind or 'manifest'} of this version ({version}); {_advice(values, again)}"
        )
    return values


def write(path: Path, kind: str, value: Any) -> Path:
    """Writes a dataclass as a JSON file of that kind."""
    return write_json(path, {"kind": kind, "format": FORMAT} | asdict(value))


def build(cls: type[T], values: Any, name: str = "") -> T:
    """The dataclass of plain values; ValueError for fields that are missing, unknown or of another type."""
    assert is_dataclass(cls)
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be a mapping of names to values, got {values!r}")
    prefix, kinds = f"{name}." if name else "", get_type_hints(cls)
    missing = [
        f"{prefix}{field.name}"
        for field in fields(cls)
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    unknown = [f"{prefix}{key}" for key in values if key not in kinds]
    if missing or unknown:
        what = "it has no" if missing else "it has an unknown"
        raise ValueError(f"{what} {', '.join(missing or unknown)}")
    return cls(**{key: _value(kinds[key], value, f"{prefix}{key}") for key, value in values.items()})


def check_entries(values: Mapping[str, Any], kinds: Mapping[str, Any], name: str) -> None:
    """ValueError where a mapping has no entry of one of these names, or one of another type."""
    missing = [f"{name}.{key}" for key in kinds if key not in values]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    for key, kind in kinds.items():
        _value(kind, values[key], f"{name}.{key}")


def _value(kind: Any, value: Any, name: str) -> Any:
    """A value of that annotation: dataclasses are built, lists become tuples, all else is checked."""
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if kind is Any or (value is None and NoneType in parts):
        return value
    held = [part for part in parts if part is not NoneType]
    if len(held) == 1 and is_dataclass(held[0]):
        return build(held[0], value, name)  # pyright: ignore[reportArgumentType]
    check_types({name: value}, {name: kind})
    if len(held) == 1 and get_origin(held[0]) is tuple:
        inner = get_args(held[0])[0]
        return tuple(_value(inner, part, f"{name}[{index}]") for index, part in enumerate(value or ()))
    return value


def _advice(values: Mapping[str, Any], again: str) -> str:
    command = values.get("command")
    return f"make it again: {command if isinstance(command, str) and command else again}"
