"""The parts our networks are built from: hook points, RoPE, attention, the adaLN block.

The only file that imports transformer_lens. Layout: tokens are [b n d] with n = (frame row col), frame
slowest. Modulation is [b f d], one vector per frame, repeated over that frame's tokens.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule as TransformerLensModule
from transformer_lens.hook_points import HookPoint

from framelens.hooks.cache import Cache, Entry, NamesFilter, select_names
from framelens.models.parts.cache import KVCache
from framelens.models.parts.elementwise import TanhGELU, normalise, turn_pairs
from framelens.models.parts.history import History


class HookedRootModule(TransformerLensModule):
    """TransformerLens' root module; its cache is a `framelens.hooks.Cache`, and its filters may be globs."""

    def run_with_cache(
        self, *inputs: Any, names_filter: NamesFilter = None, **options: Any
    ) -> tuple[Any, Cache]:
        """What the model returns, with gradients, and the values at the points that the filter chooses.

        None chooses all points. Other options as in TransformerLens. ValueError for a glob without a match.
        """
        chosen = None if names_filter is None else select_names(self.hook_dict, names_filter)
        out, values = super().run_with_cache(*inputs, names_filter=chosen, **options)
        return out, Cache(Entry(None, name, value) for name, value in values.items())


class GuardedHookPoint(HookPoint):
    """A hook point that torch.compile recompiles for when hooks come and go.

    Dynamo puts no guard on `_forward_hooks`, so a hook attached after compilation would be ignored; it does
    guard the same dict under another name.
    """

    is_guarded = True

    def __init__(self):
        super().__init__()
        self.attached = self._forward_hooks

    def forward(self, x: Tensor) -> Tensor:
        return x if len(self.attached) else x


Rope = tuple[Float[Tensor, "n head"], Float[Tensor, "n head"]]


class AxialRope(nn.Module):
    """Rotary position in (frame, row, col), interleaved pairs; frame numbers are absolute from 0.

    The head is split over the three axes as `axes`; the tables are computed in float64 (Bai et al. 2026,
    released code: axes (16, 24, 24), theta 10000).
    """

    def __init__(self, axes: tuple[int, int, int], rows: int, cols: int, theta: float):
        super().__init__()
        self.axes, self.rows, self.cols, self.theta = axes, rows, cols, theta

    def forward(self, frames: Int[Tensor, " f"]) -> Rope:
        """Cosine and sine for every token of these frames, each [(f rows cols) head_width].

        The sine is negative at the first channel of each pair, where the rotation subtracts.
        """
        device = frames.device
        grid = torch.meshgrid(
            frames.double(),
            torch.arange(self.rows, device=device, dtype=torch.float64),
            torch.arange(self.cols, device=device, dtype=torch.float64),
            indexing="ij",
        )
        angles = torch.cat(
            [self._angles(place.flatten(), width) for place, width in zip(grid, self.axes, strict=True)],
            dim=-1,
        )
        sine = angles.sin()
        sine[:, 0::2] *= -1
        return angles.cos().float(), sine.float()

    def _angles(self, places: Float[Tensor, " n"], width: int) -> Float[Tensor, "n {width}"]:
        powers = torch.arange(0, width, 2, device=places.device, dtype=torch.float64) / width
        return torch.outer(places, self.theta**-powers).repeat_interleave(2, dim=-1)


def rotate(x: Float[Tensor, "b n h d"], rope: Rope) -> Float[Tensor, "b n h d"]:
    """x with each pair of channels rotated by its token's angle; computed in float32."""
    return turn_pairs(x.float(), *rope).to(x.dtype)


class HookedAttention(nn.Module):
    """An attention with hook points as in TransformerLens, [b n h d].

    hook_q and hook_k are after the norm and before the rotation, hook_rot_q and hook_rot_k after it.
    """

    def __init__(self):
        super().__init__()
        self.hook_q, self.hook_k, self.hook_v = GuardedHookPoint(), GuardedHookPoint(), GuardedHookPoint()
        self.hook_rot_q, self.hook_rot_k = GuardedHookPoint(), GuardedHookPoint()
        self.hook_z = GuardedHookPoint()


class HookedBlock(nn.Module):
    """A block with hook points on its residual stream and at its two outputs, after their gates."""

    def __init__(self):
        super().__init__()
        self.hook_resid_pre, self.hook_resid_mid = GuardedHookPoint(), GuardedHookPoint()
        self.hook_attn_out, self.hook_mlp_out = GuardedHookPoint(), GuardedHookPoint()
        self.hook_resid_post = GuardedHookPoint()


