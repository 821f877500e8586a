"""A stack of adaLN blocks over patches: a whole dense model, or one half of a separated one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from framelens.diffusion.schedule import Sampling
from framelens.diffusion.source import Source
from framelens.diffusion.transfer import send
from framelens.models.parts.blocks import (
    AdaNorm,
    AxialRope,
    Block,
    GuardedHookPoint,
    HookedRootModule,
    Rope,
    TimeEmbedding,
    per_frame,
)
from framelens.models.parts.config import StackConfig, draw_table
from framelens.models.parts.elementwise import normalise
from framelens.models.parts.history import CleanThenNoisy, History
from framelens.models.parts.layered import RecomputedBlocks
from framelens.models.parts.text import CrossAttention, TextEmbedding, TextKeys

CLEAN_TIMESTEP = -1.0
"""Timestep of a finished frame, which differs from that of every noisy one (FAR, and SCD's encoder)."""


@dataclass(frozen=True)
class Modulations:
    """Modulation of every block from timesteps and conditions, before the split into shift, scale and gate.

    The second axis of the tensors is frames or, if prepared for a whole grid of sigmas, its steps.
    """

    blocks: list[tuple[Float[Tensor, "b f three_d"], Float[Tensor, "b f three_d"]]]
    final: Float[Tensor, "b some_f two_d"]

    def at(self, step: int) -> "Modulations":
        """The modulation of one step."""
        return self._within(slice(step, step + 1))

    def first(self, frames: int) -> "Modulations":
        """The modulation of the first frames."""
        return self._within(slice(0, frames))

    def _within(self, own: slice) -> "Modulations":
        return Modulations([(one[:, own], two[:, own]) for one, two in self.blocks], self.final[:, own])


class Conditioned:
    """The conditions and the data of a network, from its configuration and its checkpoint."""

    config: Any
    latent: bool = False
    """Whether x holds latents; a loaded model has the value of its checkpoint."""
    sampling: Sampling | None = None
    """How it is meant to be sampled; a loaded model has what its checkpoint says."""
    source: Source = Source()
    """Where a loaded model came from."""

    def describe(self) -> dict:
        """The configuration as plain values, as stored beside the weights."""
        return self.config.values()

    @property
    def takes(self) -> Literal["actions", "labels", "text"] | None:
        """The kind of cond: actions [b f], labels [b], embeddings of a prompt [b t w], or None."""
        if self.config.text_tokens:
            return "text"
        if not self.config.conditions:
            return None
        return "labels" if self.source.metadata.get("condition") == "label" else "actions"

    @property
    def null_condition(self) -> int | Tensor | None:
        """The null condition: the last action or label, or a prompt [t w] of zeros."""
        if self.config.text_tokens:
            return torch.zeros(self.config.text_tokens, self.config.text_width)
        return self.config.conditions or None


class Stack(HookedRootModule, Conditioned, RecomputedBlocks):
    """Patch, time and condition embedding, RoPE and blocks.

    `final` adds a final norm, `unembed` the output of velocities. The outermost module calls `setup()`, which
    gives the hook points their names.
    """

    def __init__(self, config: StackConfig, layers: int, unembed: bool, final: bool = True):
        super().__init__()
        self.config = config
        self.geometry = g = config.geometry(layers)
        width, values = config.d_model, config.channels * config.patch**2
        self.embed = nn.Linear(values, width)
        self.time = TimeEmbedding(width)
        self.condition = draw_table(config.conditions + 1, width) if config.conditions else None
        self.text = TextEmbedding(config.text_width, width) if config.text_tokens else None
        self.rope = AxialRope(config.rope_axes, g.rows, g.cols, config.rope_theta)
        inner = config.mlp_width or 4 * width
        self.blocks = nn.ModuleList(Block(width, config.heads, inner, _cross(config)) for _ in range(layers))
        self.norm_out = nn.Linear(width, 2 * width) if final else None
        self.unembed = nn.Linear(width, values) if unembed else None
        self.hook_embed = GuardedHookPoint()
        self._initialise()

    def _initialise(self) -> None:
        """Initialises with Xavier, closed gates (adaLN-zero) and a zero output, as FAR and SCD do.

        Weights on the meta device get no values (see `draw_table`).
        """
        if self.embed.weight.is_meta:
            return
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

    def _blocks(self) -> Iterator[Any]:
        yield from self.blocks

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.embed.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed.weight.device

    def tokens(self, x: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
        """The embedded patches of all frames, n = (frame row col), after the hook point."""
        return self.hook_embed(self.embed_patches(x))

    def embed_patches(self, x: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
        """The embedded patches of all frames, n = (frame row col)."""
        return self.embed(patches(x, self.config.patch).to(self.dtype))

    def modulations(self, timestep: Float[Tensor, "b f"], cond: Int[Tensor, "b f"] | None) -> Modulations:
        """Scales, shifts and gates of all blocks, from SiLU of time embedding plus condition embedding."""
        emb = self.time(timestep)
        emb = F.silu(emb if cond is None or self.condition is None else emb + self.condition(cond))
        final = emb[..., :0] if self.norm_out is None else self.norm_out(emb)
        return Modulations([block.modulation(emb) for block in self._blocks()], final)

    def modulations_of_steps(
        self, sigmas: Float[Tensor, " s"], cond: Int[Tensor, "b 1"] | None
    ) -> Modulations:
        """The modulations of all steps of a sampler in one pass, which reads their weights once per frame.

        Without conditions, and where one is expanded over the batch, the batch axis is 1.
        """
        timestep = 1000 * sigmas.to(self.device)[None]
        if cond is None:
            return self.modulations(timestep, None)
        cond = cond[:1] if cond.stride(0) == 0 else cond
        return self.modulations(timestep.expand(len(cond), -1), cond.expand(-1, len(sigmas)))

    def beside_clean(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b f c h w"],
        sigma: Float[Tensor, "b f"],
        actions: Int[Tensor, "b f"] | None,
    ) -> tuple[Float[Tensor, "b n d"], Modulations, Rope, CleanThenNoisy]:
        """The arguments of `through` for one pass over [clean frames | noisy frames] of a clip."""
        return self.tokens(torch.cat([clean, noisy], dim=1)), *self.inputs_beside_clean(sigma, actions)

    def inputs_beside_clean(
        self, sigma: Float[Tensor, "b f"], actions: Int[Tensor, "b f"] | None
    ) -> tuple[Modulations, Rope, CleanThenNoisy]:
        """What `through` is given beside the tokens of [clean frames | noisy frames] of a clip."""
        frames = sigma.shape[1]
        timestep = torch.cat([torch.full_like(sigma, CLEAN_TIMESTEP), 1000 * sigma], dim=1)
        modulations = self.modulations(
            timestep, None if actions is None else torch.cat([actions, actions], dim=1)
        )
        history = CleanThenNoisy(frames, self.geometry.tokens_per_frame, self.config.reach)
        return modulations, self.rotation([*range(frames)] * 2), history

    def rotation(self, frames: list[int]) -> Rope:
        """RoPE tables for the tokens of frames with these numbers."""
        return self.rope(send(torch.tensor(frames), self.device))

    def text_keys(self, cond: Tensor | None) -> TextKeys | None:
        """The prompt's keys and values for every block, from embeddings [b t w]; None without prompts."""
        if self.text is None or cond is None:
            return None
        embedded = self.text(cond.to(self.device, self.dtype))
        return [block.cross.keys(embedded) for block in self._blocks()]

    def through(
        self,
        tokens: Float[Tensor, "b n d"],
        modulations: Modulations,
        rope: Rope,
        history: History,
        text: TextKeys | None = None,
        layers: range | None = None,
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after all blocks, or those of `layers`; `history` decides who sees whom."""
        blocks = list(self._blocks())
        for layer in range(len(blocks)) if layers is None else layers:
            block = blocks[layer]
            inputs = (modulations.blocks[layer], rope, history, layer, None if text is None else text[layer])
            tokens = self.run_block(block, tokens, *inputs)
        return tokens

    def normalise(self, tokens: Float[Tensor, "b n d"], modulations: Modulations) -> Float[Tensor, "b n d"]:
        """The tokens after the final norm; its modulation holds scale, then shift."""
        scale, shift = (per_frame(part, tokens.shape[1]) for part in modulations.final.chunk(2, dim=-1))
        return normalise(tokens, scale, shift)

    def velocity(
        self, tokens: Float[Tensor, "b n d"], modulations: Modulations
    ) -> Float[Tensor, "b f c h w"]:
        """The final norm's output as frames of velocity."""
        assert self.unembed is not None
        g = self.geometry
        return rearrange(
            self.unembed(self.normalise(tokens, modulations)),
            "b (f h w) (c p q) -> b f c (h p) (w q)",
            h=g.rows, w=g.cols, p=g.patch, q=g.patch,
        )  # fmt: skip


def patches(x: Float[Tensor, "b f c h w"], patch: int) -> Float[Tensor, "b n values"]:
    """The patches of all frames, n = (frame row col); values are in order channel, row, column."""
    return rearrange(x, "b f c (h p) (w q) -> b (f h w) (c p q)", p=patch, q=patch)


def _cross(config: StackConfig) -> CrossAttention | None:
    return CrossAttention(config.d_model, config.heads) if config.text_tokens else None
