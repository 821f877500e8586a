"""The Wan network as a CausalDiffuser: stock weights, frame-causal passes with a cache, and whole clips.

Its modules are those of a diffusers WanTransformer3DModel, with its names in the state dict.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from framelens.diffusion.layers import LayerInputs
from framelens.diffusion.schedule import Sampling
from framelens.hooks.attention import AttentionPoint
from framelens.models.parts.blocks import GuardedHookPoint, HookedRootModule, Rope, per_frame
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.parts.contexts import DenseContext
from framelens.models.parts.history import AllTokens, History
from framelens.models.parts.layered import RecomputedBlocks, RemembersByLayers, UniformLayers
from framelens.models.parts.stack import Modulations
from framelens.models.parts.text import TextKeys
from framelens.models.wan.block import WanBlock
from framelens.models.wan.clip import CLEAN_TIMESTEP, ClipPasses
from framelens.models.wan.config import WanConfig
from framelens.models.wan.rope import turns


class Wan(ClipPasses, RemembersByLayers, UniformLayers, RecomputedBlocks, HookedRootModule):
    """A Wan transformer on latents [b f c h w]; cond is the prompts' embeddings [b t w].

    `denoise` takes any number of frames, which see each other and the past; `encode` takes one chunk.
    """

    latent, takes = True, "text"
    keeps_float32 = ("rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")
    """Parts of the names of weights that diffusers keeps in float32, whatever the dtype of the others."""
    no_split = ("WanBlock",)
    """Classes whose modules stay on one device each, for accelerate's device maps."""

    def __init__(self, stock: Any, config: WanConfig, sampling: Sampling):
        super().__init__()
        self.config, self.sampling = config, sampling
        self.geometry = config.geometry(config.layers)
        self.rope, self.patch_embedding = stock.rope, stock.patch_embedding
        self.condition_embedder = stock.condition_embedder
        self.blocks = nn.ModuleList(WanBlock(block) for block in stock.blocks)
        self.norm_out, self.proj_out = stock.norm_out, stock.proj_out
        self.scale_shift_table = stock.scale_shift_table
        self.hook_embed = GuardedHookPoint()
        self.null_condition = torch.zeros(config.text_tokens, config.text_width)
        """A prompt of padding only; the embedding of the empty prompt comes from the text encoder."""
        self.setup()

    @property
    def density(self) -> dict[str, float]:
        """Where training put its noise levels: as sampling does."""
        return {"shift": self.sampling.shift}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Self-attention of every block; keys are in frame order, the current frames last."""
        names = [f"blocks.{layer}.attn" for layer in range(len(self.blocks))]
        return {name: AttentionPoint(self.get_submodule(name), self._key_age) for name in names}

    def _key_age(self, frame: int, keys: int) -> Int[Tensor, " k"]:
        past = (frame - self.config.reach.past(frame)).repeat_interleave(self.geometry.tokens_per_frame)
        return torch.cat([past, torch.zeros(max(0, keys - len(past)), dtype=torch.long)])

    @property
    def dtype(self) -> torch.dtype:
        """The type of most weights."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where passes begin: the device of the first weight that is in memory."""
        return next((w.device for w in self.parameters() if not w.is_meta), torch.device("cpu"))

    def start(self, batch: int, cond: Tensor | None = None) -> DenseContext:
        """A context before the first frame; without cond it has the null condition."""
        if cond is None:
            cond = self.null_condition.expand(batch, -1, -1)
        cache = KVCache(KVStorage(len(self.blocks)))
        chunk = list(range(self.geometry.frames_per_chunk))
        return DenseContext(0, cache, self.rotation(chunk), None, self.text_keys(batch, cond))

    def encode_by(
        self, x: Float[Tensor, "b f c h w"], context: DenseContext, layers: range | None
    ) -> DenseContext:
        """The context with this finished chunk's keys and values appended, read at timestep 0.

        `layers` are those that run and remember; None for all.
        """
        chunk, per = self.geometry.frames_per_chunk, self.geometry.tokens_per_frame
        if x.shape[1] != chunk:
            raise ValueError(f"encode takes {chunk} finished frames at a time, got {x.shape[1]}")
        cache = context.cache.for_appending()
        clean = self.modulations(torch.full((1, 1), CLEAN_TIMESTEP, device=self.device))
        self.through(self.tokens(x), clean, context.rope, cache, context.text, layers)
        cache = cache.append(chunk * per).within(self.config.reach, per, chunk * per)
        frame = context.frame + chunk
        return DenseContext(
            frame, cache, self.rotation(list(range(frame, frame + chunk))), None, context.text
        )

    def at_steps(self, sigmas: Float[Tensor, " s"], context: DenseContext) -> Iterator[DenseContext]:
        """The context at each step of a sampler with these noise levels; one pass embeds all of them."""
        steps = self.modulations(1000 * sigmas.to(self.device)[None])
        return (replace(context, modulations=steps.at(step)) for step in range(len(sigmas)))

    def enter(
        self, x: Float[Tensor, "b f c h w"], sigma: Float[Tensor, " b"], context: DenseContext
    ) -> LayerInputs:
        """The tokens of these frames and what the layers are given beside."""
        modulations, frames = context.modulations, x.shape[1]
        if modulations is None:
            modulations = self.modulations(1000 * sigma[:, None].to(self.device))
        rope = context.rope
        if frames != self.geometry.frames_per_chunk:
            rope = self.rotation(list(range(context.frame, context.frame + frames)))
        history = context.cache if context.cache.tokens else AllTokens()  # an empty cache stores nothing
        return LayerInputs(self.tokens(x), modulations, rope, history, context.text)

    def whole(
        self, x: Float[Tensor, "b f c h w"], sigma: Float[Tensor, " b"], cond: Tensor | None = None
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity of a whole clip whose frames all see each other: the stock network's own pass."""
        return self.denoise(x, sigma, self.start(len(x), cond))

    @property
    def bidirectional(self) -> Callable[..., Tensor] | None:
        """`whole`, for a network that was trained bidirectional; None for a causal network."""
        return None if self.config.is_causal else self.whole

    def describe(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return self.config.values()

    def tokens(self, x: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
        """The embedded patches of all frames, n = (frame row col); ValueError for latents of another size."""
        g = self.geometry
        if tuple(x.shape[2:]) != (g.channels, g.height, g.width):
            raise ValueError(
                f"latents must be [batch frames {g.channels} {g.height} {g.width}], got {tuple(x.shape)}"
            )
        patches = self.patch_embedding(rearrange(x.to(self.device, self.dtype), "b f c h w -> b c f h w"))
        tokens = rearrange(patches, "b d f h w -> b (f h w) d").contiguous()
        return self.hook_embed(tokens.to(self.dtype))  # under autocast the stream keeps the weights' dtype

    def modulations(self, timestep: Float[Tensor, "b f"]) -> Modulations:
        """Modulation of every block (halves of one projection) and of the final norm; timesteps 0..1000."""
        embedding, projected = self._times(timestep)
        halves = projected.chunk(2, dim=-1)
        table = self.scale_shift_table.to(embedding.device)[:, None]
        final = rearrange(table + embedding[:, :, None], "b f two d -> b f (two d)")
        return Modulations([(halves[0], halves[1])] * len(self.blocks), final)

    def _times(
        self, timestep: Float[Tensor, "b f"]
    ) -> tuple[Float[Tensor, "b f d"], Float[Tensor, "b f six_d"]]:
        """The embedding of timesteps, and the scales, shifts and gates that all blocks share."""
        embedder: Any = self.condition_embedder
        sinusoid = embedder.timesteps_proj(timestep.float().flatten())
        exact = next(embedder.time_embedder.parameters()).dtype
        embedding = embedder.time_embedder(sinusoid.to(exact)).to(self.dtype)
        projected = embedder.time_proj(embedder.act_fn(embedding))
        split = "(b f) d -> b f d"
        return rearrange(embedding, split, b=len(timestep)), rearrange(projected, split, b=len(timestep))

    def rotation(self, frames: list[int]) -> Rope:
        """RoPE tables for the tokens of frames with these numbers, absolute from 0."""
        g, most = self.geometry, self.config.rope_frames
        if max(frames) >= most:
            raise ValueError(f"the network has positions for {most} frames, got frame {max(frames)}")
        grid = [frames, list(range(g.rows)), list(range(g.cols))]
        return turns(self.rope, self.config.rope_axes, grid, self.device)

    def text_keys(self, batch: int, cond: Float[Tensor, "b t w"]) -> TextKeys:
        """The prompts' keys and values for every block; padded with zeros, which receive attention."""
        most, width = self.config.text_tokens, self.config.text_width
        if cond.ndim != 3 or len(cond) != batch or cond.shape[2] != width or not 0 < cond.shape[1] <= most:
            raise ValueError(
                f"cond must be prompts' embeddings [{batch}, up to {most} tokens, {width}], got "
                f"{tuple(cond.shape)}"
            )
        filling = cond.new_zeros(batch, most - cond.shape[1], width)
        embedder: Any = self.condition_embedder
        text = embedder.text_embedder(torch.cat([cond, filling], dim=1).to(self.device, self.dtype))
        return [block.text_keys(text) for block in self._blocks()]

    def velocity(
        self, tokens: Float[Tensor, "b n d"], modulations: Modulations
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity as frames, after the final norm with its shift and scale."""
        g = self.geometry
        final = modulations.final.to(tokens.device)
        shift, scale = (per_frame(part, tokens.shape[1]) for part in final.chunk(2, dim=-1))
        normed = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        return rearrange(
            self.proj_out(normed),
            "b (f h w) (p q c) -> b f c (h p) (w q)",
            h=g.rows, w=g.cols, p=g.patch, q=g.patch,
        ).to(self.device)  # fmt: skip

    def through(
        self,
        tokens: Float[Tensor, "b n d"],
        modulations: Modulations,
        rope: Rope,
        history: History,
        text: Any,
        layers: range | None = None,
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after all blocks, or those of `layers`."""
        for layer in range(len(self.blocks)) if layers is None else layers:
            inputs = (modulations.blocks[layer], rope, history, layer, text[layer])
            tokens = self.run_block(self.blocks[layer], tokens, *inputs)
        return tokens

    def _blocks(self) -> Iterator[Any]:
        yield from self.blocks
