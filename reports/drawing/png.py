"""Pictures as PNG files with a palette of 256 colours: a third of the size."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

NEAR, FAR_OFF = 16, 0.005
"""How much a colour may differ (of 255), and in what share of the pixels, in a picture of 256 colours."""
SAMPLE = 60_000
"""Pixels from which the palette is made: each colour as often as in the picture, and at least once."""
COMPRESSION = 6
"""Of zlib; the highest, 9, takes five times as long for files 6 % smaller."""


def write_png(pixels: UInt8[np.ndarray, "h w 3"], path: Path, dpi: int, source: str | None = None) -> None:
    """Writes a picture; `source` says in the file what it shows.

    It has a palette unless more than FAR_OFF of the pixels would differ by more than NEAR of 255.
    """
    words = PngInfo()
    if source is not None:
        words.add_text("Source", source)
    picture = with_palette(pixels) or Image.fromarray(pixels)
    picture.save(path, "PNG", compress_level=COMPRESSION, dpi=(dpi, dpi), pnginfo=words)


def with_palette(pixels: UInt8[np.ndarray, "h w 3"]) -> Image.Image | None:
    """The picture in 256 colours; None where that would change it visibly."""
    red, green, blue = np.moveaxis(pixels, -1, 0).astype(np.int32)
    place, found = pd.factorize((red << 16 | green << 8 | blue).ravel(), sort=True)
    codes, counts = np.asarray(found), np.bincount(place)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.uint8)
    repeats = 1 + counts * SAMPLE // place.size
    sample = Image.fromarray(np.repeat(colours, repeats, axis=0)[None])
    few = sample.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    first = np.cumsum(repeats) - repeats
    entries, shown = np.asarray(few)[0, first], np.asarray(few.convert("RGB"))[0, first]
    off = np.abs(colours.astype(int) - shown).max(axis=1)
    if counts[off > NEAR].sum() > FAR_OFF * place.size:
        return None
    picture = Image.fromarray(entries[place].reshape(pixels.shape[:2]), "P")
    picture.putpalette(few.getpalette() or [])
    return picture
