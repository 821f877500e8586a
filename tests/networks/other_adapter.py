"""An adapter of another project's network, MODEL=tests/networks/other_adapter.py:load. For tests only.

The network predicts the noise of a cosine schedule; here sigma and velocities are those of flow matching.
"""

from dataclasses import dataclass

import other_project
import torch
from torch import nn
from torch.nn import functional as F

from framelens.diffusion.contract import Geometry
from framelens.hooks.attention import AttentionPoint
from framelens.models.parts.blocks import GuardedHookPoint

NOISIEST = 0.995
"""Above it the noise prediction says nothing of the clean frame."""


@dataclass(frozen=True)
class Past:
    frame: int
    seen: tuple[tuple[torch.Tensor | None, torch.Tensor | None], ...]


class Attention(nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.theirs, self.hook_k, self.hook_z = theirs, GuardedHookPoint(), GuardedHookPoint()

    def forward(self, x, past_k, past_v, seen):
        q, k, v = self.theirs.to_qkv(x).unflatten(-1, (3, self.theirs.n_head, -1)).unbind(2)
        q, k, v = q.transpose(1, 2), self.hook_k(k).transpose(1, 2), v.transpose(1, 2)
        k = k if past_k is None else torch.cat([past_k, k], dim=2)
        v = v if past_v is None else torch.cat([past_v, v], dim=2)
        z = self.hook_z(F.scaled_dot_product_attention(q, k, v).transpose(1, 2))
        seen.append((k, v))
        return self.theirs.to_out(z.flatten(2))


class Layer(nn.Module):
    def __init__(self, theirs):
        super().__init__()
        self.theirs, self.attn = theirs, Attention(theirs.self_attn)
        self.hook_resid_pre, self.hook_resid_post = GuardedHookPoint(), GuardedHookPoint()
        self.hook_attn_out, self.hook_mlp_out = GuardedHookPoint(), GuardedHookPoint()

    def forward(self, x, temb, past, seen):
        x = self.hook_resid_pre(x)
        scale, shift = self.theirs.t_proj(temb).chunk(2, dim=-1)
        gathered = self.attn(self.theirs.ln_1(x) * (1 + scale) + shift, *past, seen)
        x = x + self.hook_attn_out(gathered)
        return self.hook_resid_post(x + self.hook_mlp_out(self.theirs.ff(self.theirs.ln_2(x))))


class Adapter(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.hook_embed = net, GuardedHookPoint()
        self.blocks = nn.ModuleList(Layer(layer) for layer in net.layers)
        side, depth = net.grid * net.patch_size, len(net.layers)
        self.geometry = Geometry(
            1, 3, side, side, net.patch_size, depth, net.layers[0].self_attn.n_head, net.dim
        )

    @property
    def hook_dict(self):
        return {name: m for name, m in self.named_modules() if isinstance(m, GuardedHookPoint)}

    @property
    def attn_dict(self):
        return {f"blocks.{i}.attn": AttentionPoint(b.attn, self.key_age) for i, b in enumerate(self.blocks)}

    def key_age(self, frame, keys):
        return torch.arange(frame, -1, -1).repeat_interleave(self.net.grid**2)

    def start(self, batch, cond=None):
        return Past(0, ((None, None),) * len(self.blocks))

    def encode(self, x, context):
        return Past(context.frame + 1, self.eps(x, x.new_zeros(len(x)), context)[1])

    def denoise(self, x, sigma, context):
        sigma = sigma.clamp(max=NOISIEST)[:, None, None, None, None].to(x)
        size = ((1 - sigma) ** 2 + sigma**2).sqrt()  # x_t of their schedule is ours, scaled
        eps = self.eps(x / size, timestep(sigma.flatten()), context)[0]
        return (eps - x) / (1 - sigma)  # eps - x0, with x = (1 - sigma) x0 + sigma eps

    def eps(self, x, t, context):
        tokens = self.hook_embed(self.net.tokens(x, context.frame))
        temb, seen = self.net.time_embedding(t)[:, None], []
        for block, past in zip(self.blocks, context.seen, strict=True):
            tokens = block(tokens, temb.to(tokens), past, seen)
        return self.net.images(tokens), tuple(seen)


def timestep(sigma):
    """The timestep at which their schedule has as much noise for its signal."""
    angle = torch.atan2(sigma, 1 - sigma)  # cos^2 of it is alpha_bar
    return (1000 * (angle * 2 / torch.pi * 1.008 - 0.008)).clamp(min=0)


def load(seed=0):
    return Adapter(other_project.make(seed))
