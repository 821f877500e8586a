"""How a video file says that its frames are shown: orientation, shape of pixels, frame rate.

image, pixel = upright(image, frame, pixel_aspect(stream))
frames = watch(file, container.decode(video=0))             # notes interlaced or HDR film, uneven times
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from framelens.records.notes import print_note

WIDEST = 20
"""A pixel is not wider, relative to its height, in any real film."""
HDR = {16: "PQ", 18: "HLG"}
"""The transfer functions of film with a high dynamic range, by their number in video files."""
UNEVEN, TICKS = 0.2, 1.5
"""At a constant rate, times between frames differ by less than this share, or this number of ticks."""


def pixel_aspect(file: Path, stream: Any) -> float:
    """Width of a pixel over its height; 1 if the file does not store it. ValueError for an absurd value."""
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 1 / WIDEST <= aspect <= WIDEST:
        raise ValueError(
            f"cannot read {file}: its pixels are {aspect:g} times as wide as high; convert it first"
        )
    return aspect


def frame_rate(stream: Any) -> float | None:
    """Frames per second, on average; None where the file does not store it."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else None


def upright(
    image: UInt8[np.ndarray, "h w c"], frame: Any, aspect: float
) -> tuple[UInt8[np.ndarray, "rows cols c"], float]:
    """The image turned and mirrored as the frame's display matrix says, and its pixel aspect then.

    The matrix takes column x and row y to column a x + c y and row b x + d y, with origin at the image's
    corner. ValueError for an angle that is not a multiple of 90 degrees.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return image, aspect
    a, b, c, d = matrix
    straight, turned = abs(a) + abs(d), abs(b) + abs(c)
    if min(straight, turned) > max(straight, turned) / 10:
        raise ValueError("its frames are turned by an angle that is not a multiple of 90 degrees; convert it")
    if turned > straight:
        image, a, d, aspect = image.swapaxes(0, 1), c, b, 1 / aspect
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1], aspect


def _display_matrix(frame: Any) -> tuple[float, float, float, float] | None:
    held = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if held is None:
        return None
    a, b, _, c, d = np.frombuffer(held, np.int32)[:5].tolist()
    return a, b, c, d


def watch(file: Path, frames: Iterator[Any]) -> Iterator[Any]:
    """The frames as they come; prints a note for interlaced, HDR and unevenly spaced ones."""
    last = first = None
    for frame in frames:
        if frame.color_trc in HDR:
            print_note(
                f"{file} is HDR ({HDR[frame.color_trc]}) and read without tone mapping, which makes it pale; "
                "convert it first (ffmpeg -vf zscale and tonemap)"
            )
        if frame.interlaced_frame:
            print_note(
                f"{file} is interlaced: each frame mixes two moments; deinterlace it first (ffmpeg -vf yadif)"
            )
        if frame.pts is not None:
            gap = None if last is None else frame.pts - last
            last, first = frame.pts, first or gap
            if gap and first and abs(gap - first) > max(UNEVEN * first, TICKS):
                print_note(
                    f"{file} has frames that are not evenly spaced in time (a variable frame rate, or lost "
                    "frames); they are read one after another: convert it first if time matters"
                )
        yield frame
