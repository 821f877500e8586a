"""Windows of video files: counted first, then read one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framelens.videos import files


@dataclass(frozen=True)
class Window:
    """The place of a clip: its file, and the number of its window of consecutive kept frames."""

    file: Path
    index: int
    frames_per_second: float | None = None
    """Of the film, on average; None if the file does not store it."""

    def describe(self, frames: int, stride: int) -> dict[str, Any]:
        """The file's name and its frames per second, and the first frame in it."""
        first, rate = self.index * frames * stride, self.frames_per_second
        return {"file": self.file.name, "first_frame": first, "stride": stride, "frame_rate": rate}


def windows(path: Path, frames: int, stride: int, limit: int | None) -> list[Window]:
    """The first `limit` windows of a file or folder, in order of file name. Decodes films to count.

    Raises ValueError or OSError with one line, also for a file shorter than one window.
    """
    if min(frames, stride, 1 if limit is None else limit) < 1:
        raise ValueError(f"expected counts from 1, got {frames=}, {stride=}, clips={limit}")
    found = []
    for file in files.files_of(path):
        left = None if limit is None else limit - len(found)
        count, rate = files.count_windows(file, frames, stride, left), files.rate_of(file)
        found += [Window(file, index, rate) for index in range(count)]
        if limit is not None and len(found) >= limit:
            break
    files.note_rates({window.file: None for window in found})
    return found[:limit]


def read(wanted: list[Window], frames: int, size: tuple[int, int], stride: int) -> Iterator[Tensor]:
    """The pixels [1 f c h w] in [-1, 1] of these windows, in order; one is in memory at a time."""
    for file, group in groupby(wanted, lambda window: window.file):
        indices = [window.index for window in group]
        held = enumerate(islice(files.windows(file, frames, size, stride), indices[-1] + 1))
        given = 0
        for index, images in held:
            if index in indices:
                given += 1
                yield torch.from_numpy(images).float()[None] / 127.5 - 1
        if given != len(indices):
            raise ValueError(f"{file} ends before its last frame: it is damaged; remove or repair it")
