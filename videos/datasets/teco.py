"""Minecraft and DMLab as TECO publishes them (Yan et al. 2023).

    minecraft/train/0/0.mp4, minecraft/train/0/0.npz, ..., minecraft/test/...       # npz: actions [f]
    dmlab/train/0/0.npz, ..., dmlab/test/...                                        # npz: video, actions

A recording has 300 frames, of 128 x 128 pixels in Minecraft and of 64 x 64 in DMLab. `test` is for
validation. The action at i stands beside frame i.
"""

from pathlib import Path

import numpy as np

from framelens.records.untrusted import require_memory_for
from framelens.videos import Clips
from framelens.videos.datasets._recorded import (
    RecordedClips,
    StoredRecording,
    count_actions,
    cut_actions,
    first_of,
    read_film,
    read_npz,
    require_some,
    require_there,
    size_of,
)

PARTS = ("train", "test")
WHAT = "TECO's data set"


def recognise(folder: Path) -> bool:
    """Whether the folder has recordings for training where TECO has them."""
    return any(next(folder.glob(f"train/*/*.{kind}"), None) for kind in ("mp4", "npz"))


def open_folder(folder: Path, side: int | None) -> RecordedClips:
    """The recordings, in frames of `side` x `side` pixels or as they are stored."""
    require_there([folder / part for part in PARTS], WHAT)
    films = [sorted((folder / part).glob("*/*.mp4")) for part in PARTS]
    arrays = [sorted((folder / part).glob("*/*.npz")) for part in PARTS]
    if not any(films):
        training, validation = ([StoredRecording(file, file) for file in part] for part in arrays)
    else:
        are_given = any(arrays)
        if are_given:
            require_there((film.with_suffix(".npz") for part in films for film in part), WHAT)
        training, validation = (
            [StoredRecording(film, film.with_suffix(".npz") if are_given else None) for film in part]
            for part in films
        )
    for part, recordings in zip(PARTS, (training, validation), strict=True):
        require_some(recordings, folder / part, "*/*.mp4 with *.npz beside them, or */*.npz")
    return TecoClips(training, validation, side)


class TecoClips(RecordedClips):
    """The recordings of Minecraft or DMLab."""

    def __init__(self, training: list[StoredRecording], validation: list[StoredRecording], side: int | None):
        self.side = side
        first = training[0].path
        height, width = _size_of(first) if side is None else (side, side)
        actions = [each.beside for each in training if each.beside is not None]
        count = count_actions(actions) if actions else 0
        super().__init__(training, validation, (3, height, width), count)

    def read(self, recording: StoredRecording, frames: int, start: float) -> Clips:
        """The frames and their actions."""
        path, size = recording.path, None if self.side is None else (self.side, self.side)
        if path.suffix == ".npz":
            if size is not None:
                raise ValueError(f"{path} holds an array, which is not resized: leave out @{self.side}")
            stored = _read_array(path)
            first = first_of(len(stored), frames, start, path)
            images = stored[first : first + frames].transpose(0, 3, 1, 2)
            video = images.astype(np.float32) / 127.5 - 1
        else:
            first, video = read_film(path, frames, start, size)
        return Clips(video, cut_actions(recording.beside, first, frames))


def _size_of(path: Path) -> tuple[int, int]:
    return _read_array(path).shape[1:3] if path.suffix == ".npz" else size_of(path)


def _read_array(path: Path) -> np.ndarray:
    """The frames of an .npz file, uint8 [f h w 3]."""
    video = read_npz(path, "video")
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
        raise ValueError(
            f"{path}: video is {video.dtype} {list(video.shape)}, expected uint8 [frames, height, width, 3]"
        )
    require_memory_for(path, 4 * video.size)
    return video
