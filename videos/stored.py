"""Clips for training that are streamed from files of latents: a .safetensors file, or a folder of them.

    source = open_stored(Path("latents/"))
    batch = source.clips(seeds=range(8), frames=10)

A file holds `latents` [n f c h w], and may hold `text` [n t w] or `actions` [n f] (videos/latents.py). Only
the rows of a batch are read. The last tenth of all clips, at least one, is kept for validation. The others
come in a random order, another one each time that all have been read. The seed alone decides which clip it
gives, so a stopped training resumes with the clips that it would have had.
"""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from framelens import videos
from framelens.videos.clip_order import ClipOrder

HELD_OUT = 10
"""One clip of this number is kept for validation."""
BESIDE = ("text", "actions")


def open_stored(path: Path) -> "StoredClips":
    """The clips of that file, or of the files in that folder; ValueError where there are none."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no .safetensors file of latents (framelens latents writes them)")
    return StoredClips(files)


class StoredClips:
    """Clips in files of equal shapes, read row by row; has what a world has (videos/worlds)."""

    holds_latents = True

    def __init__(self, files: list[Path]):
        self.files = files
        shapes = [_read_shapes(file) for file in files]
        for file, shape in zip(files, shapes, strict=True):
            if {name: size[1:] for name, size in shape.items()} != {n: s[1:] for n, s in shapes[0].items()}:
                raise ValueError(
                    f"{file} holds {shape}, but {files[0]} {shapes[0]}: expected clips of one shape"
                )
        self.shapes = shapes[0]
        counts = [shape["latents"][0] for shape in shapes]
        self.first_rows = np.concatenate([[0], np.cumsum(counts)])
        self.total = int(self.first_rows[-1])
        if self.total < 2:
            raise ValueError(f"{files[0]} holds {self.total} clips: training and validation need one each")
        self.held_out = max(1, self.total // HELD_OUT)
        self._order = ClipOrder(self.total - self.held_out, self.held_out)

    @property
    def SHAPE(self) -> tuple[int, ...]:  # noqa: N802 - the names of a world
        """Channels, height, width."""
        return self.shapes["latents"][2:]

    @property
    def PROMPT(self) -> tuple[int, ...]:  # noqa: N802
        """Tokens and width of a prompt; zeros without prompts."""
        return self.shapes["text"][1:] if "text" in self.shapes else (0, 0)

    @cached_property
    def CONDITIONS(self) -> int:  # noqa: N802
        """How many actions there are: one more than the largest in the first file; 0 without actions."""
        if "actions" not in self.shapes:
            return 0
        with safe_open(self.files[0], framework="np") as file:
            return int(file.get_tensor("actions").max()) + 1

    def clips(self, seeds: Iterable[int], frames: int) -> videos.Clips:
        """One clip per seed, its first `frames` frames; ValueError where clips are shorter."""
        if frames > self.shapes["latents"][1]:
            raise ValueError(f"{self.files[0]} has clips of {self.shapes['latents'][1]} frames, not {frames}")
        return videos.stack([self._read(self._order.row(seed), frames) for seed in seeds])

    def _read(self, row: int, frames: int) -> videos.Clips:
        number = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        inside = row - int(self.first_rows[number])
        try:
            with safe_open(self.files[number], framework="np") as file:
                held = {name: file.get_slice(name)[inside] for name in self.shapes}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"cannot read {self.files[number]}: {error}") from None
        actions = held.get("actions")
        return videos.Clips(
            held["latents"][:frames].astype(np.float32),
            None if actions is None else actions[:frames].astype(np.int64),
            text=held["text"].astype(np.float32) if "text" in held else None,
        )


def _read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that a training reads; ValueError for a damaged or another file."""
    try:
        with safe_open(file, framework="np") as held:
            names = set(held.keys())
            known = [name for name in ("latents", *BESIDE) if name in names]
            found = {name: tuple(held.get_slice(name).get_shape()) for name in known}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {file} as latents: {error}") from None
    if len(found.get("latents", ())) != 5:
        raise ValueError(
            f"{file} holds {', '.join(sorted(names))}: expected latents [clips, frames, channels, h, w]"
        )
    for name, axes in (("text", 3), ("actions", 2)):
        if name in found and (len(found[name]) != axes or found[name][0] != found["latents"][0]):
            raise ValueError(f"{file}: {name} has shape {found[name]} beside {found['latents'][0]} clips")
    return found
