"""A network of two halves of another one: an encoder once per frame, a decoder at every step.

    model = framelens.separate(wan, encoder=range(25), head=range(5), tail=range(25, 30))
    features = model.read_clip(clean, cond)                     # in training: the encoder once,
    velocity = model.decode_clip(features, noisy, sigma, cond)  # the decoder for k draws of noise

How the decoder reads the encoder's features is in models/separated/reading.py. The encoder asks for the next
chunk with noise in its place, or with one learned vector as every token (`query`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from framelens.diffusion.contract import Context, traits
from framelens.diffusion.sampler import prepare_steps
from framelens.diffusion.source import Source
from framelens.hooks.attention import AttentionPoint
from framelens.models.parts.asking import Queries, disturb, draw_queries, query_noise
from framelens.models.parts.clip_layers import ClipLayers
from framelens.models.parts.history import Prefix
from framelens.models.parts.scd_config import Config
from framelens.models.separated.instrumented import point_of_decoder
from framelens.models.separated.reading import HalfStack, over_clip, with_prefix, without_past
from framelens.models.separated.stated import How, SplitLayers, Stated


@dataclass(frozen=True)
class SeparatedContext:
    """The encoder's memory of finished frames, its features for the next one, the prompt of the decoder."""

    memory: Context
    text: Any
    features: Tensor | None = None
    prefix: Prefix | None = None
    """The decoder's keys and values of the features, of the prefix fusion."""
    step: Context = None
    """The context of the current denoising step, if the sampler prepared its steps."""

    @property
    def frame(self) -> int:
        """The number of the next frame."""
        return self.memory.frame


