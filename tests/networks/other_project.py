"""A video transformer as another project would write it, who does not know framelens. For tests only.

One forward over a whole clip, frame-causal by a mask, with a timestep for each frame; predicts the noise.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class CausalAttention(nn.Module):
    def __init__(self, dim, n_head):
        super().__init__()
        self.n_head = n_head
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x, mask):
        B, N, C = x.shape
        qkv = self.to_qkv(x).view(B, N, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], attn_mask=mask)
        return self.to_out(out.transpose(1, 2).reshape(B, N, C))


class TransformerLayer(nn.Module):
    def __init__(self, dim, n_head):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attn = CausalAttention(dim, n_head)
        self.ff = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
        self.t_proj = nn.Linear(dim, 2 * dim)

    def forward(self, x, temb, mask):
        scale, shift = self.t_proj(temb).chunk(2, dim=-1)
        x = x + self.self_attn(self.ln_1(x) * (1 + scale) + shift, mask)
        return x + self.ff(self.ln_2(x))


class VideoDenoiser(nn.Module):
    """eps(x_t, t) for clips [B, T, C, H, W] and timesteps [B, T] in 0..999 of a cosine schedule."""

    def __init__(self, size=16, patch_size=4, dim=32, depth=3, n_head=2, max_frames=32):
        super().__init__()
        self.patch_size, self.dim, self.grid = patch_size, dim, size // patch_size
        self.patchify = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        self.pos_emb = nn.Parameter(torch.randn(self.grid**2, dim))
        self.frame_emb = nn.Embedding(max_frames, dim)
        self.layers = nn.ModuleList(TransformerLayer(dim, n_head) for _ in range(depth))
        self.head = nn.Linear(dim, 3 * patch_size**2)

    def time_embedding(self, t):
        freqs = torch.exp(-math.log(10000) * torch.arange(self.dim // 2) / (self.dim // 2))
        angles = t[..., None].float() * freqs.to(t.device)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def tokens(self, x, first_frame=0):
        B, T = x.shape[:2]
        patches = self.patchify(x.flatten(0, 1)).flatten(2).transpose(1, 2).view(B, T, -1, self.dim)
        frames = torch.arange(first_frame, first_frame + T, device=x.device)
        return (patches + self.pos_emb + self.frame_emb(frames)[:, None]).flatten(1, 2)

    def images(self, tokens):
        B, p, g = len(tokens), self.patch_size, self.grid
        x = self.head(tokens).view(B, -1, g, g, 3, p, p)
        return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(B, -1, 3, g * p, g * p)

    def forward(self, x, t):
        per_frame = self.grid**2
        h, temb = self.tokens(x), self.time_embedding(t).repeat_interleave(per_frame, dim=1)
        frame = torch.arange(h.shape[1], device=x.device) // per_frame
        mask = frame[:, None] >= frame[None, :]
        for layer in self.layers:
            h = layer(h, temb, mask)
        return self.images(h)


def alpha_bar(t):
    """The share of signal that is left at timestep t."""
    return torch.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2


def make(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VideoDenoiser()
