"""A network that carries its past as tokens of each pass, and registers with it. For tests only.

    [registers | the last two frames | the current frame]

All tokens see each other in every layer, so registers and tokens of the past have read everything in deeper
layers. `encode` runs nothing: it keeps the frames.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from framelens.hooks.attention import AttentionPoint
from framelens.models.adapter_template import HEADS, TOKENS, WIDTH, Adapter, Net

FRAMES, REGISTERS = 2, 3


@dataclass(frozen=True)
class Kept:
    """The context: the last clean frames, and the number of the next one."""

    frame: int
    frames: Tensor


class Carried(Adapter):
    """The template's network on all tokens in one pass."""

    takes, null_condition = None, None
    stack = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, net: Net):
        super().__init__(net)
        self.registers = nn.Parameter(torch.randn(REGISTERS, WIDTH))
        self.metadata = {}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """The current frame's queries are the last ones."""
        return {
            name: AttentionPoint(point.module, self.key_age, own_queries=TOKENS)
            for name, point in super().attn_dict.items()
        }

    def key_age(self, frame: int, keys: int) -> Tensor:
        """Registers are of no frame; then the frames, oldest first."""
        ages = torch.arange(min(frame, FRAMES), -1, -1).repeat_interleave(TOKENS)
        return torch.cat([torch.full((REGISTERS,), -1), ages])

    def start(self, batch: int, cond: Any = None) -> Kept:
        """No frame."""
        geometry = self.geometry
        return Kept(0, torch.zeros(batch, 0, geometry.channels, geometry.height, geometry.width))

    def encode(self, x: Tensor, context: Kept) -> Kept:
        """With this frame; no pass runs."""
        return Kept(context.frame + 1, torch.cat([context.frames, x], dim=1)[:, -FRAMES:])

    def denoise(self, x: Tensor, sigma: Tensor, context: Kept) -> Tensor:
        """The velocity of the last tokens."""
        past = context.frames.shape[1]
        levels = torch.cat([sigma.new_zeros(len(x), past), sigma[:, None]], dim=1)
        frames = torch.cat([context.frames.to(x), x], dim=1)
        tokens = self.net.embed_tokens(frames, levels, None, context.frame - past)
        tokens = self.hook_embed(torch.cat([self.registers.expand(len(x), -1, -1), tokens], dim=1))
        none = tokens.new_empty(len(x), HEADS, 0, WIDTH // HEADS)
        for block in self.blocks:
            tokens = block(tokens, (none, none), [])
        return self.net.frames(tokens[:, -TOKENS:])
