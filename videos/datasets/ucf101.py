"""UCF-101 as it is published: folders of films by class, and the lists of a split (Soomro et al. 2012).

    UCF101/UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi, ...
    UCF101/ucfTrainTestlist/classInd.txt, trainlist01.txt, testlist01.txt

The lists, and the folders of the classes, may also stand in the folder itself. Split 1 is read. Films are
cropped about their centre and resized, to 64 x 64 pixels where no size is given. The class is the condition.
"""

from pathlib import Path

import numpy as np

from framelens.videos import Clips
from framelens.videos.datasets._recorded import (
    RecordedClips,
    StoredRecording,
    read_film,
    require_some,
    require_there,
)

SIDE = 64
LISTS, FILMS = "ucfTrainTestlist", "UCF-101"
CLASSES, TRAINING, VALIDATION = "classInd.txt", "trainlist01.txt", "testlist01.txt"
WHAT = "UCF-101"


def recognise(folder: Path) -> bool:
    """Whether the folder has the lists of UCF-101, or the folder of its films beside it."""
    return any((folder / place).exists() for place in (LISTS, TRAINING, FILMS))


def open_folder(folder: Path, side: int | None) -> RecordedClips:
    """The films of split 1 in frames of `side` x `side` pixels."""
    lists = folder if (folder / TRAINING).exists() else folder / LISTS
    require_there([lists / name for name in (CLASSES, TRAINING, VALIDATION)], WHAT)
    films = folder / FILMS if (folder / FILMS).is_dir() else folder
    classes = _read_classes(lists / CLASSES)
    training, validation = (_read_list(lists / name, films, classes) for name in (TRAINING, VALIDATION))
    return UcfClips(training, validation, (3, side or SIDE, side or SIDE), len(classes))


class UcfClips(RecordedClips):
    """The films of UCF-101."""

    def read(self, recording: StoredRecording, frames: int, start: float) -> Clips:
        """The frames and the class."""
        _, video = read_film(recording.path, frames, start, self.SHAPE[1:])
        return Clips(video, labels=np.asarray(recording.label))


def _read_classes(file: Path) -> dict[str, int]:
    """The number of each class from 0, by its name; the file counts from 1."""
    rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
    try:
        return {name: int(number) - 1 for number, name in rows}
    except ValueError:
        raise ValueError(f"{file}: expected lines of a number and the name of a class") from None


def _read_list(file: Path, films: Path, classes: dict[str, int]) -> list[StoredRecording]:
    """The films of a list, whose lines may end in the number of the class."""
    names = [line.split()[0] for line in file.read_text().splitlines() if line.strip()]
    unknown = next((name for name in names if Path(name).parent.name not in classes), None)
    if unknown is not None:
        raise ValueError(f"{file} names {unknown}, whose class is not in {CLASSES}")
    require_there((films / name for name in names), WHAT)
    found = [StoredRecording(films / name, label=classes[Path(name).parent.name]) for name in names]
    require_some(found, file, "lines such as ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1")
    return found
