"""Public data sets in the layouts in which they are published; one file per layout.

    dataset = open_dataset("ucf101@64:UCF101/")         # or the folder alone, whose layout is then recognised
    batch = dataset.clips(seeds=range(8), frames=16)    # Clips

A layout is a file with `recognise(folder)` and `open_folder(folder, side)`; the latter gives RecordedClips,
which have what a world has (videos/worlds). FileNotFoundError names the first file that is missing.
"""

import re
from pathlib import Path

from framelens.records.registry import Registry
from framelens.videos.datasets._recorded import RecordedClips as RecordedClips

_LAYOUTS = Registry(__name__, "data set")
names, load = _LAYOUTS.names, _LAYOUTS.load
NAMED = re.compile(r"(?P<name>\w+)(?:@(?P<side>\d+))?:(?P<folder>.+)")
"""NAME:FOLDER, or NAME@SIDE:FOLDER for frames of SIDE x SIDE pixels."""
LARGEST = 4096
"""Pixels of a side, at most."""


def open_dataset(source: str) -> RecordedClips | None:
    """The data set that a source of videos names, or whose layout the folder has; None for other sources.

    Raises FileNotFoundError, or ValueError in one line, where the folder is not whole.
    """
    named = NAMED.fullmatch(source)
    if named is None or named["name"] not in names():
        folder = Path(source)
        found = [name for name in names() if folder.is_dir() and load(name).recognise(folder)]
        return load(found[0]).open_folder(folder, None) if found else None
    folder, side = Path(named["folder"]), None if named["side"] is None else int(named["side"])
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; expected the folder of {named['name']}")
    if side is not None and not 1 <= side <= LARGEST:
        raise ValueError(f"{source}: frames have 1 to {LARGEST} pixels a side, got {side}")
    return load(named["name"]).open_folder(folder, side)
