"""Attention to a prompt; every block computes the prompt's keys and values once per clip."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from framelens.models.parts.blocks import GuardedHookPoint

TextKeys = list[tuple[Tensor, Tensor]]
"""Keys and values [b h t d] of the prompt, one pair per block."""


class CrossAttention(nn.Module):
    """Attention of frame tokens to the prompt's tokens, after a layer norm, without RoPE, as in Wan."""

    def __init__(self, d_model: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.q, self.k, self.v, self.o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(d_model, eps=1e-6) for _ in range(2))
        self.hook_cross_out = GuardedHookPoint()

    def keys(self, text: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor]:
        """The prompt's keys and values [b h t d]."""
        k, v = self.norm_k(self.k(text)), self.v(text)
        return self._split(k), self._split(v)

    def forward(self, x: Float[Tensor, "b n d"], text: tuple[Tensor, Tensor]) -> Float[Tensor, "b n d"]:
        """The attention output for each frame token."""
        q = self._split(self.norm_q(self.q(self.norm(x))))
        z = F.scaled_dot_product_attention(q, *text)
        return self.hook_cross_out(self.o(rearrange(z, "b h n d -> b n (h d)")))

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)


class TextEmbedding(nn.Sequential):
    """Projection of a prompt's embeddings [b t text_width] to the network's width."""

    def __init__(self, text_width: int, d_model: int):
        super().__init__(
            nn.Linear(text_width, d_model), nn.GELU(approximate="tanh"), nn.Linear(d_model, d_model)
        )
