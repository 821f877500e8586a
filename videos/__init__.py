"""Where videos come from; one file per source.

    source = videos.load("tiles")
    batch = source.clips(seeds=range(8), frames=16)      # Clips

A world is a file with `clips(seeds, frames)` and the constants SHAPE (channels, height, width) and CONDITIONS
(how many actions there are). Where what a frame shows can be measured it also has `state_error(video, state)`
[b f] and says in STATE_ERROR what that is. `files.py` reads real video files; `scores.py` compares videos.
"""

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

_IS_WORLD = re.compile(r"^SHAPE\b", re.MULTILINE)

VALIDATION_SEED = 1_000_000_000
"""Procedural worlds: seeds below this number train, seeds from it on validate."""


@dataclass(frozen=True)
class Clips:
    """A batch of clips with whatever is known about them.

    video: float32 [b f c h w] in [-1, 1]. actions: int64 [b f]; the action at i leads to frame i,
    the first is 0. state: arrays [b f ...] in units that the source's file states.
    """

    video: np.ndarray
    actions: np.ndarray | None = None
    state: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.video)


def names() -> list[str]:
    """The worlds that exist, by file name: the files of this folder that declare a SHAPE."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return [file.stem for file in files if _IS_WORLD.search(file.read_text())]


def load(name: str) -> ModuleType:
    """The source of that name; an unknown one raises ValueError with the names that exist."""
    if name not in names():
        raise ValueError(f"no video source is called {name!r}; there are {', '.join(names())}")
    return importlib.import_module(f"videos.{name}")


def stack(clips: list[Clips]) -> Clips:
    """One batch of several single clips of equal length."""
    actions = [clip.actions for clip in clips if clip.actions is not None]
    return Clips(
        np.stack([clip.video for clip in clips]),
        np.stack(actions) if actions else None,
        {name: np.stack([clip.state[name] for clip in clips]) for name in clips[0].state},
    )
