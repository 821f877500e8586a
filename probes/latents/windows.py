"""Windows of video files, or of the films of a public data set: counted first, then read one at a time."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from framelens.videos import Window, files
from framelens.videos.choice import choose_films
from framelens.videos.datasets import open_dataset


def windows(path: Path, frames: int, stride: int, limit: int | None) -> list[Window]:
    """All windows of a file or folder, or `limit` of them from as many films as there are; in order of file
    name, then of time. Decodes films to count. Of a data set, the beginnings of its recordings: those for
    training first.

    Raises ValueError or OSError with one line, also for a file shorter than one window.
    """
    if min(frames, stride, 1 if limit is None else limit) < 1:
        raise ValueError(f"expected counts from 1, got {frames=}, {stride=}, clips={limit}")
    dataset = open_dataset(str(path))
    if dataset is not None:
        films = [recording.path for recording in dataset.recordings]
        other = next((film for film in films if film.suffix not in files.READABLE), None)
        if other is not None:
            raise ValueError(f"{other} is not a film; of data sets, films alone are encoded")
        kept = choose_films(len(films), len(films) if limit is None else limit)
        return [Window(films[film], 0, frames, stride, files.rate_of(films[film])) for film in kept]
    chosen = files.windows_of(path, frames, stride, limit)
    order = list(dict.fromkeys(window.file for window in chosen))
    return sorted(chosen, key=lambda window: (order.index(window.file), window.index))


def conditions_of(path: Path, wanted: list[Window], frames: int) -> dict[str, Tensor]:
    """The actions or classes of these windows of a data set by name; empty for other films."""
    dataset = open_dataset(str(path))
    held = {} if dataset is None else dataset.conditions_of([window.file for window in wanted], frames)
    return {name: torch.from_numpy(values) for name, values in held.items()}


def read(wanted: list[Window], frames: int, size: tuple[int, int], stride: int) -> Iterator[Tensor]:
    """The pixels [1 f c h w] in [-1, 1] of these windows, in order; one is in memory at a time."""
    for file, group in groupby(wanted, lambda window: window.file):
        indices = [window.index for window in group]
        for images in files.windows(file, frames, size, stride, indices):
            yield torch.from_numpy(images).float()[None] / 127.5 - 1
