"""Pictures of figures: 256 colours where no one sees it, all colours elsewhere."""

import numpy as np
from PIL import Image

from framelens.reports.drawing.png import NEAR, write_png


def write(pixels, path):
    write_png(pixels, path, 200, "what it shows")
    with Image.open(path) as opened:
        assert opened.text == {"Source": "what it shows"} and round(opened.info["dpi"][0]) == 200
        return opened.mode, np.asarray(opened.convert("RGB"))


def test_lines_on_white_get_a_palette_and_white_stays_white(tmp_path):
    pixels = np.full((120, 90, 3), 255, np.uint8)
    edges = np.random.default_rng(0).integers(0, 256, (40, 3), dtype=np.uint8)
    pixels[40, :40] = edges
    pixels[60:64] = (0, 114, 178)
    mode, read = write(pixels, tmp_path / "a.png")
    assert mode == "P" and np.array_equal(read[60:64], pixels[60:64])
    assert np.array_equal(read[:40], pixels[:40]) and np.array_equal(read[40, :40], edges)


def test_colours_are_kept_where_many_would_change(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    mode, read = write(pixels, tmp_path / "a.png")
    assert mode == "RGB" and np.array_equal(read, pixels)


def test_a_rare_change_is_small_on_most_pixels(tmp_path):
    ramp = np.linspace(0, 255, 100).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(40)), axis=-1)
    mode, read = write(pixels, tmp_path / "a.png")
    off = np.abs(read.astype(int) - pixels).max(axis=2)
    assert mode == "P" and (off > NEAR).mean() <= 0.005
