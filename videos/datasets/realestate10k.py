"""RealEstate10K: files of cameras as they are published, and frames that the user has extracted.

    RealEstate10K/train/0000cc6d8b108390.txt, ..., RealEstate10K/test/...
    RealEstate10K/frames/train/0000cc6d8b108390/52553000.png, ...

A file of cameras has the address of a film, and a line for each frame: its time in microseconds, four
intrinsics, two zeros, and the 3 x 4 matrix from the world to the camera (Zhou et al. 2018). A frame is named
by its time, .png or .jpg; the folder of a recording may also stand beside its file. Frames are cropped about
their centre and resized, to 256 x 256 pixels where no size is given. No network of framelens takes cameras:
they are in `state`, as `intrinsics` [b f 4] (focal lengths and centre, as shares of the cropped frame's width
and height) and `pose` [b f 3 4].
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError

from framelens.records.extras import extra
from framelens.records.untrusted import require_kind
from framelens.videos import Clips
from framelens.videos.datasets._recorded import (
    RecordedClips,
    StoredRecording,
    first_of,
    require_some,
    require_there,
)

SIDE = 256
PARTS = ("train", "test")
KINDS = (".png", ".jpg", ".jpeg")
COLUMNS = 19
WHAT = "RealEstate10K"


def recognise(folder: Path) -> bool:
    """Whether the folder has a file of cameras for training."""
    first = next(folder.glob("train/*.txt"), None)
    return first is not None and first.read_text(errors="replace").lstrip().startswith("http")


def open_folder(folder: Path, side: int | None) -> RecordedClips:
    """The recordings in frames of `side` x `side` pixels."""
    require_there([folder / part for part in PARTS], WHAT)
    training, validation = (_list_recordings(folder, part) for part in PARTS)
    return CameraClips(training, validation, (3, side or SIDE, side or SIDE))


class CameraClips(RecordedClips):
    """The recordings of RealEstate10K."""

    def read(self, recording: StoredRecording, frames: int, start: float) -> Clips:
        """The frames and their cameras."""
        assert recording.beside is not None
        cameras = read_cameras(recording.beside)
        first = first_of(len(cameras), frames, start, recording.beside)
        cameras = cameras[first : first + frames]
        fitted = [
            _fit(_find_frame(recording.path, camera[0]), camera[1:5], self.SHAPE[1:]) for camera in cameras
        ]
        images = np.stack([image for image, _ in fitted])
        intrinsics = np.stack([intrinsics for _, intrinsics in fitted]).astype(np.float32)
        pose = cameras[:, 7:].reshape(-1, 3, 4).astype(np.float32)
        return Clips(images.astype(np.float32) / 127.5 - 1, state={"intrinsics": intrinsics, "pose": pose})

    def files_of(self, recording: StoredRecording) -> list[Path]:
        """The frames of a recording that have a camera."""
        assert recording.beside is not None
        return [_find_frame(recording.path, camera[0]) for camera in read_cameras(recording.beside)]


def read_cameras(file: Path) -> Float[np.ndarray, "f 19"]:
    """The lines of a file of cameras, as numbers. ValueError for another file."""
    require_kind(file)
    lines = [line.split() for line in file.read_text(errors="replace").splitlines()[1:] if line.strip()]
    wrong = next((number for number, line in enumerate(lines, 2) if len(line) != COLUMNS), None)
    if wrong is not None:
        raise ValueError(
            f"{file}: line {wrong} of its cameras has {len(lines[wrong - 2])} columns, expected {COLUMNS}"
        )
    try:
        cameras = np.array(lines, np.float64).reshape(-1, COLUMNS)
    except ValueError:
        raise ValueError(f"{file} holds words where cameras have numbers: download it again") from None
    if not np.isfinite(cameras).all():
        raise ValueError(f"{file} holds numbers that are not finite: download it again")
    return cameras


def _list_recordings(folder: Path, part: str) -> list[StoredRecording]:
    found = []
    for file in sorted((folder / part).glob("*.txt")):
        places = [folder / "frames" / part / file.stem, file.with_suffix("")]
        path = next((place for place in places if place.is_dir()), None)
        require_there(places[:1] if path is None else [], WHAT)
        found.append(StoredRecording(path or places[0], file))
    require_some(found, folder / part, "files of cameras such as 0000cc6d8b108390.txt")
    return found


def _find_frame(folder: Path, time: float) -> Path:
    """The file of a frame; FileNotFoundError where it has none."""
    places = [folder / f"{round(time)}{kind}" for kind in KINDS]
    found = next((place for place in places if place.exists()), None)
    require_there(places[:1] if found is None else [], WHAT)
    return found or places[0]


def _fit(
    path: Path, intrinsics: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, Float[np.ndarray, " 4"]]:
    """The frame in that size, uint8 [3 h w], and its intrinsics as shares of the part that is kept."""
    with extra("videos"):
        import av

        from framelens.videos.fitting import find_crop, fit
    require_kind(path)
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read {path}: {str(error) or type(error).__name__}") from None
    height, width = pixels.shape[:2]
    top, left, kept_height, kept_width = find_crop((height, width), (size[0], size[1]))
    whole, corner, kept = (
        np.array(pair) for pair in ((width, height), (left, top), (kept_width, kept_height))
    )
    shares = [intrinsics[:2] * whole / kept, (intrinsics[2:] * whole - corner) / kept]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return fit(frame, (size[0], size[1]), 1.0), np.concatenate(shares)
