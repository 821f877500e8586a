"""Networks of known size, without their weights: Wan 2.1 at 832 x 480 pixels.

Frames are 60 x 104 latents with 16 channels in patches of 2 x 2. Imports no torch.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from framelens.probes.run.settings import Settings

if TYPE_CHECKING:
    from framelens.probes.run.shape import RunShape

PRESETS: dict[str, dict[str, int]] = {
    "wan-1.3b": {"layers": 30, "heads": 12, "d_model": 1536, "mlp_width": 8960},
    "wan-14b": {"layers": 40, "heads": 40, "d_model": 5120, "mlp_width": 13824},
}
ROWS, COLS, VALUES, TEXT_TOKENS, TEXT_WIDTH, SINUSOID = 30, 52, 64, 512, 4096, 256
FRAMES, STEPS = 21, 50
"""The defaults: 81 frames of video, and the sampler's own steps."""


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
