"""How the encoder of an SCD asks for a frame: query tokens see the finished frames, and no frame sees them.

`query` says what the tokens begin as: noise (in training the true frame at noise levels from `query_sigma`
to 1), the finished frame's embedding with a learned mark, or a learned mark alone (models/parts/asking.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from framelens.diffusion.contract import Geometry
from framelens.diffusion.transfer import send
from framelens.models.parts.asking import Queries, draw_queries
from framelens.models.parts.asking import query_noise as noise_of
from framelens.models.parts.blocks import Rope
from framelens.models.parts.cache import FrameThenQueries, KVCache
from framelens.models.parts.contexts import SCDContext
from framelens.models.parts.fusion import features_of
from framelens.models.parts.history import FrameCausal, History
from framelens.models.parts.scd_config import Config
from framelens.models.parts.stack import Modulations, Stack
from framelens.models.parts.text import TextKeys


@runtime_checkable
class Asking(Protocol):
    """What of `models.scd.SCD` is used here."""

    @property
    def config(self) -> Config: ...

    @property
    def encoder(self) -> Stack: ...

    @property
    def queries(self) -> Queries: ...

    @property
    def geometry(self) -> Geometry: ...

    @property
    def training(self) -> bool: ...

    def clean(self, batch: int) -> Float[Tensor, "{batch} 1"]: ...

    def query_noise(self, frame: int) -> Float[Tensor, "c h w"]: ...

    def inputs(
        self, timestep: Float[Tensor, "b f"], frames: Sequence[int], context: SCDContext
    ) -> tuple[Modulations, Rope, KVCache, TextKeys | None]: ...

    def with_features(self, features: Float[Tensor, "b n d"], context: SCDContext) -> SCDContext: ...


def read(model: Asking, x: Float[Tensor, "b 1 c h w"], context: SCDContext) -> SCDContext:
    """Of a model that asks: the context with this finished frame's keys and values, not yet asked."""
    context = replace(context, cache=context.cache.for_appending(), modulations=None)
    tokens = model.encoder.tokens(x)
    model.encoder.through(tokens, *model.inputs(model.clean(len(x)), [context.frame], context))
    return _after_frame(model, tokens, context)


def ask(model: Asking, context: SCDContext, batch: int) -> SCDContext:
    """Of a model that asks: the context with features for its frame, from a pass over its query tokens."""
    inputs = model.inputs(_noise_timestep(model, batch), [context.frame], context)
    tokens = _query_tokens(model, context.frame, context.last, batch)
    return model.with_features(features_of(model.encoder, model.config, tokens, *inputs), context)


def read_and_ask(model: Asking, x: Float[Tensor, "b 1 c h w"], context: SCDContext) -> SCDContext:
    """`read` and `ask` in one pass over [finished frame | query tokens], the same to rounding.

    Where a hook is attached to the encoder it is two passes, so that each hook sees one role at a time.
    """
    batch, encoder = len(x), model.encoder
    if any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules()):
        return ask(model, read(model, x, context), batch)
    context = replace(context, cache=context.cache.for_appending(), modulations=None)
    finished, frames = encoder.tokens(x), [context.frame, context.frame + 1]
    queries = _query_tokens(model, context.frame + 1, finished, batch)
    timestep = torch.cat([model.clean(batch), _noise_timestep(model, batch)], dim=1)
    modulations, rope, alone, text = model.inputs(timestep, frames, context)
    last = None if model.config.fusion == "residual" else model.config.encoder_layers - 1
    both = FrameThenQueries(alone, model.geometry.tokens_per_frame, model.config.reach, last)
    features = _through(model, finished, queries, modulations, rope, alone, both, text)
    return model.with_features(features, _after_frame(model, finished, context))


def _after_frame(model: Asking, tokens: Float[Tensor, "b n d"], context: SCDContext) -> SCDContext:
    """The context after a pass over the finished frame with these embedded tokens, with room for two more."""
    n, last = model.geometry.tokens_per_frame, tokens if model.config.query == "frame" else None
    cache = context.cache.append(n).within(model.config.reach, n, 2 * n)
    return replace(context, frame=context.frame + 1, cache=cache, last=last)


def _query_tokens(
    model: Asking, frame: int, last: Float[Tensor, "b n d"] | None, batch: int
) -> Float[Tensor, "b n d"]:
    """The tokens that ask for that frame after the frame with these embedded tokens."""
    if model.config.query == "noise":
        return model.encoder.tokens(repeat(model.query_noise(frame), "c h w -> b 1 c h w", b=batch))
    own = model.queries(last, batch, model.geometry.tokens_per_frame)
    return model.encoder.hook_embed(own)


def _noise_timestep(model: Asking, batch: int) -> Float[Tensor, "{batch} 1"]:
    return torch.full((batch, 1), 1000.0, device=model.encoder.device)


def _through(
    model: Asking,
    finished: Float[Tensor, "b m d"],
    queries: Float[Tensor, "b q d"],
    modulations: Modulations,
    rope: Rope,
    alone: History,
    both: History,
    text: TextKeys | None,
) -> Float[Tensor, "b q d"]:
    """The features of query tokens in one pass beside finished frames, which pass `query_layer` layers
    alone before; `modulations` and `rope` are those of both."""
    tokens, layer = finished.shape[1], model.config.query_layer
    if layer:
        own = modulations.first(modulations.final.shape[1] * tokens // (tokens + queries.shape[1]))
        place = (rope[0][:tokens], rope[1][:tokens])
        finished = model.encoder.through(finished, own, place, alone, text, range(layer))
    joined = torch.cat([finished, queries], dim=1)
    return features_of(model.encoder, model.config, joined, modulations, rope, both, text)[:, tokens:]


def query_noise(model: Asking, frame: int) -> Float[Tensor, "c h w"]:
    """The noise of the query tokens for that frame; the same in every clip."""
    return send(noise_of(model.geometry, frame)[0], model.encoder.device)


def ask_for_clip(
    model: Asking,
    clean: Float[Tensor, "b f c h w"],
    actions: Int[Tensor, "b f"] | None,
    text: TextKeys | None,
) -> Float[Tensor, "b n d"]:
    """c_0 ... c_{f-1} of a model that asks, in one pass over [clean frames | query frames]."""
    (batch, frames), n = clean.shape[:2], model.geometry.tokens_per_frame
    encoder, sigma = model.encoder, torch.ones_like(clean[:, :, 0, 0, 0])
    if model.config.query == "noise":
        if model.training:
            noisy, sigma = draw_queries(clean, model.config.query_sigma, chunk=1)
        else:
            noisy = torch.stack([model.query_noise(frame) for frame in range(frames)]).expand_as(clean)
        tokens = encoder.tokens(torch.cat([clean, noisy], dim=1))
    else:
        embedded = encoder.embed_patches(clean)
        first = model.queries(None, batch, n)
        later = model.queries(embedded[:, :-n], batch, (frames - 1) * n)
        tokens = encoder.hook_embed(torch.cat([embedded, first, later], dim=1))
    modulations, rope, both = encoder.inputs_beside_clean(sigma, actions)
    alone = FrameCausal(frames, n, model.config.reach)
    finished, queries = tokens.chunk(2, dim=1)
    return _through(model, finished, queries, modulations, rope, alone, both, text)
