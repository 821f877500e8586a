"""A film's frame in the size of a clip: upright, cropped about its centre, resized.

image = fit(frame, (64, 64), pixel_aspect(stream))      # uint8 [c h w]
"""

import numpy as np
from jaxtyping import UInt8

from framelens.records.extras import extra
from framelens.videos.film import upright

with extra("videos"):
    import av
    from av.video.reformatter import Interpolation


def find_crop(
    whole: tuple[int, ...], size: tuple[int, int], aspect: float = 1.0
) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest centred part of a frame [h w] that looks like `size`."""
    (height, width), (rows, columns) = whole, size
    crop_height = min(height, max(1, round(width * aspect * rows / columns)))
    crop_width = min(width, max(1, round(height / aspect * columns / rows)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def fit(frame: av.VideoFrame, size: tuple[int, int], aspect: float) -> UInt8[np.ndarray, "c h w"]:
    """The largest centred part that looks like `size` on a screen, upright, resized to `size`.

    `aspect` is the width of the frame's pixels over their height, before they are turned.
    """
    image, aspect = upright(frame.to_ndarray(format="rgb24"), frame, aspect)
    rows, columns = size
    top, left, crop_height, crop_width = find_crop(image.shape[:2], size, aspect)
    image = np.ascontiguousarray(image[top : top + crop_height, left : left + crop_width])
    # Averaging over the area avoids aliasing, but is right only if the number of pixels decreases.
    how = Interpolation.AREA if crop_height >= rows and crop_width >= columns else Interpolation.BICUBIC
    fitted = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(columns, rows, interpolation=how)
    return fitted.to_ndarray().transpose(2, 0, 1)
