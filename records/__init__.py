"""The files of a run: they appear whole or not at all, and where they came from.

    replace_file(path, lambda partial: figure.savefig(partial))
    write_netcdf(folder / "compare.nc", dataset)
    write_json(folder / "manifest.json", {"kind": "compare", **origin(command, "torch"), "complete": True})

Imports nothing heavy.
"""

if __name__ != "framelens.records":
    raise ImportError("this folder is the package framelens.records; use that name", name=__name__)

import configparser
import errno
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""The folder of the package: the checkout, or a folder in site-packages."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, a used up quota, and a file that is larger than may be."""


def replace_file(path: Path, fill: Callable[[Path], object]) -> Path:
    """Lets `fill` write a temporary neighbour, then renames it to `path`: old or new content, after a power
    cut too. OSError, which names `path`, where the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        fill(partial)
        sync_to_disk(partial)
        os.replace(partial, path)
        sync_to_disk(path.parent)
    except Exception as error:
        full = _find_no_room(error)
        if full is None:
            raise
        why = f"{full.strerror}; make room, then give the same command"
        raise OSError(full.errno, why, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def _find_no_room(error: BaseException | None) -> OSError | None:
    """The error of a full disk that led to an error, or is it: libraries raise others while they clean up."""
    while error is not None and not (isinstance(error, OSError) and error.errno in NO_ROOM):
        error = error.__cause__ or error.__context__
    return error


def sync_to_disk(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on disk and survive a power cut."""
    if path.is_dir() and os.name == "nt":  # which cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that do without
            raise
    finally:
        os.close(descriptor)


NETCDF_ENGINE = "netcdf4"
"""The library that xarray reads and writes netCDF with."""


def write_netcdf(path: Path, dataset: Any) -> Path:
    """An xarray Dataset as netCDF, its floats compressed."""
    floats = [name for name, variable in dataset.variables.items() if variable.dtype.kind == "f"]
    encoding = {name: {"zlib": True, "complevel": 1} for name in floats}
    # In memory first: HDF5 ends the interpreter where it cannot write a file to its end.
    content = dataset.to_netcdf(None, engine=NETCDF_ENGINE, encoding=encoding)
    return replace_file(path, lambda partial: partial.write_bytes(content))


def read_netcdf(path: Path) -> Any:
    """The xarray Dataset of a netCDF file, in memory; a damaged one raises an error of `records.damage`."""
    import xarray as xr

    return xr.load_dataset(path, engine=NETCDF_ENGINE)


def write_text(path: Path, text: str) -> Path:
    """A text in UTF-8."""
    return replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """A mapping as indented JSON."""
    return write_text(path, json.dumps(values, indent=2) + "\n")


def read_json_object(path: Path) -> dict[str, Any]:
    """The values of a JSON file that holds an object; ValueError, which names the file, for any other."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON: it is nested too deep") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, expected an object")
    return values


def origin(command: str, *packages: str) -> dict[str, Any]:
    """Command, time, git commit and versions: what a manifest needs so that a run can be repeated."""
    versions = {name: version(name) for name in packages}
    return {
        "command": command,
        "created": now(),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version()} | versions,
    }


def as_attributes(about: Mapping[str, Any]) -> dict[str, Any]:
    """What repeats a file, as its netCDF attributes: text and numbers as they are, all else as JSON."""
    plain = {name: value for name, value in about.items() if value is not None}
    return {
        name: value
        if isinstance(value, str | int | float) and not isinstance(value, bool)
        else json.dumps(value)
        for name, value in plain.items()
    }


def now() -> str:
    """The time, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_checkout() -> bool:
    """Whether framelens runs from its repository's files, which hold more than the installed package."""
    return (ROOT / "setup.cfg").exists()


def package_version() -> str:
    """framelens' version: that of the checkout, else as installed; "unknown" where neither is known."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    try:
        return setup.get("metadata", "version", fallback=None) or version("framelens")
    except PackageNotFoundError:
        return "unknown"


def _git_commit() -> str | None:
    """The checkout's commit, with -dirty where files differ; None outside a git checkout of framelens."""
    if not (ROOT / ".git").exists():  # installed below another repository, whose commit would be given
        return None
    command = ["git", "--no-optional-locks", "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
