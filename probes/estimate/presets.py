"""The shape of a probe run on a network of known size, without its weights. Imports no torch."""

from dataclasses import replace
from typing import TYPE_CHECKING

from framelens.models.cost.operations import SINUSOID
from framelens.models.cost.presets import COLS, FRAMES, PRESETS, ROWS, TEXT_TOKENS, TEXT_WIDTH, VALUES
from framelens.probes.run.settings import Settings

if TYPE_CHECKING:
    from framelens.probes.run.shape import RunShape

STEPS = 50
"""The sampler's own steps."""


def shape_of_preset(name: str, chunk: int, settings: Settings) -> "RunShape":
    """The shape of a run on a Wan network of that size, with FRAMES frames by default."""
    from framelens.probes.run.shape import RunShape

    sizes, frames = PRESETS[name], settings.frames or FRAMES
    return RunShape(
        layers=sizes["layers"],
        encoding_layers=sizes["layers"],
        heads=sizes["heads"],
        d_model=sizes["d_model"],
        mlp_width=sizes["mlp_width"],
        parameters=_parameters(sizes["layers"], sizes["d_model"], sizes["mlp_width"]),
        tokens=chunk * ROWS * COLS,
        chunk=chunk,
        chunks=frames // chunk,
        settings=replace(settings, frames=frames),
        text_tokens=TEXT_TOKENS,
        is_bidirectional=True,
    )


def _parameters(layers: int, d: int, m: int) -> int:
    """Number of weights of a network of width d and MLP width m."""
    block = 8 * (d * d + d) + 4 * d + 2 * d + (2 * d * m + m + d) + 6 * d
    around = (VALUES * d + d) + (TEXT_WIDTH * d + d) + (SINUSOID * d + d) + 2 * (d * d + d)
    around += 6 * (d * d + d) + (d * VALUES + VALUES) + 2 * d
    return layers * block + around
