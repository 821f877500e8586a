"""A template of an adapter: copy this file, replace `Net` by your network, and change what differs.

    make check MODEL=models/adapter_template.py:load
    make probe MODEL=models/adapter_template.py:load ARGS="--quick"

`Net` stands for a network as it comes: it knows neither hook points nor a cache, and masks a whole clip.
models/README.md explains the contract line by line.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framelens.diffusion.contract import Geometry
from framelens.diffusion.layers import LayerInputs
from framelens.hooks.attention import AttentionPoint
from framelens.models.parts.blocks import GuardedHookPoint
from framelens.models.parts.layered import Layered

CHANNELS, SIDE, PATCH, LAYERS, HEADS, WIDTH, ACTIONS = 3, 20, 4, 4, 4, 64, 5
TOKENS = (SIDE // PATCH) ** 2
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Past:
    """The context: a value. Keys and values of finished frames by layer, the clip's actions."""

    frame: int
    cache: tuple[Pair, ...]
    actions: Tensor | None


class Attention(nn.Module):
    """Drives the weights of one of the network's attentions, over the past and without a mask."""

    def __init__(self, theirs: nn.MultiheadAttention):
        super().__init__()
        self.theirs = theirs
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (GuardedHookPoint() for _ in range(4))

    def forward(self, x: Tensor, past: Pair, seen: list[Pair]) -> Tensor:
        """What the tokens [b n d] gather; notes keys and values [b h n d] of the past and their own."""
        qkv = F.linear(x, self.theirs.in_proj_weight, self.theirs.in_proj_bias)
        q, k, v = rearrange(qkv, "b n (three h d) -> three b n h d", three=3, h=HEADS).unbind()
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        q, k, v = (rearrange(part, "b n h d -> b h n d") for part in (q, k, v))
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        z = F.scaled_dot_product_attention(q, k, v)  # once, by this name, without a mask
        z = self.hook_z(rearrange(z, "b h n d -> b n h d"))
        seen.append((k, v))
        return self.theirs.out_proj(rearrange(z, "b n h d -> b n (h d)"))


class Block(nn.Module):
    """Drives one of the network's blocks: the residual stream in, the residual stream out."""

    def __init__(self, theirs: "NetBlock"):
        super().__init__()
        self.theirs, self.attn = theirs, Attention(theirs.attention)
        self.hook_resid_pre, self.hook_resid_mid = GuardedHookPoint(), GuardedHookPoint()
        self.hook_attn_out, self.hook_mlp_out = GuardedHookPoint(), GuardedHookPoint()
        self.hook_resid_post = GuardedHookPoint()

    def forward(self, x: Tensor, past: Pair, seen: list[Pair]) -> Tensor:
        """The residual stream after the block."""
        x = self.hook_resid_pre(x)
        gathered = self.attn(self.theirs.norm1(x), past, seen)
        x = self.hook_resid_mid(x + self.hook_attn_out(gathered))
        return self.hook_resid_post(x + self.hook_mlp_out(self.theirs.mlp(self.theirs.norm2(x))))


