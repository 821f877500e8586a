"""A stack of adaLN blocks over patches: the whole of a dense model, or one half of a separated one."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion.sampler import Geometry
from models._blocks import (
    AdaNorm,
    AxialRope,
    Block,
    GuardedHookPoint,
    HookedRootModule,
    Rope,
    TimeEmbedding,
    per_frame,
)
from models._history import History

CLEAN_TIMESTEP = -1.0
"""How a finished frame is told apart from a noisy one (FAR, and SCD's encoder)."""


class Stack(HookedRootModule):
    """Patch, time and condition embedding, RoPE, blocks, final norm; with `unembed` also velocities.

    `config` has channels, height, width, patch, heads, d_model, conditions, rope_axes and rope_theta. The
    outermost module calls `setup()`, which gives the hook points their names.
    """

    def __init__(self, config: Any, layers: int, unembed: bool):
        super().__init__()
        self.config = config
        self.geometry = Geometry(
            1,
            config.channels,
            config.height,
            config.width,
            config.patch,
            layers,
            config.heads,
            config.d_model,
        )
        values, width = config.channels * config.patch**2, config.d_model
        self.embed = nn.Linear(values, width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Embedding(config.conditions + 1, width) if config.conditions else None
        self.rope = AxialRope(config.rope_axes, self.geometry.rows, self.geometry.cols, config.rope_theta)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(layers))
        self.norm_out = nn.Linear(width, 2 * width)
        self.unembed = nn.Linear(width, values) if unembed else None
        self.hook_embed = GuardedHookPoint()
        self._initialise()

    def _initialise(self) -> None:
        """Xavier, with closed gates (adaLN-zero) and a zero output, as FAR and SCD start."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        closed = [module.linear for module in self.modules() if isinstance(module, AdaNorm)]
        for linear in (*closed, self.norm_out, self.unembed):
            if linear is not None:
                nn.init.zeros_(linear.weight)
        for name, weight in self.time.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(weight, std=0.02)
        if self.condition is not None:
            nn.init.normal_(self.condition.weight, std=0.02)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.embed.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    def tokens(self, x: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
        """The embedded patches of frames, frame by frame."""
        patch = self.config.patch
        patches = rearrange(x, "b f c (h p) (w q) -> b (f h w) (c p q)", p=patch, q=patch)
        return self.hook_embed(self.embed(patches.to(self.dtype)))

    def modulation(
        self, timestep: Float[Tensor, "b f"], cond: Int[Tensor, "b f"] | None
    ) -> Float[Tensor, "b f d"]:
        """SiLU of the time embedding plus the condition's: what every scale, shift and gate comes from."""
        emb = self.time(timestep)
        return F.silu(emb if cond is None or self.condition is None else emb + self.condition(cond))

    def rotation(self, frames: list[int]) -> Rope:
        """RoPE tables for the tokens of frames with these numbers."""
        return self.rope(torch.tensor(frames, device=self.device))

    def through(self, tokens: Tensor, emb: Tensor, rope: Rope, history: History) -> Float[Tensor, "b n d"]:
        """The residual stream after all blocks; `history` knows who sees whom."""
        for layer, block in enumerate(self.blocks):
            tokens = block(tokens, emb, rope, history, layer)
        return tokens

    def normed(self, tokens: Float[Tensor, "b n d"], emb: Float[Tensor, "b f d"]) -> Float[Tensor, "b n d"]:
        """The final norm, modulated in order scale, shift."""
        scale, shift = (per_frame(part, tokens.shape[1]) for part in self.norm_out(emb).chunk(2, dim=-1))
        return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift

    def velocity(
        self, tokens: Float[Tensor, "b n d"], emb: Float[Tensor, "b f d"]
    ) -> Float[Tensor, "b f c h w"]:
        """The final norm's output as frames of velocity."""
        assert self.unembed is not None
        g = self.geometry
        return rearrange(
            self.unembed(self.normed(tokens, emb)),
            "b (f h w) (c p q) -> b f c (h p) (w q)",
            f=emb.shape[1], h=g.rows, w=g.cols, p=g.patch, q=g.patch,
        )  # fmt: skip


def check_conditions(cond: Tensor | None, conditions: int, batch: int) -> None:
    """Raises ValueError where a conditional model is given no conditions, or those of another batch."""
    if conditions and cond is None:
        raise ValueError(f"this model is conditional ({conditions} actions or labels); give cond")
    if cond is not None and len(cond) != batch:
        raise ValueError(f"cond is for {len(cond)} clips, the batch has {batch}")


def condition_of(cond: Tensor | None, frame: int) -> Int[Tensor, "b 1"] | None:
    """The condition of one frame: actions [b f] are looked up, labels [b] hold for all frames."""
    if cond is None or cond.ndim == 1:
        return None if cond is None else cond[:, None]
    if frame >= cond.shape[1]:
        raise ValueError(f"actions are given for {cond.shape[1]} frames; frame {frame} has none")
    return cond[:, frame : frame + 1]


def conditions_of(cond: Tensor | None, frames: int) -> Int[Tensor, "b {frames}"] | None:
    """The condition of each of a clip's first frames."""
    if cond is None:
        return None
    return cond[:, None].expand(-1, frames) if cond.ndim == 1 else cond[:, :frames]
