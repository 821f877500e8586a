"""Sources of videos: worlds/ has one file per procedural world, `files` reads video files.

    world = worlds.load("tiles")
    batch = world.clips(seeds=range(8), frames=16)      # Clips

`latents` reads and writes files of latents; `scores` compares videos.
"""

if __name__ != "framelens.videos":
    raise ImportError("this folder is the package framelens.videos; use that name", name=__name__)

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

VALIDATION_SEED = 1_000_000_000
"""In procedural worlds, seeds below this number are for training, the others for validation."""


@dataclass(frozen=True)
class Window:
    """The place of a clip in a film: the window number `index` of `frames` consecutive kept frames."""

    file: Path
    index: int
    frames: int
    stride: int = 1
    """Every `stride`-th frame of the film is kept."""
    frame_rate: float | None = None
    """Frames per second of the film, on average; None if the file does not store it."""

    @property
    def film(self) -> str:
        """The film's file name."""
        return self.file.name

    @property
    def first_frame(self) -> int:
        """The number of the clip's first frame in the film."""
        return self.index * self.frames * self.stride

    def describe(self) -> dict[str, Any]:
        """The name of the film, its frame rate, and the frames of it that the clip has, as plain values."""
        return {
            "file": self.film,
            "first_frame": self.first_frame,
            "frames": self.frames,
            "stride": self.stride,
            "frame_rate": self.frame_rate,
        }

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> "Window":
        """The window that `describe` gave; KeyError, TypeError or ValueError for other values."""
        names = ("first_frame", "frames", "stride")
        first, frames, stride = (int(described[name]) for name in names)
        if min(frames, stride) < 1:
            raise ValueError(f"expected counts from 1, got {frames=}, {stride=}")
        return cls(
            Path(described["file"]), first // (frames * stride), frames, stride, described["frame_rate"]
        )


@dataclass(frozen=True)
class Clips:
    """A batch of clips with what is known about them.

    video: float32 [b f c h w] in [-1, 1]. actions: int64 [b f]; the action at i leads to frame i,
    the first is 0. state: arrays [b f ...] in units that the source's file states. windows: the place of
    each clip in its film; empty for clips that are not from films. text: embeddings of prompts, float32
    [b t w]. labels: the class of each clip, int64 [b].
    """

    video: np.ndarray
    actions: np.ndarray | None = None
    state: dict[str, np.ndarray] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    text: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.video)


def stack(clips: list[Clips]) -> Clips:
    """One batch from single clips of equal length."""
    actions = [clip.actions for clip in clips if clip.actions is not None]
    text = [clip.text for clip in clips if clip.text is not None]
    labels = [clip.labels for clip in clips if clip.labels is not None]
    return Clips(
        np.stack([clip.video for clip in clips]),
        np.stack(actions) if actions else None,
        {name: np.stack([clip.state[name] for clip in clips]) for name in clips[0].state},
        text=np.stack(text) if text else None,
        labels=np.stack(labels) if labels else None,
    )