class Adapter(Layered, nn.Module):
    """The network with the contract of a CausalDiffuser.

    `Layered` makes `denoise(x, sigma, context)` of enter, through and velocity. Where layers cannot be run by
    ranges, write `denoise` itself instead.
    """

    takes, null_condition = "actions", ACTIONS  # cond is [b f]; the last action stands for none

    def __init__(self, net: "Net"):
        super().__init__()
        self.net, self.hook_embed = net, GuardedHookPoint()
        self.blocks = nn.ModuleList(map(Block, net.blocks))  # pyright: ignore[reportArgumentType]
        self.geometry = Geometry(1, CHANNELS, SIDE, SIDE, PATCH, LAYERS, HEADS, WIDTH)
        self.metadata = {"videos": "tiles", "training": {"recipe": {"frames": 8}}}  # what it was trained on

    @property
    def hook_dict(self) -> dict[str, nn.Module]:
        """The hook points; the modules above are called so that these are the standard names."""
        return {name: m for name, m in self.named_modules() if isinstance(m, GuardedHookPoint)}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Where attention is, and how many frames back each key is: here oldest first, own frame last."""

        def key_age(frame: int, keys: int) -> Tensor:
            return torch.arange(frame, -1, -1).repeat_interleave(TOKENS)

        modules = {f"blocks.{i}.attn": self.get_submodule(f"blocks.{i}.attn") for i in range(LAYERS)}
        return {name: AttentionPoint(module, key_age) for name, module in modules.items()}

    def start(self, batch: int, cond: Tensor | None = None) -> Past:
        """Nothing seen yet."""
        none = self.net.embed.weight.new_empty(batch, HEADS, 0, WIDTH // HEADS)
        return Past(0, ((none, none),) * LAYERS, cond)

    def encode(self, x: Tensor, context: Past) -> Past:
        """The context with this finished frame [b 1 c h w] in it, read at noise level 0."""
        seen = []
        self.through(*self.enter(x, x.new_zeros(len(x)), context), seen=seen)
        return replace(context, frame=context.frame + 1, cache=tuple(seen))

    def enter(self, x: Tensor, sigma: Tensor, context: Past) -> LayerInputs:
        """The frame's tokens at noise level sigma [b], 1 for noise, 0 for clean, and the layers' past."""
        now = slice(context.frame, context.frame + 1)
        action = None if context.actions is None else context.actions[:, now]
        tokens = self.hook_embed(self.net.embed_tokens(x, sigma[:, None], action, context.frame))
        return LayerInputs(tokens, None, None, context.cache, None)

    def through(
        self, tokens: Tensor, modulations: None, rope: None, history: tuple, text: None,
        layers: range = range(LAYERS), seen: list[Pair] | None = None,
    ) -> Tensor:  # fmt: skip
        """The residual stream after these layers; notes their keys and values in `seen`."""
        for layer in layers:
            tokens = self.blocks[layer](tokens, history[layer], [] if seen is None else seen)
        return tokens

    def velocity(self, tokens: Tensor, modulations: None) -> Tensor:
        """The velocity eps - x0 of the frame."""
        return self.net.frames(tokens)


def load(seed: int = 0) -> Adapter:
    """The model, here of random weights; yours reads a checkpoint. `--set seed=1` arrives as an argument."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Adapter(Net())


class NetBlock(nn.Module):
    """A block of the network as it comes."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """The residual stream after the block; the mask is True where nothing is seen."""
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Net(nn.Module):
    """The network as it comes: a clip with a noise level for each frame, frame-causal by a mask."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(CHANNELS * PATCH**2, WIDTH)
        self.place = nn.Parameter(0.5 * torch.randn(TOKENS, WIDTH))
        self.level, self.action = nn.Linear(2, WIDTH), nn.Embedding(ACTIONS + 1, WIDTH)
        self.blocks = nn.ModuleList(NetBlock() for _ in range(LAYERS))
        self.unembed = nn.Linear(WIDTH, CHANNELS * PATCH**2)

    def embed_tokens(self, x: Tensor, sigma: Tensor, action: Tensor | None, first: int) -> Tensor:
        """Patches of frames numbered from `first`, with place, noise level and action added."""
        patches = rearrange(x, "b f c (h p) (w q) -> b f (h w) (c p q)", p=PATCH, q=PATCH)
        frame = torch.arange(first, first + x.shape[1], device=x.device).to(x).expand_as(sigma)
        added = self.level(torch.stack([sigma.to(x), frame / 8], dim=-1))
        added = added if action is None else added + self.action(action)
        return (self.embed(patches) + self.place + added[:, :, None]).flatten(1, 2)

    def frames(self, tokens: Tensor) -> Tensor:
        """Tokens as frames."""
        form = "b (f h w) (c p q) -> b f c (h p) (w q)"
        rows = SIDE // PATCH
        return rearrange(self.unembed(tokens), form, h=rows, w=rows, p=PATCH, q=PATCH)

    def forward(self, x: Tensor, sigma: Tensor, action: Tensor | None = None) -> Tensor:
        """The velocity of every frame [b f c h w] at its own noise level [b f]."""
        tokens = self.embed_tokens(x, sigma, action, 0)
        frame = torch.arange(tokens.shape[1], device=x.device) // TOKENS
        for block in self.blocks:
            tokens = block(tokens, frame[None] > frame[:, None])
        return self.frames(tokens)
