"""Clips of a data set of recordings: a part of one recording for each seed."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framelens import videos
from framelens.records.untrusted import require_honest_npy, require_kind
from framelens.videos import Clips
from framelens.videos.clip_order import ClipOrder

COUNTED = 64
"""Recordings whose actions are counted when a data set is opened."""


@dataclass(frozen=True)
class StoredRecording:
    """One recording: where its frames are, the file with its actions or cameras, and its class."""

    path: Path
    beside: Path | None = None
    label: int | None = None


class RecordedClips(ABC):
    """Recordings for training, and others for validation; has what a world has (videos/worlds).

    A training seed decides the recording and where the clip begins in it; a clip for validation begins with
    its recording. SHAPE: channels, height, width. CONDITIONS: how many actions, or classes, there are.
    """

    PROMPT = (0, 0)
    holds_latents = False
    """Whether frames are latents, not pixels."""

    def __init__(
        self,
        training: Sequence[StoredRecording],
        validation: Sequence[StoredRecording],
        shape: tuple[int, int, int],
        conditions: int = 0,
    ):
        self.recordings, self.held_out = [*training, *validation], len(validation)
        self.SHAPE, self.CONDITIONS = shape, conditions
        self._order = ClipOrder(len(training), len(validation))
        self.is_labelled = all(each.label is not None and each.beside is None for each in self.recordings)
        """Whether the condition is one class for a whole clip."""

    def clips(self, seeds: Iterable[int], frames: int) -> Clips:
        """One clip per seed. ValueError for a recording that is damaged, or shorter than that."""
        found = []
        for seed in seeds:
            is_kept = seed >= videos.VALIDATION_SEED
            start = 0.0 if is_kept else float(np.random.default_rng((0xDA7A5E7, seed)).random())
            found.append(self._read_checked(self.recordings[self._order.row(seed)], frames, start))
        return videos.stack(found)

    def files(self, seeds: Iterable[int]) -> list[Path]:
        """The files that these clips come from, for a record of what was read."""
        chosen = [self.recordings[self._order.row(seed)] for seed in seeds]
        return [file for each in chosen for file in (*self.files_of(each), each.beside) if file is not None]

    def files_of(self, recording: StoredRecording) -> list[Path]:
        """The files of a recording's frames."""
        return [recording.path]

    def conditions_of(self, paths: Iterable[Path], frames: int) -> dict[str, np.ndarray]:
        """The actions [n f], or classes [n], of the first frames of the recordings at these places."""
        by_path = {recording.path: recording for recording in self.recordings}
        chosen = [by_path[path] for path in paths]
        if self.is_labelled:
            return {"labels": np.array([recording.label for recording in chosen])}
        actions = [cut_actions(recording.beside, 0, frames) for recording in chosen]
        given = [own for own in actions if own is not None]
        return {"actions": np.stack(given)} if len(given) == len(actions) else {}

    def _read_checked(self, recording: StoredRecording, frames: int, start: float) -> Clips:
        clip = self.read(recording, frames, start)
        if clip.video.shape[1:] != self.SHAPE:
            raise ValueError(
                f"{recording.path} has frames of {clip.video.shape[1:]} (channels, height, width), the first "
                f"recording {self.SHAPE}: remove it, or give a size as in ucf101@64:FOLDER"
            )
        given = clip.actions
        if given is not None and not 0 <= given.min() <= given.max() < self.CONDITIONS:
            raise ValueError(
                f"{recording.beside} has actions from {given.min()} to {given.max()}, the first {COUNTED} "
                f"recordings 0 to {self.CONDITIONS - 1}: it is damaged, or of another data set"
            )
        return clip

    @abstractmethod
    def read(self, recording: StoredRecording, frames: int, start: float) -> Clips:
        """A clip of that many frames; `start`, from 0 to 1, is the share of all places to begin at."""


def first_of(length: int, frames: int, start: float, path: Path) -> int:
    """The number of a clip's first frame in a recording. ValueError where the recording is too short."""
    if length < frames:
        raise ValueError(f"{path} has {length} frames, expected at least {frames}: ask for fewer")
    return min(int(start * (length - frames + 1)), length - frames)


def require_there(files: Iterable[Path], what: str) -> None:
    """FileNotFoundError for the first that does not exist; `what` says which data set is incomplete."""
    missing = next((file for file in files if not file.exists()), None)
    if missing is not None:
        raise FileNotFoundError(f"{missing} is missing: {what} is not complete; download or extract it again")


def require_some(recordings: Sequence[StoredRecording], folder: Path, expected: str) -> None:
    """FileNotFoundError where a part of a data set holds no recordings."""
    if not recordings:
        raise FileNotFoundError(f"{folder} holds no recordings; expected {expected}")


def read_film(
    path: Path, frames: int, start: float, size: tuple[int, ...] | None, length: int | None = None
) -> tuple[int, np.ndarray]:
    """The number of the first frame, and that many frames of a film, float32 [f c h w] in [-1, 1].

    Frames have that height and width, or the film's own; `length` is that of the film where it is known.
    """
    from framelens.videos import files

    rows, columns = size or files.size_of(path)
    first = first_of(files.count_windows(path, 1) if length is None else length, frames, start, path)
    images = next(files.windows(path, first + frames, (rows, columns), 1, (0,)))[first:]
    return first, images.astype(np.float32) / 127.5 - 1


def size_of(film: Path) -> tuple[int, int]:
    """Height and width of a film's frames."""
    from framelens.videos import files

    return files.size_of(film)


def cut_actions(path: Path | None, first: int, frames: int) -> np.ndarray | None:
    """The actions of a part of a recording; None without a file of them. ValueError where it has fewer."""
    if path is None:
        return None
    actions = read_actions(path)
    if len(actions) < first + frames:
        raise ValueError(f"{path} has {len(actions)} actions, fewer than there are frames")
    return actions[first : first + frames]


def read_npz(path: Path, name: str) -> np.ndarray:
    """The array of that name in an .npz file. ValueError in one line where there is none."""
    require_kind(path)
    require_honest_npy(path)
    try:
        with np.load(path, allow_pickle=False) as held:
            return held[name]
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} has no readable array {name!r}: {error}") from None


def read_actions(path: Path) -> np.ndarray:
    """The actions of a recording, int64 [f]."""
    actions = read_npz(path, "actions")
    if actions.ndim != 1 or actions.dtype.kind not in "iu" or not len(actions):
        raise ValueError(
            f"{path}: actions are {actions.dtype} {list(actions.shape)}, expected integers [frames]"
        )
    return actions.astype(np.int64)


def count_actions(files: Sequence[Path]) -> int:
    """How many actions there are: one more than the largest of the first COUNTED recordings."""
    return max(int(read_actions(file).max()) for file in files[:COUNTED]) + 1
