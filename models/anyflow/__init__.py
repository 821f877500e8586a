"""AnyFlow-FAR (Gu et al. 2026): causal Wan with a compressed far past, for denoising steps of any length.

    model = models.load("nvidia/AnyFlow-FAR-Wan2.1-1.3B-Diffusers")
    model = models.load("folder/transformer", height=60, width=104, frames_per_chunk=3)     # see DEFAULTS

The weights are in modules of diffusers' AnyFlowFARTransformer3DModel, under its names, and the passes give
the same numbers as diffusers. Details:

- diffusers pads a denoising pass to a multiple of 128 tokens and does not mask the zero keys of the padding,
  so they receive attention: 56 keys beside the 4680 of a chunk of 3 frames at 480 x 832. They exist here too,
  as keys of age -1 before the others. Padding queries do not exist here.
- The network receives the noise level at which a step ends. `at_steps` sets it for a sampler's steps, as in
  the pipeline (use_mean_velocity). Otherwise `denoise` gives the velocity of a step of length 0.
- All chunks have `frames_per_chunk` frames. The released networks were trained on 1, then 3s, then 2.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from framelens.diffusion.contract import Geometry
from framelens.diffusion.layers import LayerInputs
from framelens.diffusion.schedule import Sampling
from framelens.hooks.attention import AttentionPoint
from framelens.models.anyflow.blocks import Block, Seen
from framelens.models.anyflow.config import Config
from framelens.models.anyflow.past import AnyFlowPast, Denoising, Remembering, fill_cache, turns_of
from framelens.models.anyflow.read import SHIFT, STEPS, build_stock
from framelens.models.loading.checkpoint import Checkpoint
from framelens.models.parts.blocks import GuardedHookPoint
from framelens.models.parts.current_tokens import hook_current
from framelens.models.parts.layered import RemembersByLayers, UniformLayers
from framelens.records.extras import extra

CLASSES: tuple[str, ...] = ("AnyFlowFARTransformer3DModel",)
DEFAULTS: dict[str, Any] = {"height": 60, "width": 104, "frames_per_chunk": 3, "text_tokens": 512}
"""Height and width of latents; frames per chunk; tokens of a prompt, padded with zeros."""


def recognises(names: Collection[str]) -> bool:
    """Whether these are the tensor names of diffusers' AnyFlowFARTransformer3DModel."""
    return {"far_patch_embedding.weight", "condition_embedder.delta_embedder.linear_1.weight"} <= set(names)


