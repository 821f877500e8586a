"""Writes a video as .mp4 or .gif, with the same bytes on every run."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from framelens.records.extras import extra

with extra("videos"):
    import av
    from av.filter import Graph
    from av.video.format import VideoFormat


def to_bytes(video: Float[np.ndarray, "f c h w"], scale: int) -> UInt8[np.ndarray, "f {scale}*h {scale}*w c"]:
    """The video as bytes, channels last, each pixel repeated `scale` by `scale` times."""
    if video.ndim != 4 or len(video) == 0 or video.shape[1] != 3:
        raise ValueError(f"expected a video [frames, 3, height, width], got {list(video.shape)}")
    if not np.isfinite(video).all():
        raise ValueError("the video has values that are not finite")
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    images = np.rint((video.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def encode(file: Path, suffix: str, images: UInt8[np.ndarray, "f h w c"], rate: Fraction) -> None:
    """Writes the images as one film at that path, `rate` frames per second."""
    # The bytes of an mp4 depend on the number of threads, and with x264's macroblock tree
    # small pictures differ from run to run.
    codec, pixels, options = {
        ".mp4": ("libx264", "yuv420p", {"crf": "12", "threads": "1", "x264-params": "mbtree=0"}),
        ".gif": ("gif", "pal8", {}),
    }[suffix]
    frames = _make_frames(images, rate)
    with av.open(f"file:{file}", "w", format=suffix[1:]) as container:  # else a colon makes it a URL
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
