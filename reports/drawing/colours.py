"""Colours of quantities: light is little, shallow or clean; dark is much, deep or noise, in every figure.

for sigma, shade in zip(sigmas, sigma_shades(sigmas), strict=True): ...
axes.imshow(values, cmap=SEQUENTIAL)
"""

from collections.abc import Iterable

import numpy as np
import seaborn

SEQUENTIAL = "YlGnBu"
"""Of maps of a quantity: dark is much."""
DIVERGING = "vlag"
"""Of maps of a difference: white is none."""
ABSENT = "#E4E4E4"
MARKERS = "osD^vP*X"
CLEAN, NOISE = 0.35, 1.0
"""Where sigma 0 and sigma 1 lie on SEQUENTIAL."""
FIRST, LAST = 0.14, 1.0
"""Where the shallowest and the deepest layer lie on the palette of layers."""


def sigma_shades(sigmas: Iterable[float]) -> list[tuple[float, ...]]:
    """The colour of each noise level, from 0 (clean, light) to 1 (noise, dark): the same in every figure."""
    palette = seaborn.color_palette(SEQUENTIAL, as_cmap=True)
    return [palette(CLEAN + (NOISE - CLEAN) * float(np.clip(sigma, 0, 1))) for sigma in sigmas]


def looks(count: int) -> list[dict]:
    """Colour and marker of as many lines, from light (shallow, few) to dark (deep, many)."""
    return [{"color": shade, "marker": MARKERS[at % len(MARKERS)]} for at, shade in enumerate(shades(count))]


def shades(count: int) -> list[tuple[float, ...]]:
    """As many colours from light (shallow, few) to dark (deep, many), unlike those of noise levels."""
    palette = seaborn.color_palette("viridis_r", as_cmap=True)
    return [palette(at) for at in np.linspace(FIRST, LAST, count)]
