"""Blocks of FAR-Long: coarse tokens of far frames have their own projections; all tokens attend together.

The tokens of a pass are in order (coarse, fine).
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from framelens.hooks.kernel import unwatched_attention
from framelens.models.parts.blocks import Block, HookedAttention, Rope, rotate
from framelens.models.parts.cache import KVCache
from framelens.models.parts.history import History


@dataclass(frozen=True)
class Recoding:
    """A frame-causal pass over the frame that becomes coarse and the fine frames after it.

    `cache` holds the frames that were coarse before; `ends` is the end of each frame of the pass, in tokens.
    """

    cache: KVCache
    ends: tuple[int, ...]

    @property
    def coarse(self) -> int:
        """Number of coarse tokens in the pass."""
        return self.ends[0]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the pass's tokens [b h n d], frame by frame, which needs no mask."""
        keys, values = self.cache.with_current(layer, k, v)
        first, gathered = 0, []
        for end in self.ends[:-1]:
            seen = slice(0, self.cache.tokens + end)
            # Instruments expect one call in a pass: that of the current frame, below.
            gathered.append(unwatched_attention(q[:, :, first:end], keys[:, :, seen], values[:, :, seen]))
            first = end
        newest = F.scaled_dot_product_attention(q[:, :, first:], keys, values)
        return torch.cat([*gathered, newest], dim=2)


class LongAttention(HookedAttention):
    """Attention with a second set of projections for coarse tokens; q and k RMS-normalised, then rotated."""

    def __init__(self, d_model: int, heads: int, is_last: bool):
        super().__init__()
        self.heads, head = heads, d_model // heads
        self.q, self.k, self.v, self.o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.added_q, self.added_k, self.added_v = (nn.Linear(d_model, d_model) for _ in range(3))
        self.added_o = None if is_last else nn.Linear(d_model, d_model)
        self.norm_q, self.norm_k = (nn.RMSNorm(head, eps=1e-6) for _ in range(2))
        self.norm_added_q, self.norm_added_k = (nn.RMSNorm(head, eps=1e-6) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "b n d"], rope: Rope, history: History, layer: int
    ) -> Float[Tensor, "b n d"]:
        """The attention output for each token of x; `history` decides which keys each token sees."""
        coarse = history.coarse if isinstance(history, Recoding) else 0
        q = self.hook_q(self._heads(x, coarse, (self.added_q, self.q), (self.norm_added_q, self.norm_q)))
        k = self.hook_k(self._heads(x, coarse, (self.added_k, self.k), (self.norm_added_k, self.norm_k)))
        v = self.hook_v(self._heads(x, coarse, (self.added_v, self.v), None))
        q, k = self.hook_rot_q(rotate(q, rope)), self.hook_rot_k(rotate(k, rope))
        z = history.attend(layer, *(rearrange(part, "b n h d -> b h n d") for part in (q, k, v)))
        z = rearrange(self.hook_z(rearrange(z, "b h n d -> b n h d")), "b n h d -> b n (h d)")
        return _apply_each(z, coarse, (self.added_o or nn.Identity(), self.o))

    def _heads(
        self,
        x: Tensor,
        coarse: int,
        projections: tuple[nn.Module, nn.Module],
        norms: tuple[nn.Module, nn.Module] | None,
    ) -> Float[Tensor, "b n h dh"]:
        heads = rearrange(_apply_each(x, coarse, projections), "b n (h d) -> b n h d", h=self.heads)
        return heads if norms is None else _apply_each(heads, coarse, norms)


class LongBlock(Block):
    """A block of FAR with LongAttention; coarse and fine tokens share its norms and its MLP."""

    def __init__(self, d_model: int, heads: int, mlp_width: int, is_last: bool):
        super().__init__(d_model, heads, mlp_width)
        self.attn = LongAttention(d_model, heads, is_last)


def _apply_each(x: Tensor, coarse: int, modules: tuple[nn.Module, nn.Module]) -> Tensor:
    """The first module's output for the coarse tokens of x, the second's for the fine ones."""
    of_coarse, of_fine = modules
    if not coarse:
        return of_fine(x)
    return torch.cat([of_coarse(x[:, :coarse]), of_fine(x[:, coarse:])], dim=1)
