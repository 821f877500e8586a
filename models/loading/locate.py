"""Finds a model by its name: a shipped model, a file or folder, a hub id, or a function of the user.

    find("dense-tiles"), find("runs/train/x"), find("org/name@main"), find("org/name/checkpoints/a.pt"),
    find("my_adapter.py:load")

This module imports neither torch nor the hub's library.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from framelens.records import is_checkout

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<inside>.+))?")
REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*")
ADAPTER = re.compile(r"(?P<file>.+\.py):(?P<function>.*)")
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
FOLDER_MARKS = ("model.safetensors", "model.safetensors.index.json", "model_index.json", "config.json")
"""A folder with one of these is a model: our checkpoint, whole or in shards, a diffusers pipeline, or a
diffusers model."""


@dataclass(frozen=True)
class Place:
    """The place of a model. It exists, unless it is on the hub."""

    kind: Literal["file", "folder", "adapter", "hub"]
    name: str
    """As the user gave it."""
    path: Path
    """The file or folder; on the hub, the path inside the repository, "." for the whole repository."""
    function: str | None = None
    """For an adapter: the function of the file that makes the model."""
    repo: str | None = None
    revision: str | None = None

    @property
    def label(self) -> str:
        """The name of the folder for the model's results."""
        if self.kind == "hub":
            assert self.repo is not None
            inside = [] if self.path == Path(".") else [self.path.with_suffix("").as_posix()]
            return "--".join([self.repo, *inside]).replace("/", "--")
        path = self.path.resolve()
        return path.parent.name if path.stem == "model" else path.stem if self.kind != "folder" else path.name


def find(name: str, shipped: dict[str, Path]) -> Place:
    """The place of a shipped name, a local path, an adapter's function or a hub id.

    Raises ValueError or FileNotFoundError, in one line that says what was searched.
    """
    if name in shipped:
        return Place("file", name, shipped[name])
    adapter = ADAPTER.fullmatch(name)
    if adapter:
        file, function = Path(adapter["file"]), adapter["function"]
        if not function.isidentifier():
            got = f"got {function!r}" if function else "the name is missing"
            raise ValueError(f"{name}: give the function that makes the model, as in {file}:load; {got}")
        if not file.exists():
            raise FileNotFoundError(f"no adapter exists at {file}")
        return Place("adapter", name, file, function)
    path = Path(name)
    if path.exists():
        return _find_on_disk(name, path)
    bare, revision = _split_revision(name)
    hub = HUB_ID.fullmatch(bare)
    if hub and not path.is_absolute() and not name.startswith(".") and not _looks_local(name, path):
        inside = Path(hub["inside"] or ".")
        if ".." in inside.parts:
            raise ValueError(f"{name}: {inside} leaves the repository")
        if inside != Path(".") and inside.suffix and inside.suffix not in WEIGHTS_SUFFIXES:
            raise ValueError(
                f"{name}: {inside} is not a checkpoint; give one of {', '.join(WEIGHTS_SUFFIXES)}"
            )
        return Place("hub", name, inside, None, hub["repo"], revision)
    if path.suffix or "/" in name:
        raise FileNotFoundError(f"no checkpoint exists at {name}")
    others = "a hub id (org/name) or an adapter (file.py:function)"
    there = ", ".join(sorted(shipped))
    if not is_checkout():
        raise ValueError(
            f"{name!r} is not in the installed package, which holds {there}: give the path of "
            f"models/weights/{name}.safetensors in a checkout of framelens, of another checkpoint, {others}"
        )
    raise ValueError(f"no model is called {name!r}; there are {there}; or give a checkpoint's path, {others}")


def _split_revision(name: str) -> tuple[str, str | None]:
    """A hub id, and its revision: the part after the last @, unless that part is the end of a file name."""
    bare, _, revision = name.rpartition("@")
    if not bare or revision.endswith(WEIGHTS_SUFFIXES) or not REVISION.fullmatch(revision):
        return name, None
    return bare, revision


def _find_on_disk(name: str, path: Path) -> Place:
    if path.is_file():
        if path.suffix == ".py":
            raise ValueError(f"{name} is Python: name the function that makes the model, as in {name}:load")
        return Place("file", name, path)
    if (path / "model.safetensors").exists() and not (path / "config.json").exists():
        return Place("file", name, path / "model.safetensors")
    if not any((path / mark).exists() for mark in FOLDER_MARKS):
        raise FileNotFoundError(f"{path} holds no model; expected one of {', '.join(FOLDER_MARKS)} in it")
    return Place("folder", name, path)


def _looks_local(name: str, path: Path) -> bool:
    """Whether the name is a local path: its first folder exists, or it is a file in one folder."""
    first = path.parts[0] if path.parts else ""
    return Path(first).is_dir() or (len(path.parts) == 2 and path.suffix in WEIGHTS_SUFFIXES)
