"""Windows of video files: counted first, then read one at a time."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from framelens.videos import Window, files


def windows(path: Path, frames: int, stride: int, limit: int | None) -> list[Window]:
    """All windows of a file or folder, or `limit` of them from as many films as there are; in order of file
    name, then of time. Decodes films to count.

    Raises ValueError or OSError with one line, also for a file shorter than one window.
    """
    if min(frames, stride, 1 if limit is None else limit) < 1:
        raise ValueError(f"expected counts from 1, got {frames=}, {stride=}, clips={limit}")
    chosen = files.windows_of(path, frames, stride, limit)
    order = list(dict.fromkeys(window.file for window in chosen))
    return sorted(chosen, key=lambda window: (order.index(window.file), window.index))


def read(wanted: list[Window], frames: int, size: tuple[int, int], stride: int) -> Iterator[Tensor]:
    """The pixels [1 f c h w] in [-1, 1] of these windows, in order; one is in memory at a time."""
    for file, group in groupby(wanted, lambda window: window.file):
        indices = [window.index for window in group]
        for images in files.windows(file, frames, size, stride, indices):
            yield torch.from_numpy(images).float()[None] / 127.5 - 1
