"""Clips of a game, made when they are first wanted and kept in files: groups of seeds, one file each.

    kept = MadeOnce("doom", {"version": 1}, 16, make)
    batch = kept.clips(seeds=range(8), frames=10)      # makes seeds 0 to 15 where their file is missing

The files are in FRAMELENS_CACHE, or ~/.cache/framelens. Each is written whole or not at all, so that an
interrupted command goes on with the groups that are there. `make(seeds)` gives the arrays of these clips:
`video` uint8 [n f c h w], `actions` [n f], and the state.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framelens import videos
from framelens.records import replace_file
from framelens.records.notes import print_note

GROUP = 16  # clips in a file
TRAINING = 2048
"""Different clips of training; higher seeds begin again with the first. Validation has no such limit."""
CACHE = "FRAMELENS_CACHE"
"""The environment variable with the folder of these files."""
_HELD = 8  # groups in memory


def cache_folder() -> Path:
    """The folder that FRAMELENS_CACHE names, or ~/.cache/framelens; it need not exist."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "framelens")


def _require_writable(folder: Path, name: str) -> None:
    """Makes the folder, before any clip is made; ValueError where files cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        raise ValueError(f"clips of {name} cannot be kept in {folder}: set {CACHE} to a folder of yours")


@dataclass
class MadeOnce:
    """The clips of one game by seed."""

    name: str
    settings: dict[str, Any]
    """What decides the clips besides the seed, `version` among it, by which folders are named; kept in each
    file and compared when it is read."""
    frames: int
    """Frames of a clip in the files."""
    make: Callable[[list[int]], dict[str, np.ndarray]]
    group: int = GROUP
    """Clips in a file."""
    _read: dict[Path, dict[str, np.ndarray]] = field(default_factory=dict)

    def clips(self, seeds: Iterable[int], frames: int) -> videos.Clips:
        """One clip per seed, its first `frames` frames. ValueError for longer ones and unusable files."""
        if frames > self.frames:
            raise ValueError(f"clips of {self.name} have {self.frames} frames, not {frames}: ask for fewer")
        return videos.stack([self._clip(seed, frames) for seed in seeds])

    def _clip(self, seed: int, frames: int) -> videos.Clips:
        own = seed if seed >= videos.VALIDATION_SEED else seed % TRAINING
        first, row = own - own % self.group, own % self.group
        held = {name: values[row, :frames] for name, values in self._group(first).items()}
        video = held.pop("video").astype(np.float32) / 127.5 - 1
        return videos.Clips(video, held.pop("actions").astype(np.int64), held)

    def _group(self, first: int) -> dict[str, np.ndarray]:
        """The arrays of a file; makes it where it is missing."""
        part = f"training-{first:04d}"
        if first >= videos.VALIDATION_SEED:
            part = f"validation-{first - videos.VALIDATION_SEED:04d}"
        path = cache_folder() / f"{self.name}-{self.settings['version']}" / f"{part}.npz"
        if path not in self._read:
            if not path.exists():
                self._write(path, list(range(first, first + self.group)))
            while len(self._read) >= _HELD:
                self._read.pop(next(iter(self._read)))
            self._read[path] = self._open(path)
        return self._read[path]

    def _write(self, path: Path, seeds: list[int]) -> None:
        _require_writable(path.parent, self.name)
        arrays = self.make(seeds)
        settings = np.array(json.dumps(self.settings, sort_keys=True))

        def fill(partial: Path) -> None:
            with partial.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, settings=settings, **arrays)

        replace_file(path, fill)
        print_note(f"clips of {self.name} are made once and kept in {path.parent}")

    def _open(self, path: Path) -> dict[str, np.ndarray]:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                held = {name: arrays[name] for name in arrays.files}
            settings = json.loads(str(held.pop("settings")))
            shapes = {values.shape[:2] for values in held.values()}
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it, and it is made again") from None
        is_whole = shapes == {(self.group, self.frames)} and {"video", "actions"} <= {*held}
        if settings != self.settings or not is_whole:
            raise ValueError(
                f"{path} was made with other settings ({settings}): delete the folder, and it is made again"
            )
        return held