def read(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple["AnyFlow", dict[str, Any]]:
    """The network of an AnyFlow checkpoint, and its metadata; ValueError if sizes or tensors do not fit."""
    model = AnyFlow(*build_stock(checkpoint, options))
    return model, {"network": "anyflow", "config": model.describe(), "origin": CLASSES[0]}


def build(config: Config | Mapping[str, Any]) -> "AnyFlow":
    """The network with freshly initialised weights."""
    config = config if isinstance(config, Config) else Config(**config)
    with extra("families"):
        from diffusers.models.transformers.transformer_anyflow_far import AnyFlowFARTransformer3DModel

    return AnyFlow(AnyFlowFARTransformer3DModel(**config.for_diffusers()), config, Sampling(STEPS, SHIFT))


class AnyFlow(RemembersByLayers, UniformLayers, nn.Module):
    """The network as a CausalDiffuser on latents; cond is embeddings of prompts [b t w]."""

    latent = True
    takes = "text"
    density = {"shift": 5.0}
    keeps_float32 = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")

    def __init__(self, stock: Any, config: Config, sampling: Sampling):
        super().__init__()
        self.config, self.sampling, self.layout = config, sampling, config.layout
        self.patch_embedding, self.far_patch_embedding = stock.patch_embedding, stock.far_patch_embedding
        self.condition_embedder, self.rope = stock.condition_embedder, stock.rope
        self.norm_out, self.proj_out = stock.norm_out, stock.proj_out
        self.scale_shift_table = stock.scale_shift_table
        self.blocks = nn.ModuleList(Block(block) for block in stock.blocks)
        self.hook_embed = GuardedHookPoint()

    @property
    def geometry(self) -> Geometry:
        """The shape of latents and of their token grid."""
        c = self.config
        sizes = (c.channels, c.height, c.width, c.patch, c.layers, c.heads, c.d_model)
        return Geometry(c.frames_per_chunk, *sizes)

    @property
    def hook_dict(self) -> dict[str, nn.Module]:
        """The standard names of the hook points."""
        named = ((_standard(name), module) for name, module in self.named_modules())
        return {name: module for name, module in named if isinstance(module, GuardedHookPoint)}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Self-attention of every block."""
        modules = {f"blocks.{layer}.attn": block.attn1 for layer, block in enumerate(self._blocks())}
        return {name: AttentionPoint(module, self.layout.key_age) for name, module in modules.items()}

    @property
    def block_dict(self) -> dict[str, nn.Module]:
        """The blocks by name; they can be bypassed."""
        return {f"blocks.{layer}": block for layer, block in enumerate(self.blocks)}

    @property
    def null_condition(self) -> Float[Tensor, "t w"]:
        """A prompt of padding only; the embedding of the empty prompt comes from the text encoder."""
        return torch.zeros(self.config.text_tokens, self.config.text_width, device=self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The type of most weights."""
        return self.proj_out.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.proj_out.weight.device

    def start(self, batch: int, cond: Tensor | None = None) -> AnyFlowPast:
        """A context before the first frame; without cond it has the null condition."""
        cond = self.null_condition.expand(batch, -1, -1) if cond is None else cond
        if cond.ndim != 3 or (len(cond), cond.shape[2]) != (batch, self.config.text_width):
            expected = f"[{batch}, tokens, {self.config.text_width}]"
            raise ValueError(f"cond must be prompts' embeddings {expected}, got {tuple(cond.shape)}")
        text = self.condition_embedder.text_embedder(cond.to(self.device, self.dtype))
        c, depth = self.config, len(self.blocks)
        nothing = torch.zeros(batch, c.heads, 0, c.d_model // c.heads, device=self.device, dtype=self.dtype)
        cache = fill_cache([nothing] * depth, [nothing] * depth, self.layout.phantoms, self.layout.chunk)
        keys = [block.attn2.keys(text) for block in self._blocks()]
        return AnyFlowPast(0, cache, 0, (), keys, self._turns(0, 0, c.frames_per_chunk))

    def encode_by(
        self, x: Float[Tensor, "b f c h w"], context: AnyFlowPast, layers: range | None
    ) -> AnyFlowPast:
        """The context with this finished chunk; all uncompressed chunks' keys are computed again, at sigma 0.

        `layers` are the first ones, which alone run and remember; None for all. Hook points see only the
        finished chunk's tokens.
        """
        frames, layout = self.config.frames_per_chunk, self.layout
        chunks = (*context.recent, x.to(self.device, self.dtype))
        far, full = chunks[: -(layout.limit - 1)], chunks[-(layout.limit - 1) :]
        parts = [_patches(self.far_patch_embedding, chunk) for chunk in far]
        parts += [_patches(self.patch_embedding, chunk) for chunk in full]
        seen = Remembering(context, layout.phantoms, tuple(part.shape[1] for part in parts))
        first = context.frame - len(context.recent) * frames
        turns = self._turns(first, len(far) * frames, len(full) * frames)
        level = torch.zeros(len(x), device=self.device)
        entered = (self._tokens(parts, seen), self._times(level, level), turns, seen, context.text)
        self.through(*entered, layers)
        return AnyFlowPast(
            frame=context.frame + frames,
            cache=seen.cache(layout.chunk),
            compressed=context.compressed + sum(part.shape[1] for part in parts[: len(far)]),
            recent=full,
            text=context.text,
            turns=self._turns(context.frame + frames, 0, frames),
        )

    def at_steps(self, sigmas: Float[Tensor, " s"], context: AnyFlowPast) -> Iterator[AnyFlowPast]:
        """The context at each step of a sampler: each step ends at the next sigma, the last at 0."""
        levels = [*sigmas.unbind()[1:], sigmas.new_zeros(())]
        return (replace(context, target=level) for level in levels)

    def enter(
        self, x: Float[Tensor, "b f c h w"], sigma: Float[Tensor, " b"], context: AnyFlowPast
    ) -> LayerInputs:
        """The chunk's tokens and what the layers are given beside, for a step that ends at the target.

        Without a target it has length 0: the velocity is the one at sigma, otherwise the step's mean.
        """
        target = sigma if context.target is None else context.target.expand(len(x))
        seen = Denoising(context.cache, self.layout.chunk, self.layout.phantoms)
        tokens = self._tokens([_patches(self.patch_embedding, x.to(self.device, self.dtype))], seen)
        return LayerInputs(tokens, self._times(sigma, target), context.turns, seen, context.text)

    def velocity(
        self, tokens: Float[Tensor, "b n d"], modulations: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity as frames, after the final norm with its shift and scale."""
        shift, scale = (self.scale_shift_table + modulations[0][:, None]).chunk(2, dim=1)
        values = self.proj_out((self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens))
        g = self.geometry
        return rearrange(
            values, "b (f h w) (p q c) -> b f c (h p) (w q)", h=g.rows, w=g.cols, p=g.patch, q=g.patch
        )

    def describe(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self.config)

    def _blocks(self) -> Iterator[Any]:
        yield from self.blocks

    def _turns(self, frame: int, compressed: int, full: int):
        return turns_of(self.rope, self.config, frame, compressed, full, self.device)

    def _times(self, sigma: Float[Tensor, " b"], target: Float[Tensor, " b"]) -> tuple[Tensor, Tensor]:
        """The embedding [b d] of a step between two noise levels, and the blocks' modulation [b 6 d]."""
        embedder: Any = self.condition_embedder
        t, r = ((1000 * level.double()).float()[:, None].to(self.device) for level in (sigma, target))
        r = t - r if embedder.deltatime_type == "t-r" else r
        embedding, by_block = embedder.forward_timestep(t, r, self.proj_out.weight, 1)
        return embedding[:, 0], by_block[:, 0].unflatten(1, (6, -1))

    def _tokens(self, parts: list[Tensor], seen: Seen) -> Float[Tensor, "b n d"]:
        return hook_current(self.hook_embed, torch.cat(parts, dim=1), seen.own)

    def through(
        self,
        tokens: Float[Tensor, "b n d"],
        modulations: tuple[Tensor, Tensor],
        rope: Tensor,
        history: Seen,
        text: list,
        layers: range | None = None,
    ) -> Float[Tensor, "b n d"]:
        """The residual stream after all blocks, or those of `layers`."""
        for layer in range(len(self.blocks)) if layers is None else layers:
            tokens = self.blocks[layer](tokens, modulations[1], rope, history, layer, text[layer])
        return tokens


def _patches(embedding: nn.Module, x: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
    return rearrange(embedding(rearrange(x, "b f c h w -> b c f h w")), "b d f h w -> b (f h w) d")


def _standard(name: str) -> str:
    return name.replace(".attn1.", ".attn.").replace(".attn2.", ".cross.")
