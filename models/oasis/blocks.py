"""Oasis's blocks with hook points: attention within a frame, then attention along the frames of each place.

Each half, with its own MLP, is a layer here. Tokens are [b n d] with n = (frame row col); hook points and
instruments of attention see only the last frame, the current one.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from framelens.hooks.kernel import unwatched_attention
from framelens.models.parts.blocks import HookedAttention, HookedBlock, per_frame
from framelens.models.parts.cache import Attending, KVCache
from framelens.models.parts.current_tokens import Turns, hook_current, rotate_pairs
from framelens.models.parts.history import History


@dataclass(frozen=True)
class OasisPast:
    """The context of Oasis: the frames in view and their keys along time."""

    frame: int
    cache: KVCache
    recent: Float[Tensor, "b seen c h w"]
    actions: Float[Tensor, "b f a"] | None


@dataclass(frozen=True)
class Frames:
    """The frames of a pass: their number, tokens per frame, and the keys along time of earlier frames.

    A pass over several frames has no earlier ones.
    """

    tokens: int
    frames: int
    cache: KVCache | History

    def within(self, _layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b (t n) h d] of each frame's tokens to each other."""
        q, k, v = (rearrange(x, "b (t n) h d -> b t h n d", n=self.tokens) for x in (q, k, v))
        parts = [F.scaled_dot_product_attention(q[:, -1], k[:, -1], v[:, -1])[:, None]]
        if self.frames > 1:
            parts.insert(0, unwatched_attention(q[:, :-1], k[:, :-1], v[:, :-1]))
        return rearrange(torch.cat(parts, dim=1), "b t h n d -> b (t n) h d")

    def along(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b (t n) h d] of each token to the same place in the frames up to its own."""
        q, k, v = (rearrange(x, "b (t n) h d -> (b n) h t d", n=self.tokens) for x in (q, k, v))
        seen = self.cache.attend(layer, q[:, :, -1:], k, v)
        if self.frames > 1:
            q, k, v = (x[:, :, : self.frames - 1] for x in (q, k, v))
            seen = torch.cat([unwatched_attention(q, k, v, is_causal=True), seen], dim=2)
        return rearrange(seen, "(b n) h t d -> b (t n) h d", n=self.tokens)

    def replace_attention(self, attend: Attending, cut: int) -> "Frames":
        """The same with another way of attending along time, which the odd layers of the network do."""
        assert isinstance(self.cache, KVCache)
        return replace(self, cache=attend(self.cache, cut // 2, 0))


class OasisAttention(HookedAttention):
    """Self-attention with rotated queries and keys, within frames or along time."""

    def __init__(self, d_model: int, heads: int, is_temporal: bool):
        super().__init__()
        self.heads, self.is_temporal = heads, is_temporal
        self.to_qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.to_out = nn.Linear(d_model, d_model)

    def forward(self, x: Float[Tensor, "b n d"], turns: Turns, frames: Frames, layer: int) -> Tensor:
        """The attention output for each token of x; `layer` counts layers of the same kind."""
        own = frames.tokens
        qkv = rearrange(self.to_qkv(x), "b n (part h d) -> part b n h d", part=3, h=self.heads)
        points = (self.hook_q, self.hook_k, self.hook_v)
        q, k, v = (hook_current(point, part, own) for point, part in zip(points, qkv, strict=True))
        q = hook_current(self.hook_rot_q, rotate_pairs(q, turns), own)
        k = hook_current(self.hook_rot_k, rotate_pairs(k, turns), own)
        z = (frames.along if self.is_temporal else frames.within)(layer, q, k, v)
        return self.to_out(rearrange(hook_current(self.hook_z, z, own), "b n h d -> b n (h d)"))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, d_model: int, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_model, width), nn.Linear(width, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Half(HookedBlock):
    """A layer: attention of one kind and an MLP, each with adaLN before and a gate after."""

    def __init__(self, d_model: int, heads: int, mlp_width: int, is_temporal: bool):
        super().__init__()
        self.attn, self.mlp = OasisAttention(d_model, heads, is_temporal), Mlp(d_model, mlp_width)
        self.modulation = nn.Linear(d_model, 6 * d_model)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        condition: Float[Tensor, "b t d"],
        turns: Turns,
        frames: Frames,
        layer: int,
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after the layer; `condition` embeds the level and the action of each frame."""
        own, width = frames.tokens, x.shape[1]
        parts = self.modulation(F.silu(condition)).chunk(6, dim=-1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (per_frame(part, width) for part in parts)
        x = hook_current(self.hook_resid_pre, x, own)
        written = gate * self.attn(normalise(x) * (1 + scale) + shift, turns, frames, layer)
        x = hook_current(self.hook_resid_mid, x + hook_current(self.hook_attn_out, written, own), own)
        written = mlp_gate * self.mlp(normalise(x) * (1 + mlp_scale) + mlp_shift)
        return hook_current(self.hook_resid_post, x + hook_current(self.hook_mlp_out, written, own), own)


def normalise(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Layer norm without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def within_turns(frequencies: Float[Tensor, " f"], rows: int, cols: int, frames: int) -> Turns:
    """Rotations by row and column, both from -1 to 1, each in half of the pairs; equal in all frames."""
    places = (torch.linspace(-1, 1, size, device=frequencies.device) for size in (rows, cols))
    by_row, by_col = (torch.outer(place, frequencies) for place in places)
    angles = torch.cat([by_row.repeat_interleave(cols, 0), by_col.repeat(rows, 1)], dim=1)
    return torch.polar(torch.ones_like(angles), angles).repeat(frames, 1)


def along_turns(frequencies: Float[Tensor, " f"], first: int, frames: int, tokens: int) -> Turns:
    """Rotations by the number of the frame in the window; equal for all tokens of a frame."""
    numbers = torch.arange(first, first + frames, device=frequencies.device, dtype=torch.float32)
    angles = torch.outer(numbers, frequencies)
    return torch.polar(torch.ones_like(angles), angles).repeat_interleave(tokens, 0)
