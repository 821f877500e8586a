"""The configuration that dense and separated networks share, and the condition of each frame of a clip."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from framelens.diffusion.contract import Geometry
from framelens.models.parts.history import Reach


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """The settings that dense and separated networks share; stored beside the weights."""

    channels: int
    height: int
    width: int
    patch: int
    heads: int
    d_model: int
    mlp_width: int | None = None
    """Width inside the MLP; None for four times d_model."""
    conditions: int = 0
    """How many actions or labels there are; 0 for none."""
    text_tokens: int = 0
    """Tokens of a prompt; every block attends to them; 0 for none."""
    text_width: int = 0
    """Width of the prompt's embeddings."""
    rope_axes: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 10000.0
    window: int | None = None
    """Past frames in view; None for all."""
    sink: int = 0
    """First frames of the sequence that always stay in view, beside the window."""

    def __post_init__(self):
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(
                f"a {self.height} x {self.width} frame does not divide into patches of {self.patch}"
            )
        if self.d_model % self.heads or sum(self.rope_axes) != self.d_model // self.heads:
            raise ValueError(
                f"width {self.d_model} over {self.heads} heads does not match the RoPE axes {self.rope_axes}"
            )
        if bool(self.text_tokens) != bool(self.text_width) or (self.text_tokens and self.conditions):
            raise ValueError(
                f"text needs both text_tokens and text_width, and no conditions beside it; got "
                f"{self.text_tokens}, {self.text_width} and {self.conditions}"
            )
        Reach(self.window, self.sink)

    def geometry(self, layers: int) -> Geometry:
        """The shape of videos and token grid of a network with that many layers."""
        return Geometry(
            1, self.channels, self.height, self.width, self.patch, layers, self.heads, self.d_model
        )

    @property
    def reach(self) -> Reach:
        """How far back a frame sees."""
        return Reach(self.window, self.sink)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Any:
        """The configuration from its plain values, as a checkpoint stores them."""
        return cls(**{**values, "rope_axes": tuple(values["rope_axes"])})

    def values(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self)


# Sizes that presets of both architectures share.
TINY: dict[str, Any] = {"channels": 3, "height": 20, "width": 20, "patch": 4, "heads": 4, "d_model": 128}
TINY |= {"rope_axes": (8, 12, 12), "rope_theta": 100.0}
LATENT: dict[str, Any] = {"channels": 32, "height": 8, "width": 8, "patch": 1}
WAN: dict[str, Any] = {
    "channels": 16,
    "height": 60,
    "width": 104,
    "patch": 2,
    "heads": 12,
    "d_model": 1536,
    "mlp_width": 8960,
}
WAN |= {"text_tokens": 512, "text_width": 4096, "rope_axes": (44, 42, 42)}


def preset(presets: Mapping[str, Any], kind: str, name: str, changes: Mapping[str, Any]) -> Any:
    """A preset's configuration with changes; an unknown preset raises ValueError with those that exist."""
    if name not in presets:
        raise ValueError(f"no {kind} preset is called {name!r}; there are {', '.join(presets)}")
    return replace(presets[name], **changes)


def check_conditions(cond: Tensor | None, config: StackConfig, batch: int) -> None:
    """Raises ValueError if conditions are missing, are for another batch, or text has another shape."""
    if config.conditions and cond is None:
        raise ValueError(f"this model is conditional ({config.conditions} actions or labels); give cond")
    prompt = (config.text_tokens, config.text_width)
    if config.text_tokens and (cond is None or tuple(cond.shape[1:]) != prompt):
        got = "nothing" if cond is None else tuple(cond.shape)
        raise ValueError(f"this model reads a prompt: cond must be embeddings [batch, *{prompt}], got {got}")
    if cond is not None and len(cond) != batch:
        raise ValueError(f"cond is for {len(cond)} clips, the batch has {batch}")


def condition_of(cond: Tensor | None, frame: int) -> Int[Tensor, "b 1"] | None:
    """The condition of one frame: actions [b f] are looked up, labels [b] hold for all frames."""
    if cond is None or cond.ndim == 1:
        return None if cond is None else cond[:, None]
    if frame >= cond.shape[1]:
        raise ValueError(f"actions are given for {cond.shape[1]} frames; frame {frame} has none")
    return cond[:, frame : frame + 1]


def conditions_of(cond: Tensor | None, frames: int) -> Int[Tensor, "b {frames}"] | None:
    """The condition of each of a clip's first frames."""
    if cond is None:
        return None
    return cond[:, None].expand(-1, frames) if cond.ndim == 1 else cond[:, :frames]


def draw_table(rows: int, width: int) -> nn.Embedding:
    """A normal vector for each condition; without values on the meta device, where torch would load its
    compiler to draw them."""
    weight = torch.empty(rows, width)
    return nn.Embedding(rows, width, _weight=weight if weight.is_meta else nn.init.normal_(weight))
