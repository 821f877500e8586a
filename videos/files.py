"""Video files: read as clips, written from arrays.

    batch = files.clips("footage/", frames=16, size=(64, 64), stride=2)     # Clips
    files.write("sample.gif", batch.video[0], scale=4)

Reads the kinds of READABLE, one file or a folder of them; writes .mp4 and .gif. Needs the extra `videos`.

Frames are read as a player shows them: upright, with square pixels, without frames that an edit list hides.
Notes on stderr name interlaced and HDR film, variable and different frame rates, and files left out.
"""

import mimetypes
import re
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import count, islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from framelens.records import replace_file
from framelens.records.extras import extra
from framelens.records.notes import print_note
from framelens.records.untrusted import require_kind
from framelens.videos import Clips, Window
from framelens.videos.choice import choose_films, choose_windows
from framelens.videos.encoding import encode, to_bytes
from framelens.videos.film import frame_rate, pixel_aspect, watch
from framelens.videos.fitting import fit

with extra("videos"):
    import av
    from av.container import InputContainer
    from av.error import FFmpegError

READABLE = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
WRITABLE = (".gif", ".mp4")
OTHERS = (".flv", ".m2ts", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".wmv")
"""Kinds of video that are not read, beside those that the system knows."""
NAMED = 10
"""Files named in a note."""
SAME_RATE = 1.01
"""Rates within this factor, as 29.97 and 30, count as one."""


def clips(
    path: str | Path, frames: int, size: tuple[int, int], stride: int = 1, limit: int | None = None
) -> Clips:
    """Clips of `frames` consecutive kept frames, and the place of each in its film.

    Every `stride`-th frame of a file is kept, cropped about its centre to the aspect of `size`
    (height, width) and resized to it. Windows do not overlap; frames at the end of a file that do not
    fill a window are dropped. At most `limit` windows are read, chosen as by `windows_of`. ValueError or
    FileNotFoundError for counts below 1 and for files without a window.
    """
    if min(frames, *size, stride, limit or 1) < 1 or limit == 0:
        raise ValueError(f"expected counts from 1, got {frames=}, {size=}, {stride=}, {limit=}")
    chosen = windows_of(path, frames, stride, limit)
    read = {}
    for file in dict.fromkeys(window.file for window in chosen):
        own = sorted(window.index for window in chosen if window.file == file)
        images = windows(file, frames, size, stride, own)
        read |= {(file, index): video for index, video in zip(own, images, strict=True)}
    video = np.stack([read[window.file, window.index] for window in chosen])
    return Clips(video.astype(np.float32) / 127.5 - 1, windows=tuple(chosen))


def windows_of(path: str | Path, frames: int, stride: int = 1, limit: int | None = None) -> list[Window]:
    """The windows of a file or folder: all, film by film, or `limit` of them.

    `limit` windows are of as many films as there are, and far apart within each film (videos/choice.py).
    Films are decoded to count their windows unless one of each is enough. ValueError for a film without any.
    """
    films = files_of(path)
    if limit is not None and limit <= len(films):
        places = [(film, 0) for film in choose_films(len(films), limit)]
    else:
        counts = [count_windows(file, frames, stride) for file in films]
        places = choose_windows(counts, sum(counts) if limit is None else limit)
        places = sorted(places) if limit is None else places
    rates = note_rates(dict.fromkeys(films[film] for film, _ in places))
    return [Window(films[film], index, frames, stride, rates[films[film]]) for film, index in places]


def files_of(path: str | Path) -> list[Path]:
    """The video file at that path, or those in the folder there, in natural order of name: 2 before 10.

    ValueError for a file of another kind, FileNotFoundError if there are no videos.
    """
    path = Path(path)
    if path.is_dir():
        found = _films_in(path)
        if not found:
            raise FileNotFoundError(f"{path} holds no videos; expected {', '.join(READABLE)} files")
        return found
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a video or a folder of videos")
    if path.suffix.lower() not in READABLE:
        raise ValueError(f"cannot read {path}: its suffix must be one of {', '.join(READABLE)}")
    return [path]


def _films_in(folder: Path) -> list[Path]:
    """The video files in a folder in natural order; hidden files and videos of other kinds are noted."""
    inside = sorted((file for file in folder.iterdir() if not file.is_dir()), key=_natural_order)
    films = [file for file in inside if file.suffix.lower() in READABLE and not file.name.startswith(".")]
    others = [file.name for file in inside if file not in films and _looks_like_video(file)]
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        kinds = ", ".join(READABLE)
        print_note(
            f"{folder}: left out {', '.join(others[:NAMED])}{more}; read are {kinds}, not hidden files"
        )
    return films


