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

    def describe(self, frames: int, stride: int) -> dict[str, Any]:
        """The file's name and the first frame in it."""
        return {"file": self.file.name, "first_frame": self.index * frames * stride, "stride": stride}


def windows(path: Path, frames: int, stride: int, limit: int | None) -> list[Window]:
    """The first `limit` windows of a file or folder, in order of file name; no frame is decoded.

    Raises ValueError or OSError with one line, also for a file shorter than one window.
    """
    if min(frames, stride, 1 if limit is None else limit) < 1:
        raise ValueError(f"expected counts from 1, got {frames=}, {stride=}, clips={limit}")
    found = []
    for file in files.files_of(path):
        found += [Window(file, index) for index in range(files.count_windows(file, frames, stride))]
        if limit is not None and len(found) >= limit:
            break
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
