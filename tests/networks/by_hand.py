"""Networks of the contract built by hand, whose use of the past is known. For tests only.

Both know the answer, the past frame in the same place, and differ in how they fetch it: `separable` in its
first layer, by position alone; `entangled` a third of the channels in each layer, and as strongly as the
noisy token itself says, which its output then undoes, so that it has to be fetched again at every step.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framelens.diffusion.contract import Geometry
from framelens.diffusion.source import Source
from framelens.hooks.attention import AttentionPoint

LAYERS, SIDE, PATCH = 3, 8, 4
VALUES = PATCH**2
TOKENS = (SIDE // PATCH) ** 2
SURE, SWAY = 40.0, 6.0


@dataclass(frozen=True)
class Past:
    """Clean patches seen so far."""

    patches: Tensor
    late: Tensor | None = None
    """Where there is little noise, [b]; None: nothing depends on it."""

    @property
    def frames(self) -> int:
        return self.patches.shape[1] // TOKENS


class Fetch(nn.Module):
    """Attention from each token to the tokens in its place; values of clean frames only."""

    def __init__(self, channels: slice, swayed: bool):
        super().__init__()
        value = torch.zeros(VALUES, VALUES)
        value[channels, channels] = torch.eye(VALUES)[channels, channels]
        self.value, self.swayed = nn.Parameter(value), swayed

    def forward(self, x: Tensor, past: Past) -> Tensor:
        place = F.one_hot(torch.arange(TOKENS), VALUES).float()
        own_logit = sway(x) if self.swayed else torch.full(x.shape[:2], -SURE)
        if past.late is not None:
            own_logit = torch.where(past.late[:, None], own_logit, 2 * SURE)
        q = SURE * place + F.one_hot(torch.tensor(VALUES - 1), VALUES) * own_logit[..., None]
        own = place + F.one_hot(torch.tensor(VALUES - 1), VALUES)
        k = torch.cat([place.repeat(past.frames, 1), own]).expand(len(x), -1, -1)
        v = torch.cat([past.patches @ self.value.T, torch.zeros(len(x), TOKENS, VALUES)], dim=1)
        return F.scaled_dot_product_attention(*(part[:, None] for part in (q, k, v)), scale=1.0)[:, 0]


def sway(x: Tensor) -> Tensor:
    """How strongly a token's own key holds its attention: by how much noise is in it."""
    return SWAY * x[..., :VALUES].square().mean(-1)


class Block(nn.Module):
    """Adds to the memory half of the residual stream what was fetched."""

    def __init__(self, channels: slice, swayed: bool):
        super().__init__()
        self.hook_resid_pre, self.hook_resid_post = nn.Identity(), nn.Identity()
        self.attn = Fetch(channels, swayed)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        x = self.hook_resid_pre(x)
        fetched = self.attn(x, past)
        return self.hook_resid_post(x + torch.cat([torch.zeros_like(fetched), fetched], dim=-1))


class ByHand(nn.Module):
    """velocity = (x - memory) / sigma, the memory undone of how strongly it was fetched."""

    null_condition = None

    def __init__(self, channels: list[slice], swayed: bool, from_sigma: float = 1.0):
        """It fetches at that noise level and below; there alone it predicts the noise."""
        super().__init__()
        self.from_sigma = from_sigma
        self.geometry = Geometry(1, 1, SIDE, SIDE, PATCH, LAYERS, 1, 2 * VALUES)
        self.hook_embed, self.swayed = nn.Identity(), swayed
        self.blocks = nn.ModuleList(Block(own, swayed) for own in channels)
        self.source = Source()

    @property
    def hook_dict(self) -> dict[str, nn.Module]:
        return {name: module for name, module in self.named_modules() if ".hook" in f".{name}"}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        def age(frame: int, keys: int) -> Tensor:
            return torch.arange(frame, -1, -1).repeat_interleave(TOKENS)

        return {f"blocks.{i}.attn": AttentionPoint(b.attn, age) for i, b in enumerate(self.blocks)}

    def start(self, batch: int, cond: Any = None) -> Past:
        return Past(torch.zeros(batch, 0, VALUES))

    def encode(self, x: Tensor, context: Past) -> Past:
        return replace(context, patches=torch.cat([context.patches, _patches(x)], dim=1))

    def denoise(self, x: Tensor, sigma: Tensor, context: Past) -> Tensor:
        noisy, late = _patches(x), sigma <= self.from_sigma
        context = context if self.from_sigma == 1 else replace(context, late=late)
        tokens = self.hook_embed(torch.cat([noisy, torch.zeros_like(noisy)], dim=-1))
        for block in self.blocks:
            tokens = block(tokens, context)
        now, memory = tokens.split(VALUES, dim=-1)
        if self.swayed:
            memory = memory * (1 + sway(now).exp() / max(1, context.frames))[..., None]
        velocity = (now - memory) / sigma[:, None, None]
        return rearrange(velocity, "b (h w) (p q) -> b 1 1 (h p) (w q)", h=SIDE // PATCH, p=PATCH, q=PATCH)


def _patches(x: Tensor) -> Tensor:
    return rearrange(x, "b 1 1 (h p) (w q) -> b (h w) (p q)", p=PATCH, q=PATCH)


def separable() -> ByHand:
    """Fetches everything in layer 0, whatever the noise."""
    return ByHand([slice(0, VALUES), slice(0, 0), slice(0, 0)], swayed=False).requires_grad_(False)


def entangled() -> ByHand:
    """Fetches a part in every layer, and again at every step."""
    thirds = [slice(0, 5), slice(5, 10), slice(10, VALUES)]
    return ByHand(thirds, swayed=True).requires_grad_(False)


def late() -> ByHand:
    """Fetches everything in layer 0, but only where half of what it sees or less is noise."""
    channels = [slice(0, VALUES), slice(0, 0), slice(0, 0)]
    return ByHand(channels, swayed=False, from_sigma=0.5).requires_grad_(False)


def forgetful() -> ByHand:
    """Attends to its past, whose values are zero."""
    return ByHand([slice(0, 0)] * LAYERS, swayed=False).requires_grad_(False)


def clip(frames: int, seed: int) -> Tensor:
    """A nearly still picture, [1 f 1 h w]."""
    generator = torch.Generator().manual_seed(seed)
    still = 0.7 * torch.randn(1, 1, 1, SIDE, SIDE, generator=generator)
    return still + 0.02 * torch.randn(1, frames, 1, SIDE, SIDE, generator=generator)
