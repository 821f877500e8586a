"""The sizes that decide the cost of a model: counts, widths, frames in view, batch and branches.

shape_of(config, batch=4, branches=2)
"""

from dataclasses import dataclass, replace
from typing import Any

VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one weight, key or value, by dtype."""


@dataclass(frozen=True)
class Shape:
    """The sizes that decide the cost of a model; `fusion` is None for a dense model.

    In a separated model `layers` are the decoder's, which run at every step; `encoder_layers` run once per
    frame. In a dense model `layers` are all layers.
    """

    layers: int
    d_model: int
    heads: int
    mlp_width: int
    tokens: int
    """Tokens in a frame."""
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
    """Whether the encoder's history begins with a start token, as long as a frame."""
    query: str = "past"
    """What the encoder's second pass per frame begins with, noise or other tokens that stand for the next
    frame; "past" for none. Where nothing is hooked it is one pass with that over the finished frame."""
    query_layer: int = 0
    """The encoder's layer at which that second pass begins."""
    past_layers: int | None = None
    """Of a dense model that fetches the past once per frame: how many first layers see it, at the first step.
    None: all layers read it at every step."""
    shared_modulation: bool = False
    """Whether all blocks share one projection of the time embedding and each adds its own table (Wan)."""
    batch: int = 1
    branches: int = 1
    """2 under guidance: each branch is a separate pass with its own history."""
    value_bytes: int = 4
    """Bytes of one weight, key or value."""

    def frames_in_view(self, history: int) -> int:
        """Past frames that a frame sees after `history` frames; a start token counts as one."""
        return history if self.window is None else min(history, self.sink + self.window)

    @property
    def that_remembers(self) -> "Shape":
        """The shape of the layers of a dense model that remember finished frames."""
        return self if self.past_layers is None else replace(self, layers=self.past_layers)

    @property
    def is_separated(self) -> bool:
        """Whether an encoder runs once per frame and a decoder at each step."""
        return self.fusion is not None

    @property
    def asks(self) -> bool:
        """Whether the encoder makes a second pass per frame."""
        return self.query != "past"

    @property
    def is_wide(self) -> bool:
        """Whether a learned vector among the encoder's first tokens keeps the residual stream in float32."""
        return self.learned_vectors > 0

    @property
    def learned_vectors(self) -> int:
        """Vectors that the encoder learns beside its layers: the start token and those of query tokens."""
        return self.start_token + {"frame": 2, "learned": 1}.get(self.query, 0)


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
        query=getattr(config, "query", "past"),
        query_layer=getattr(config, "query_layer", 0),
        shared_modulation=getattr(config, "shared_modulation", False),
    )
    return replace(shape, **changes)


def kept_bytes(shape: Shape) -> int:
    """Bytes of the past's part of attention that a frame's first step keeps, in one branch.

    It is an output of each query and one number for each head.
    """
    kept = shape.batch * (shape.past_layers or 0) * shape.tokens
    return kept * (shape.d_model + shape.heads) * shape.value_bytes
