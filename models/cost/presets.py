"""Sizes of released networks, without their weights: Wan 2.1 at 832 x 480 pixels.

Frames are 60 x 104 latents with 16 channels in patches of 2 x 2. Imports no torch.
"""

from framelens.models.cost.shape import Shape

PRESETS: dict[str, dict[str, int]] = {
    "wan-1.3b": {"layers": 30, "heads": 12, "d_model": 1536, "mlp_width": 8960},
    "wan-14b": {"layers": 40, "heads": 40, "d_model": 5120, "mlp_width": 13824},
}
ROWS, COLS, VALUES, TEXT_TOKENS, TEXT_WIDTH = 30, 52, 64, 512, 4096
FRAMES = 21
"""Frames of latents of 81 frames of video."""


def shape_of_released(name: str) -> Shape:
    """The shape of a released network that makes one frame at a time."""
    sizes = PRESETS[name]
    return Shape(
        layers=sizes["layers"],
        d_model=sizes["d_model"],
        heads=sizes["heads"],
        mlp_width=sizes["mlp_width"],
        tokens=ROWS * COLS,
        values=VALUES,
        text_tokens=TEXT_TOKENS,
        text_width=TEXT_WIDTH,
        shared_modulation=True,
    )
