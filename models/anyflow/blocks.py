"""AnyFlow's blocks with hook points; they use the weights of diffusers' modules.

A pass may hold tokens of earlier chunks before those of the current chunk. Hook points and instruments of
attention see only the current chunk: the last `own` tokens.
"""

from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.parts.blocks import GuardedHookPoint, HookedAttention, HookedBlock
from framelens.models.parts.current_tokens import Turns, hook_current, rotate_pairs


@runtime_checkable
class Seen(Protocol):
    """What an attention module needs of the past: the attention of a pass's tokens."""

    @property
    def own(self) -> int:
        """Number of tokens of the current chunk, the last ones of a pass."""
        ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the tokens of a pass over those they may see."""
        ...


class AnyFlowAttention(HookedAttention):
    """Self-attention; queries and keys are normalised over all heads together, as in Wan."""

    def __init__(self, stock: Any):
        super().__init__()
        self.heads = stock.heads
        self.to_q, self.to_k, self.to_v, self.to_out = stock.to_q, stock.to_k, stock.to_v, stock.to_out
        self.norm_q, self.norm_k = stock.norm_q, stock.norm_k

    def forward(self, x: Float[Tensor, "b n d"], turns: Turns, seen: Seen, layer: int) -> Tensor:
        """The attention output for each token of x."""
        own = seen.own
        q = hook_current(self.hook_q, self._split(self.norm_q(self.to_q(x)).to(x.dtype)), own)
        k = hook_current(self.hook_k, self._split(self.norm_k(self.to_k(x)).to(x.dtype)), own)
        v = hook_current(self.hook_v, self._split(self.to_v(x)), own)
        q = hook_current(self.hook_rot_q, rotate_pairs(q, turns), own)
        k = hook_current(self.hook_rot_k, rotate_pairs(k, turns), own)
        z = seen.attend(layer, *(rearrange(part, "b n h d -> b h n d") for part in (q, k, v)))
        z = hook_current(self.hook_z, rearrange(z, "b h n d -> b n h d"), own)
        return self.to_out[0](rearrange(z, "b n h d -> b n (h d)"))

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b n h d", h=self.heads)


class AnyFlowTextAttention(nn.Module):
    """Attention to the prompt, whose keys and values are computed once per clip."""

    def __init__(self, stock: Any):
        super().__init__()
        self.heads = stock.heads
        self.to_q, self.to_k, self.to_v, self.to_out = stock.to_q, stock.to_k, stock.to_v, stock.to_out
        self.norm_q, self.norm_k = stock.norm_q, stock.norm_k
        self.hook_cross_out = GuardedHookPoint()

    def keys(self, text: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor]:
        """Keys and values [b h t d] of the prompt."""
        return self._split(self.norm_k(self.to_k(text)).to(text.dtype)), self._split(self.to_v(text))

    def forward(self, x: Float[Tensor, "b n d"], text: tuple[Tensor, Tensor], own: int) -> Tensor:
        """The attention output for each token of x."""
        z = F.scaled_dot_product_attention(self._split(self.norm_q(self.to_q(x)).to(x.dtype)), *text)
        return hook_current(self.hook_cross_out, self.to_out[0](rearrange(z, "b h n d -> b n (h d)")), own)

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)


class Block(HookedBlock):
    """Attention, attention to the prompt and MLP; modulation is the block's table plus that of the time."""

    def __init__(self, stock: Any):
        super().__init__()
        self.norm1, self.norm2, self.norm3, self.ffn = stock.norm1, stock.norm2, stock.norm3, stock.ffn
        self.scale_shift_table = stock.scale_shift_table
        self.attn1, self.attn2 = AnyFlowAttention(stock.attn1), AnyFlowTextAttention(stock.attn2)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        time: Float[Tensor, "#b six d"],
        turns: Turns,
        seen: Seen,
        layer: int,
        text: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after the block; hook_attn_out and hook_mlp_out hold its gated outputs."""
        own = seen.own
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (
            self.scale_shift_table + time.float()
        ).chunk(6, dim=1)  # fmt: skip
        x = hook_current(self.hook_resid_pre, x, own)
        normed = (self.norm1(x.float()) * (1 + scale) + shift).type_as(x)
        written = hook_current(self.hook_attn_out, self.attn1(normed, turns, seen, layer) * gate, own)
        x = hook_current(self.hook_resid_mid, (x.float() + written).type_as(x), own)
        x = x + self.attn2(self.norm2(x.float()).type_as(x), text, own)
        normed = (self.norm3(x.float()) * (1 + mlp_scale) + mlp_shift).type_as(x)
        written = hook_current(self.hook_mlp_out, self.ffn(normed).float() * mlp_gate, own)
        return hook_current(self.hook_resid_post, (x.float() + written).type_as(x), own)