class SeparatedNetwork(Stated, nn.Module):
    """Two halves of a network; satisfies the contract of a CausalDiffuser. See `separate`."""

    denoising_stack = "decoder."
    asks = start_is_pass = True
    query_sigma, context_noise = Config.query_sigma, Config.context_noise
    """Of training, as an SCD has them: least noise level of a query, noise on the features (equation 7)."""

    def __init__(self, encoder: Any, decoder: Any, layers: SplitLayers, how: How):
        super().__init__()
        self.encoder, self.decoder, self.layers, self.how = encoder, decoder, layers, how
        depths = len(encoder.blocks), len(decoder.blocks)
        self.reads, self.decodes = (
            HalfStack(half, depth, len(layers.head), how.fusion)
            for half, depth in zip((encoder, decoder), depths, strict=True)
        )
        self.geometry = replace(encoder.geometry, layers=sum(depths))
        self.queries = Queries(how.query, self.geometry.d_model)
        self._source = Source()

    @property
    def hook_dict(self) -> dict[str, nn.Module]:
        """The hook points of both halves, called `encoder.` and `decoder.`"""
        halves = (("encoder", self.encoder), ("decoder", self.decoder))
        return {f"{half}.{name}": point for half, own in halves for name, point in own.hook_dict.items()}

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Self-attention of both halves; the decoder's keys are of the features and the current chunk."""
        points = {f"encoder.{name}": point for name, point in self.encoder.attn_dict.items()}
        for name, point in self.decoder.attn_dict.items():
            points[f"decoder.{name}"] = point_of_decoder(point, self.how.fusion, self._chunk_tokens)
        return points

    @property
    def _chunk_tokens(self) -> int:
        return self.geometry.frames_per_chunk * self.geometry.tokens_per_frame

    @property
    def disturbed_is_pass(self) -> bool:
        """`disturbed` runs the decoder on the features, which the sampler announces."""
        return self.how.fusion == "prefix"

    def start(self, batch: int, cond: Tensor | None = None) -> SeparatedContext:
        """A context in which nothing has been seen: the encoder has run over noise for the first chunk."""
        if cond is not None and traits(self.encoder).takes == "actions":
            # After the last chunk, where nothing is generated, the encoder asks with the last action.
            cond = torch.cat([cond, *[cond[:, -1:]] * self.geometry.frames_per_chunk], dim=1)
        context = SeparatedContext(self.encoder.start(batch, cond), self.decoder.start(batch, cond).text)
        return self.ask(context, batch)

    def encode(self, x: Tensor, context: SeparatedContext) -> SeparatedContext:
        """The context after this finished chunk, with features for the next one."""
        return self.ask(self.read(x, context), len(x))

    def read(self, x: Tensor, context: SeparatedContext) -> SeparatedContext:
        """The context with this finished chunk in the encoder's memory, not yet asked."""
        return replace(context, memory=self.encoder.encode(x, context.memory), features=None, step=None)

    def ask(self, context: SeparatedContext, batch: int) -> SeparatedContext:
        """The context with features for its chunk, from a pass of the encoder over its query."""
        query = self.query_noise(context.frame).expand(batch, -1, -1, -1, -1)
        sigma = torch.ones(batch, device=query.device)
        entered = self.encoder.enter(query, sigma, context.memory)
        if self.how.query == "learned":
            asked = self.queries(None, batch, self._chunk_tokens)
            entered = entered._replace(tokens=asked.to(entered.tokens))
        return self._with_features(self.reads.features(entered), query, context)

    def _with_features(self, features: Tensor, chunk: Tensor, context: SeparatedContext) -> SeparatedContext:
        """The context with these features; with the prefix fusion the decoder reads them, as of sigma 0."""
        prefix = None
        if self.how.fusion == "prefix":
            sigma = torch.zeros(len(features), device=features.device)
            entered = self.decoder.enter(chunk, sigma, context.memory)
            prefix = self.decodes.prefix(entered._replace(text=context.text), features)
        return replace(context, features=features, prefix=prefix)

    def query_noise(self, frame: int) -> Tensor:
        """The noise [f c h w] with which the encoder asks for the chunk at that frame; the same for all."""
        return query_noise(self.geometry, frame).to(next(self.encoder.parameters()).device)

    def disturbed(
        self, context: SeparatedContext, strength: float, generator: torch.Generator
    ) -> SeparatedContext:
        """The context with noise of that strength on its features (equation 7)."""
        assert context.features is not None
        features, batch = disturb(context.features, strength, generator), len(context.features)
        chunk = self.query_noise(context.frame).expand(batch, -1, -1, -1, -1)
        return self._with_features(features, chunk, context)

    def at_steps(self, sigmas: Tensor, context: SeparatedContext) -> Iterator[SeparatedContext]:
        """The context at each step of a sampler, as the decoder prepares it."""
        steps = prepare_steps(traits(self.decoder), sigmas, context.memory)
        return (replace(context, step=step) for step in steps)

    def denoise(self, x: Tensor, sigma: Tensor, context: SeparatedContext) -> Tensor:
        """The velocity of the current chunk at noise level sigma [b]: the decoder alone."""
        step = context.memory if context.step is None else context.step
        entered = self.decoder.enter(x, sigma, step)
        history = entered.history
        history = without_past(history) if context.prefix is None else with_prefix(history, context.prefix)
        entered = entered._replace(history=history, text=context.text)
        assert context.features is not None
        tokens = self.decodes.decode(entered, context.features, groups=1)
        return self.decoder.velocity(tokens, entered.modulations)

    forward = denoise

    @property
    def teacher_forced(self) -> Callable[..., Tensor] | None:
        """`denoise_teacher_forced`, if the layers run over whole clips; None for FAR-Long and AnyFlow."""
        return self.denoise_teacher_forced if isinstance(self.encoder, ClipLayers) else None

    def denoise_teacher_forced(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b kf c h w"],
        sigma: Float[Tensor, "b kf"],
        cond: Tensor | None = None,
    ) -> Float[Tensor, "b kf c h w"]:
        """The velocity of every noisy chunk given its clean past: encoder once, decoder on each chunk.

        `noisy` may hold k draws of the clip, one after the other. In training mode each call draws
        its queries, and the features carry noise.
        """
        return self.decode_clip(self.read_clip(clean, cond), noisy, sigma, cond)

    def read_clip(
        self, clean: Float[Tensor, "b f c h w"], cond: Tensor | None = None
    ) -> Float[Tensor, "b n d"]:
        """The encoder's features for every chunk of a clip, n = (frame row col), in one pass.

        The encoder asks with noise; in training with the true chunks at noise levels from `query_sigma` to 1.
        A learned vector asks as it is. In training the features carry noise.
        """
        frames, chunk = clean.shape[1], self.geometry.frames_per_chunk
        if self.training and self.how.query == "noise":
            queries, sigma = draw_queries(clean, self.query_sigma, chunk)
        else:
            noise = [self.query_noise(first) for first in range(0, frames, chunk)]
            queries = torch.cat(noise).to(clean).expand_as(clean)
            sigma = torch.ones_like(clean[:, :, 0, 0, 0])
        entered = self.encoder.enter_clip(clean, queries, sigma, cond)
        if self.how.query == "learned":
            read = entered.tokens[:, : entered.tokens.shape[1] // 2]
            asked = self.queries(None, *read.shape[:2]).to(read)
            entered = entered._replace(tokens=torch.cat([read, asked], dim=1))
        features = self.reads.features(entered)
        features = features[:, features.shape[1] // 2 :]
        if self.training and self.context_noise:
            features = features + self.context_noise * torch.randn_like(features)
        return features

    def decode_clip(
        self,
        features: Float[Tensor, "b n d"],
        noisy: Float[Tensor, "b kf c h w"],
        sigma: Float[Tensor, "b kf"],
        cond: Tensor | None = None,
    ) -> Float[Tensor, "b kf c h w"]:
        """The decoder's velocity of each chunk of k draws of the clip, from the features of `read_clip`."""
        frames = features.shape[1] // self.geometry.tokens_per_frame
        draws, prefix = noisy.shape[1] // frames, None
        if self.how.fusion == "prefix":
            first = noisy[:, :frames]
            finished = self.decoder.enter_alone(first, torch.zeros_like(sigma[:, :frames]), frames, cond)
            prefix = self.decodes.prefix(finished, features)
        entered = self.decoder.enter_alone(noisy, sigma, frames, cond)
        entered = entered._replace(history=over_clip(entered.history, self.how.fusion, prefix))
        tokens = self.decodes.decode(entered, features.repeat(1, draws, 1), groups=draws * frames)
        return self.decoder.velocity(tokens, entered.modulations)
