"""Windows of video files: counted first, then read one at a time."""

from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

import torch
from torch import Tensor

from framelens.videos import Window, files


def windows(path: Path, frames: int, stride: int, limit: int | None) -> list[Window]:
    """The first `limit` windows of a file or folder, in natural order of file name. Decodes films to count.

    Raises ValueError or OSError with one line, also for a file shorter than one window.
    """
    if min(frames, stride, 1 if limit is None else limit) < 1:
        raise ValueError(f"expected counts from 1, got {frames=}, {stride=}, clips={limit}")
    found = []
    for file in files.files_of(path):
        left = None if limit is None else limit - len(found)
        count, rate = files.count_windows(file, frames, stride, left), files.rate_of(file)
        found += [Window(file, index, frames, stride, rate) for index in range(count)]
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
