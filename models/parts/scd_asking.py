"""How the encoder of an SCD asks for a frame: query tokens see the finished frames, and no frame sees them.

`query` says what the tokens begin as: noise (in training the true frame at noise levels from `query_sigma`
to 1), the finished frame's embedding with a learned mark, or a learned mark alone (models/parts/asking.py).
"""

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
from framelens.models.parts.contexts import SCDContext
from framelens.models.parts.fusion import features_of
from framelens.models.parts.scd_config import Config
from framelens.models.parts.stack import Stack
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

    def inputs(self, timestep: Tensor, frame: int, context: SCDContext) -> tuple: ...

    def with_features(self, features: Float[Tensor, "b n d"], context: SCDContext) -> SCDContext: ...


def read(model: Asking, x: Float[Tensor, "b 1 c h w"], context: SCDContext) -> SCDContext:
    """Of a model that asks: the context with this finished frame's keys and values, not yet asked."""
    cache, n = context.cache.for_appending(), model.geometry.tokens_per_frame
    context = replace(context, cache=cache, modulations=None)
    tokens = model.encoder.tokens(x)
    model.encoder.through(tokens, *model.inputs(model.clean(len(x)), context.frame, context))
    cache = cache.append(n).within(model.config.reach, n)
    last = tokens if model.config.query == "frame" else None
    return replace(context, frame=context.frame + 1, cache=cache, last=last)


def ask(model: Asking, context: SCDContext, batch: int) -> SCDContext:
    """Of a model that asks: the context with features for its frame, from a pass over its query tokens."""
    encoder, frame = model.encoder, context.frame
    if model.config.query == "noise":
        tokens = encoder.tokens(repeat(model.query_noise(frame), "c h w -> b 1 c h w", b=batch))
    else:
        own = model.queries(context.last, batch, model.geometry.tokens_per_frame)
        tokens = encoder.hook_embed(own)
    inputs = model.inputs(torch.full((batch, 1), 1000.0, device=encoder.device), frame, context)
    return model.with_features(features_of(encoder, model.config, tokens, *inputs), context)


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
            queries, sigma = draw_queries(clean, model.config.query_sigma, chunk=1)
        else:
            queries = torch.stack([model.query_noise(frame) for frame in range(frames)]).expand_as(clean)
        tokens = encoder.tokens(torch.cat([clean, queries], dim=1))
    else:
        embedded = encoder.embed_patches(clean)
        first = model.queries(None, batch, n)
        later = model.queries(embedded[:, :-n], batch, (frames - 1) * n)
        tokens = encoder.hook_embed(torch.cat([embedded, first, later], dim=1))
    inputs = encoder.inputs_beside_clean(sigma, actions)
    return features_of(encoder, model.config, tokens, *inputs, text)[:, frames * n :]
