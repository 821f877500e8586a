"""Video files: read as clips, written from arrays.

    batch = files.clips("footage/", frames=16, size=(64, 64), stride=2)     # Clips
    files.write("sample.gif", batch.video[0], scale=4)

Reading takes .mp4, .gif and .webm, one file or a folder of them; writing makes .mp4 and .gif. Needs the extra
`videos`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from framelens.records import replace_file
from framelens.records.extras import extra
from framelens.videos import Clips

with extra("videos"):
    import av
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.filter import Graph
    from av.video.format import VideoFormat
    from av.video.reformatter import Interpolation

READABLE = (".gif", ".mp4", ".webm")
WRITABLE = (".gif", ".mp4")


def clips(
    path: str | Path, frames: int, size: tuple[int, int], stride: int = 1, limit: int | None = None
) -> Clips:
    """Clips of `frames` consecutive kept frames, from one file after another in order of name.

    Every `stride`-th frame of a file is kept, cropped about its centre to the aspect of `size`
    (height, width) and resized to it. Windows do not overlap; frames at the end of a file that do not
    fill a window are dropped. At most `limit` windows are read. ValueError or FileNotFoundError for counts
    below 1 and for files without a window.
    """
    if min(frames, *size, stride, limit or 1) < 1 or limit == 0:
        raise ValueError(f"expected counts from 1, got {frames=}, {size=}, {stride=}, {limit=}")
    found = (window for file in files_of(path) for window in windows(file, frames, size, stride))
    video = np.stack(list(islice(found, limit)))
    return Clips(video.astype(np.float32) / 127.5 - 1)


def files_of(path: str | Path) -> list[Path]:
    """The video file at that path, or those in the folder there, in order of name.

    ValueError for a file of another kind, FileNotFoundError if there are no videos.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in READABLE)
        if not found:
            raise FileNotFoundError(f"{path} holds no videos; expected {', '.join(READABLE)} files")
        return found
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a video or a folder of videos")
    if path.suffix.lower() not in READABLE:
        raise ValueError(f"cannot read {path}: its suffix must be one of {', '.join(READABLE)}")
    return [path]


def windows(
    file: Path, frames: int, size: tuple[int, int], stride: int = 1
) -> Iterator[UInt8[np.ndarray, "f c h w"]]:
    """The windows of one file as `clips` cuts them, read one at a time. ValueError if it has none."""
    images = (_fit(frame, size) for frame in islice(_decode(file), 0, None, stride))
    window = list(islice(images, frames))
    _require_window(file, len(window), frames, stride)
    while len(window) == frames:
        yield np.stack(window)
        window = list(islice(images, frames))


def count_windows(file: Path, frames: int, stride: int = 1) -> int:
    """The number of windows in a file, counted without decoding a frame; ValueError if there are none."""
    with _open(file) as container:
        held = sum(packet.size > 0 for packet in container.demux(video=0))
    kept = -(-held // stride)
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
    images = _to_bytes(video, scale)
    height, width = images.shape[1:3]
    if frames_per_second <= 0:
        raise ValueError(f"frames_per_second must be positive, got {frames_per_second}")
    if path.suffix.lower() == ".mp4" and (height % 2 or width % 2):
        raise ValueError(f"mp4 needs even sizes, got {height}x{width}: use scale=2 or .gif")

    rate = Fraction(frames_per_second).limit_denominator(1000)
    return replace_file(path, lambda partial: _encode(partial, path.suffix.lower(), images, rate))


def _require_window(file: Path, kept: int, frames: int, stride: int) -> None:
    """Raises ValueError if a file has fewer kept frames than a window."""
    if kept < frames:
        at = "" if stride == 1 else f" at stride {stride}"
        raise ValueError(
            f"{file} has {kept} frames{at}, expected at least {frames}: ask for fewer or remove the file"
        )


def _decode(file: Path) -> Iterator[av.VideoFrame]:
    with _open(file) as container:
        yield from container.decode(video=0)


@contextmanager
def _open(file: Path) -> Iterator[InputContainer]:
    """Opens the container of the file for a with block. ValueError if it cannot be read."""
    try:
        with av.open(file) as container:
            if not container.streams.video:
                raise ValueError(f"cannot read {file}: it has no video stream")
            yield container
    except FFmpegError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error


def _fit(frame: av.VideoFrame, size: tuple[int, int]) -> UInt8[np.ndarray, "c h w"]:
    """The largest centred part with the aspect of `size`, upright, resized to `size`."""
    image: np.ndarray = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    (height, width), (rows, columns) = image.shape[:2], size
    crop_height = min(height, max(1, round(width * rows / columns)))
    crop_width = min(width, max(1, round(height * columns / rows)))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    image = np.ascontiguousarray(image[top : top + crop_height, left : left + crop_width])
    # Averaging over the area avoids aliasing, but is right only if the number of pixels decreases.
    how = Interpolation.AREA if crop_height >= rows and crop_width >= columns else Interpolation.BICUBIC
    fitted = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(columns, rows, interpolation=how)
    return fitted.to_ndarray().transpose(2, 0, 1)


def _to_bytes(
    video: Float[np.ndarray, "f c h w"], scale: int
) -> UInt8[np.ndarray, "f {scale}*h {scale}*w c"]:
    """The video as bytes, channels last, each pixel repeated `scale` by `scale` times."""
    if video.ndim != 4 or len(video) == 0 or video.shape[1] != 3:
        raise ValueError(f"expected a video [frames, 3, height, width], got {list(video.shape)}")
    if not np.isfinite(video).all():
        raise ValueError("the video has values that are not finite")
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    images = np.rint((video.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def _encode(file: Path, suffix: str, images: UInt8[np.ndarray, "f h w c"], rate: Fraction) -> None:
    # The bytes of an mp4 depend on the number of threads, and with x264's macroblock tree
    # small pictures differ from run to run.
    codec, pixels, options = {
        ".mp4": ("libx264", "yuv420p", {"crf": "12", "threads": "1", "x264-params": "mbtree=0"}),
        ".gif": ("gif", "pal8", {}),
    }[suffix]
    frames = _make_frames(images, rate)
    with av.open(file, "w", format=suffix[1:]) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = images.shape[1], images.shape[2], pixels
        for frame in _reduce_colours(frames, images, rate) if suffix == ".gif" else frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _make_frames(images: UInt8[np.ndarray, "f h w c"], rate: Fraction) -> Iterator[av.VideoFrame]:
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        yield frame


def _reduce_colours(
    frames: Iterator[av.VideoFrame], images: UInt8[np.ndarray, "f h w c"], rate: Fraction
) -> Iterator[av.VideoFrame]:
    """The frames in one palette of 256 colours. The palette is chosen over the whole video."""
    graph = Graph()
    height, width = images.shape[1:3]
    source = graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=1 / rate)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", "reserve_transparent=0")
    use = graph.add("paletteuse", "dither=none")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    for frame in frames:
        graph.vpush(frame)
    graph.vpush(None)
    for _ in images:
        yield graph.vpull()
