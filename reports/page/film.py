"""A film of a page: one picture with all its frames side by side.

film = Film("truth", to_pixels(video), was_given)
film.sprite()       # the picture, WebP
"""

import io
from dataclasses import dataclass

import numpy as np
import xarray as xr
from PIL import Image

SMALL, LARGE = 110, 200
"""Pixels: smaller frames are enlarged by a whole factor to this, larger ones are reduced to that."""
BORDER = 3
GIVEN, GENERATED = (34, 34, 34), (190, 190, 190)


@dataclass(frozen=True)
class Film:
    """One looped picture: its title and its frames, [frame, row, column, 3] from 0 to 255."""

    title: str
    frames: np.ndarray
    was_given: np.ndarray
    """By frame: whether it was given to the model."""

    def sprite(self) -> bytes:
        """All frames side by side in one WebP picture."""
        shown = [
            _frame(pixels, bool(given)) for pixels, given in zip(self.frames, self.was_given, strict=True)
        ]
        whole, buffer = np.concatenate(shown, axis=1), io.BytesIO()
        is_small = max(self.frames.shape[1:3]) <= SMALL
        # Without loss, method 4 takes twice as long as method 2 for the same size.
        method = 2 if is_small else 4
        Image.fromarray(whole).save(buffer, "WEBP", lossless=is_small, quality=80, method=method)
        return buffer.getvalue()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame with its border, in pixels."""
        height, width, _ = _frame(self.frames[0], given=False).shape
        return height, width


def to_pixels(video: xr.DataArray) -> np.ndarray:
    """Frames in [-1, 1] as [frame, row, column, 3] from 0 to 255; values that are not finite are black."""
    values = np.nan_to_num(video.transpose("frame", "row", "col", "channel").values, nan=-1.0)
    pixels = np.clip((values + 1) * 127.5, 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]


def _frame(pixels: np.ndarray, given: bool) -> np.ndarray:
    """One frame at the size of the page, with a border."""
    longest = max(pixels.shape[:2])
    if longest <= SMALL:
        shown = pixels.repeat(-(-SMALL // longest), axis=0).repeat(-(-SMALL // longest), axis=1)
    else:
        factor = min(1.0, LARGE / longest)
        height, width = (max(1, round(size * factor)) for size in pixels.shape[:2])
        shown = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    bordered = np.empty((shown.shape[0] + 2 * BORDER, shown.shape[1] + 2 * BORDER, 3), np.uint8)
    bordered[:] = GIVEN if given else GENERATED
    bordered[BORDER:-BORDER, BORDER:-BORDER] = shown
    return bordered
