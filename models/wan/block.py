"""A block of Wan: the stock block's weights, with hook points and a history of keys.

The modules with weights keep their stock names (norm1, attn1, norm2, attn2, norm3, ffn), so that a state dict
is the stock one. `attn` and `cross` hold hook points, and no weights.
"""

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.parts.blocks import (
    GuardedHookPoint,
    HookedAttention,
    HookedBlock,
    Rope,
    per_frame,
    rotate,
)
from framelens.models.parts.history import History

SPLIT, MERGE = "b n (h d) -> b n h d", "b h n d -> b n (h d)"


class SelfAttention(HookedAttention):
    """Attention among frame tokens; queries and keys are normalised across heads, then rotated."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads

    def forward(
        self, x: Float[Tensor, "b n d"], weights: nn.Module, rope: Rope, history: History, layer: int
    ) -> Float[Tensor, "b n d"]:
        """The attention output for each token; `weights` is the stock module with the projections."""
        stock: Any = weights
        q = self.hook_q(rearrange(stock.norm_q(stock.to_q(x)), SPLIT, h=self.heads))
        k = self.hook_k(rearrange(stock.norm_k(stock.to_k(x)), SPLIT, h=self.heads))
        v = self.hook_v(rearrange(stock.to_v(x), SPLIT, h=self.heads))
        q, k = self.hook_rot_q(rotate(q, rope)), self.hook_rot_k(rotate(k, rope))
        z = history.attend(layer, *(rearrange(part, "b n h d -> b h n d") for part in (q, k, v)))
        z = self.hook_z(rearrange(z, "b h n d -> b n h d"))
        return stock.to_out[0](rearrange(z, "b n h d -> b n (h d)"))


class TextAttention(nn.Module):
    """Attention of frame tokens to the prompt, whose keys and values are computed once per clip."""

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads
        self.hook_cross_out = GuardedHookPoint()

    def keys(self, text: Float[Tensor, "b t d"], weights: nn.Module) -> tuple[Tensor, Tensor]:
        """The prompt's keys and values [b h t d]."""
        stock: Any = weights
        k, v = stock.norm_k(stock.to_k(text)), stock.to_v(text)
        return tuple(rearrange(part, "b t (h d) -> b h t d", h=self.heads) for part in (k, v))

    def forward(
        self, x: Float[Tensor, "b n d"], weights: nn.Module, text: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "b n d"]:
        """The attention output for each frame token."""
        stock: Any = weights
        q = rearrange(stock.norm_q(stock.to_q(x)), "b n (h d) -> b h n d", h=self.heads)
        z = F.scaled_dot_product_attention(q, *text)
        return self.hook_cross_out(stock.to_out[0](rearrange(z, MERGE)))


class WanBlock(HookedBlock):
    """Self-attention, attention to the prompt and an MLP on the residual stream, in stock order and dtypes.

    Norms, scales, shifts and gates are float32 whatever the dtype of the weights, as in diffusers.
    """

    def __init__(self, stock: Any):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = stock.norm1, stock.norm2, stock.norm3
        self.attn1, self.attn2, self.ffn = stock.attn1, stock.attn2, stock.ffn
        self.scale_shift_table = stock.scale_shift_table
        self.attn, self.cross = SelfAttention(stock.attn1.heads), TextAttention(stock.attn2.heads)

    def text_keys(self, text: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor]:
        """The prompt's keys and values for this block."""
        return self.cross.keys(text, self.attn2)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        modulation: tuple[Tensor, Tensor],
        rope: Rope,
        history: History,
        layer: int,
        text: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after the block; hook_attn_out and hook_mlp_out hold its gated outputs.

        `modulation` comes from the timesteps, for attention and for the MLP, [b f (3 d)] each; this function
        adds the block's own table.
        """
        x = self.hook_resid_pre(x)
        normed, gate = self._modulate(self.norm1, x, modulation, 0)
        written = self.hook_attn_out(self.attn(normed, self.attn1, rope, history, layer) * gate)
        x = self.hook_resid_mid((x.float() + written).type_as(x))
        x = x + self.cross(self.norm2(x.float()).type_as(x), self.attn2, text)
        normed, gate = self._modulate(self.norm3, x, modulation, 1)
        written = self.hook_mlp_out(self.ffn(normed).float() * gate)
        return self.hook_resid_post((x.float() + written).type_as(x))

    def _modulate(
        self, norm: nn.Module, x: Tensor, modulation: tuple[Tensor, Tensor], half: int
    ) -> tuple[Tensor, Tensor]:
        """The norm of x after scale and shift, and the gate for the output."""
        table = rearrange(self.scale_shift_table[:, 3 * half : 3 * half + 3], "1 three d -> 1 1 (three d)")
        own = table + modulation[half].float()
        shift, scale, gate = (per_frame(part, x.shape[1]) for part in own.chunk(3, dim=-1))
        return (norm(x.float()) * (1 + scale) + shift).type_as(x), gate
