"""All that decides the cost of a model: counts, widths, what is seen of the past, how it is used.

shape_of(config, batch=4, branches=2)
"""

from dataclasses import dataclass, replace
from typing import Any

VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a weight, and of a key or value, by dtype."""


@dataclass(frozen=True)
class Shape:
    """All that decides the cost of a model; `fusion` None is a dense one, whose `layers` do everything.

    In a separated one `layers` are the decoder's, which run at every step; the encoder's run once a frame.
    """

    layers: int
    d_model: int
    heads: int
    mlp_width: int
    tokens: int
    """In a frame."""
    values: int
    """Numbers in a patch, channels x patch x patch."""
    encoder_layers: int = 0
    fusion: str | None = None
    conditions: int = 0
    text_tokens: int = 0
    text_width: int = 0
    window: int | None = None
    """Past frames in view; None for all."""
    sink: int = 0
    start_token: bool = False
    """Whether the encoder's history begins with a frame that is not one."""
    query: bool = False
    """Whether the encoder, once a frame is read, is asked for the next one by a pass over noise."""
    shared_modulation: bool = False
    """Whether all blocks share one projection of the time embedding and add a table of their own (Wan)."""
    batch: int = 1
    branches: int = 1
    """2 under guidance: each branch is a pass of its own with its own history."""
    value_bytes: int = 4
    """Of a weight, and of a key or value."""

    def frames_in_view(self, history: int) -> int:
        """Frames in view of one that has `history` frames (or a start token and frames) before it."""
        return history if self.window is None else min(history, self.sink + self.window)

    @property
    def is_separated(self) -> bool:
        """Whether an encoder runs once per frame and a decoder at each step."""
        return self.fusion is not None


def shape_of(config: Any, **changes: Any) -> Shape:
    """The shape of a dense or separated model's configuration; `changes` such as batch=4, branches=2."""
    rows, cols = config.height // config.patch, config.width // config.patch
    shape = Shape(
        layers=config.layers if hasattr(config, "layers") else config.decoder_layers,
        d_model=config.d_model,
        heads=config.heads,
        mlp_width=config.mlp_width or 4 * config.d_model,
        tokens=rows * cols,
        values=config.channels * config.patch**2,
        encoder_layers=getattr(config, "encoder_layers", 0),
        fusion=getattr(config, "fusion", None),
        conditions=config.conditions,
        text_tokens=config.text_tokens,
        text_width=config.text_width,
        window=config.window,
        sink=config.sink,
        start_token=getattr(config, "start_token", False),
        query=getattr(config, "query", "past") == "noise",
        shared_modulation=getattr(config, "shared_modulation", False),
    )
    return replace(shape, **changes)