def _natural_order(file: Path) -> tuple[list[str | int], str]:
    """A sort key by which the numbers in names count as numbers: clip_2 before clip_10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], file.name


def _looks_like_video(file: Path) -> bool:
    kind = mimetypes.guess_type(file.name)[0] or ""
    return kind.startswith("video/") or file.suffix.lower() in (*READABLE, *OTHERS)


def rate_of(file: Path) -> float | None:
    """Frames per second of a film, on average; None if it stores none. ValueError if it cannot be read."""
    with _open(file) as container:
        return frame_rate(container.streams.video[0])


def size_of(file: Path) -> tuple[int, int]:
    """Height and width of a film's frames as they are stored. ValueError if it cannot be read."""
    with _open(file) as container:
        return container.streams.video[0].height, container.streams.video[0].width


def note_rates(films: Iterable[Path]) -> dict[Path, float | None]:
    """The frame rate of each film; prints a note if they differ: their clips then span different times."""
    found = {file: rate_of(file) for file in films}
    rates = {file: rate for file, rate in found.items() if rate is not None}
    if rates and max(rates.values()) > SAME_RATE * min(rates.values()):
        low, high = min(rates, key=lambda f: rates[f]), max(rates, key=lambda f: rates[f])
        print_note(
            f"{low.name} has {rates[low]:.4g} frames per second, {high.name} {rates[high]:.4g}: clips of "
            "both have the same number of frames, not the same time; convert them to one rate if time matters"
        )
    return found


def windows(
    file: Path, frames: int, size: tuple[int, int], stride: int = 1, chosen: Collection[int] | None = None
) -> Iterator[UInt8[np.ndarray, "f c h w"]]:
    """The windows of one file, read one at a time: all, or those with the numbers `chosen`, in order.

    ValueError for a file without a window, and for one that ends before the last chosen one.
    """
    last = -1 if chosen is None else max(chosen)
    with closing(_decode(file)) as decoded:
        kept = islice(decoded, 0, None, stride)
        for index in count():
            is_read = chosen is None or index in chosen
            window = [fit(image, size, aspect) if is_read else None for image, aspect in islice(kept, frames)]
            if index == 0:
                _require_window(file, len(window), frames, stride)
            if len(window) < frames:
                break
            if is_read:
                yield np.stack([image for image in window if image is not None])
            if index == last:
                return
    if chosen is not None:
        raise ValueError(f"{file} ends before its last frame: it is damaged; remove or repair it")


def count_windows(file: Path, frames: int, stride: int = 1, limit: int | None = None) -> int:
    """The number of windows that `windows` gives for a file, at most `limit`. ValueError for none.

    All frames are decoded: an edit list, or a lost beginning, hides frames whose packets are in the file.
    """
    enough = None if limit is None else limit * frames * stride
    with _open(file) as container:
        container.streams.video[0].thread_type = "AUTO"
        shown = sum(1 for _ in islice(container.decode(video=0), enough))
    kept = -(-shown // stride)
    _require_window(file, kept, frames, stride)
    return kept // frames


def write(
    path: str | Path, video: Float[np.ndarray, "f c h w"], frames_per_second: float = 8, scale: int = 1
) -> Path:
    """Writes the video as .mp4 or .gif. The file appears at `path` when it is complete.

    `video` is RGB in [-1, 1]; values outside are clipped. Each pixel becomes `scale` by `scale` equal ones.
    A gif has at most 256 colours, each with an error of up to 1/255. Other colours become the nearest of
    these.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ValueError(f"cannot write {path}: its suffix must be one of {', '.join(WRITABLE)}")
    images = to_bytes(video, scale)
    height, width = images.shape[1:3]
    if frames_per_second <= 0:
        raise ValueError(f"frames_per_second must be positive, got {frames_per_second}")
    if path.suffix.lower() == ".mp4" and (height % 2 or width % 2):
        raise ValueError(f"mp4 needs even sizes, got {height}x{width}: use scale=2 or .gif")

    rate = Fraction(frames_per_second).limit_denominator(1000)
    return replace_file(path, lambda partial: encode(partial, path.suffix.lower(), images, rate))


def _require_window(file: Path, kept: int, frames: int, stride: int) -> None:
    """Raises ValueError if a file has fewer kept frames than a window."""
    if kept < frames:
        at = "" if stride == 1 else f" at stride {stride}"
        raise ValueError(
            f"{file} has {kept} frames{at}, expected at least {frames}: ask for fewer or remove the file"
        )


def _decode(file: Path) -> Generator[tuple[av.VideoFrame, float], None, None]:
    """The frames of a file, with the aspect of their pixels."""
    with _open(file) as container:
        aspect = pixel_aspect(file, container.streams.video[0])
        for frame in watch(file, container.decode(video=0)):
            yield frame, aspect


@contextmanager
def _open(file: Path) -> Iterator[InputContainer]:
    """Opens the container of the file for a with block. ValueError if it cannot be read."""
    try:
        require_kind(file)
    except ValueError as kind:
        raise ValueError(f"cannot read {file}: it {str(kind).removeprefix(f'{file} ')}") from None
    try:
        with av.open(f"file:{file}") as container:  # else a name with a colon is taken for a URL
            if not container.streams.video:
                raise ValueError(f"cannot read {file}: it has no video stream")
            yield container
    except FFmpegError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
