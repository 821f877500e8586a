"""The configuration of Oasis."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    """The sizes of a network and of its window."""

    channels: int
    height: int
    width: int
    patch: int
    layers: int
    """Layers of both kinds together."""
    heads: int
    d_model: int
    mlp_width: int
    actions: int
    """Values in an action."""
    max_frames: int
    stabilization: int
    conditions: int = 0
    text_tokens: int = 0
    text_width: int = 0
    sink: int = 0

    @property
    def window(self) -> int:
        """Past frames in view."""
        return self.max_frames - 1