class StackAttention(HookedAttention):
    """Multi-head attention with RMS-normalised queries and keys and RoPE, through the fused kernel.

    hook_pattern [b h q k] exists only while hooked, and only in cached passes.
    """

    def __init__(self, d_model: int, heads: int):
        super().__init__()
        self.heads, head = heads, d_model // heads
        self.q, self.k, self.v, self.o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(head, eps=1e-6) for _ in range(2))
        self.hook_pattern = GuardedHookPoint()

    def forward(
        self, x: Float[Tensor, "b n d"], rope: Rope, history: History, layer: int
    ) -> Float[Tensor, "b n d"]:
        """The attention output for each token of x; `history` decides which keys each token sees."""
        split = (self.heads, -1)
        q = self.hook_q(self._normalise(self.norm_q, self.q(x).unflatten(-1, split)))
        k = self.hook_k(self._normalise(self.norm_k, self.k(x).unflatten(-1, split)))
        v = self.hook_v(self.v(x).unflatten(-1, split))
        q, k = self.hook_rot_q(rotate(q, rope)), self.hook_rot_k(rotate(k, rope))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        if len(self.hook_pattern.attached):
            z = self._through_pattern(q, k, v, history, layer)
        else:
            z = history.attend(layer, q, k, v)
        return self.o(self.hook_z(z.transpose(1, 2)).flatten(2))

    @staticmethod
    def _normalise(norm: nn.RMSNorm, x: Tensor) -> Tensor:
        return norm(x.to(norm.weight.dtype)).to(x.dtype)

    def _through_pattern(self, q: Tensor, k: Tensor, v: Tensor, history, layer: int) -> Tensor:
        """z after the hooks on hook_pattern; the fused kernel's z if they did not change the pattern."""
        if not isinstance(history, KVCache):
            raise ValueError(
                "hook_pattern exists in passes over the KV cache, not in teacher_forced, nor in fetch_once"
            )
        z = history.attend(layer, q, k, v)
        keys, values = history.with_current(layer, k, v)
        pattern = (q.float() @ keys.float().mT / math.sqrt(q.shape[-1])).softmax(dim=-1)
        hooked = self.hook_pattern(pattern.clone())
        return z if torch.equal(hooked, pattern) else hooked.to(v.dtype) @ values


def per_frame(values: Float[Tensor, "b f d"], tokens: int) -> Float[Tensor, "b n d"]:
    """One vector per frame, repeated over that frame's tokens; a single frame is not copied."""
    if values.shape[1] == 1:
        return values
    return values.repeat_interleave(tokens // values.shape[1], dim=1)


class AdaNorm(nn.Module):
    """Layer norm without weights, then scale and shift from the time embedding; also gives the gate."""

    def __init__(self, d_model: int):
        super().__init__()
        self.linear = nn.Linear(d_model, 3 * d_model)

    def forward(
        self, x: Float[Tensor, "b n d"], modulation: Float[Tensor, "#b f three_d"]
    ) -> tuple[Tensor, Tensor]:
        """The modulated x and the gate [b n d]; modulation is `linear`'s output: shift, scale, gate."""
        shift, scale, gate = (per_frame(part, x.shape[1]) for part in modulation.chunk(3, dim=-1))
        return normalise(x, scale, shift), gate


class Block(HookedBlock):
    """A DiT block: attention and a GELU MLP, each with adaLN before and a gate after (Peebles and Xie 2023).

    `cross` adds attention to text between them, with a layer norm before it and without a gate (Wan).
    """

    def __init__(self, d_model: int, heads: int, mlp_width: int, cross: nn.Module | None = None):
        super().__init__()
        self.norm1, self.norm2 = AdaNorm(d_model), AdaNorm(d_model)
        self.attn = StackAttention(d_model, heads)
        self.cross = cross
        self.mlp = nn.Sequential(
            nn.Linear(d_model, mlp_width),
            TanhGELU(),
            nn.Linear(mlp_width, d_model),
        )

    def modulation(self, emb: Float[Tensor, "b f d"]) -> tuple[Tensor, Tensor]:
        """Shift, scale and gate of both norms from the time embedding, [b f (3 d)] each."""
        return self.norm1.linear(emb), self.norm2.linear(emb)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        modulation: tuple[Tensor, Tensor],
        rope: Rope,
        history: History,
        layer: int,
        text: tuple[Tensor, Tensor] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after the block; hook_attn_out and hook_mlp_out hold its gated outputs."""
        x = self.hook_resid_pre(x)
        normed, gate = self.norm1(x, modulation[0])
        x = self.hook_resid_mid(x + self.hook_attn_out(gate * self.attn(normed, rope, history, layer)))
        if self.cross is not None:
            x = x + self.cross(x, text)
        normed, gate = self.norm2(x, modulation[1])
        return self.hook_resid_post(x + self.hook_mlp_out(gate * self.mlp(normed)))


class TimeEmbedding(nn.Module):
    """The embedding of a timestep: a 256-wide sinusoid (cosine first) of t in 0..1000, then an MLP."""

    def __init__(self, d_model: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, d_model), nn.SiLU(), nn.Linear(d_model, d_model))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def forward(self, timestep: Float[Tensor, "b f"]) -> Float[Tensor, "b f d"]:
        powers = torch.arange(128, device=timestep.device) / 127
        angles = timestep.float()[..., None] * torch.exp(-math.log(10000) * powers)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.dtype))
