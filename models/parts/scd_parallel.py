"""The training pass of a separated network over whole clips: the encoder once, the decoder on every frame.

Teacher forcing, parallel over frames (Bai et al. 2026, section 5): a noisy frame sees its own context tokens
and nothing else, so the frames join the batch axis of the decoder.
"""

from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from framelens.models.parts.cache import KVCache
from framelens.models.parts.config import conditions_of
from framelens.models.parts.fusion import features_of
from framelens.models.parts.history import FrameCausal, Prefix
from framelens.models.parts.scd_asking import Asking, ask_for_clip
from framelens.models.parts.stack import Modulations, Stack
from framelens.models.parts.text import TextKeys


@runtime_checkable
class Separated(Asking, Protocol):
    """What of `models.scd.SCD` is used here."""

    @property
    def decoder(self) -> Stack: ...

    @property
    def start_token(self) -> Tensor | None: ...

    @property
    def asks(self) -> bool: ...

    def places(self) -> list[tuple[Tensor, Tensor]]: ...

    def decode(
        self,
        noisy: Float[Tensor, "b n d"],
        features: Float[Tensor, "b n d"],
        modulations: Modulations,
        place: tuple[Tensor, Tensor],
        prefix: KVCache | Prefix | None,
        text: TextKeys | None,
    ) -> Float[Tensor, "b 1 c h w"]: ...


def teacher_forced(
    model: Separated,
    clean: Float[Tensor, "b f c h w"],
    noisy: Float[Tensor, "b kf c h w"],
    sigma: Float[Tensor, "b kf"],
    cond: Tensor | None,
) -> Float[Tensor, "b kf c h w"]:
    """Velocities of `SCD.teacher_forced`; k noise draws per clean frame are side by side in time."""
    return decode_clip(model, read_clip(model, clean, cond), noisy, sigma, cond)


def read_clip(
    model: Separated, clean: Float[Tensor, "b f c h w"], cond: Tensor | None
) -> Float[Tensor, "b n d"]:
    """The encoder's features for every frame of a clip, n = (frame row col); in training with noise."""
    actions = conditions_of(cond, clean.shape[1]) if model.config.conditions else None
    features = contexts(model, clean, actions, model.encoder.text_keys(cond))
    if model.training and model.config.context_noise:
        features = features + model.config.context_noise * torch.randn_like(features)
    return features


def decode_clip(
    model: Separated,
    features: Float[Tensor, "b n d"],
    noisy: Float[Tensor, "b kf c h w"],
    sigma: Float[Tensor, "b kf"],
    cond: Tensor | None,
) -> Float[Tensor, "b kf c h w"]:
    """The decoder's velocity of every noisy frame from `read_clip`'s features; k noise draws per frame."""
    frames = features.shape[1] // model.geometry.tokens_per_frame
    draws = noisy.shape[1] // frames
    actions = conditions_of(cond, frames) if model.config.conditions else None
    features = rearrange(features, "b (f n) d -> (b f) n d", f=frames)
    each = None if actions is None else rearrange(actions, "b f -> (b f) 1")
    text, prefix = _repeat_text(model.decoder.text_keys(cond), frames), None
    alone, place = model.places()
    if model.config.fusion == "prefix":
        prefix, modulations = Prefix(), model.decoder.modulations(model.clean(len(features)), each)
        model.decoder.through(features, modulations, alone, prefix.recording(), text)

    def velocity(noisy: Tensor, sigma: Tensor) -> Tensor:
        x = rearrange(noisy, "b f c h w -> (b f) 1 c h w")
        modulations = model.decoder.modulations(1000 * rearrange(sigma, "b f -> (b f) 1"), each)
        decoded = model.decode(model.decoder.tokens(x), features, modulations, place, prefix, text)
        return rearrange(decoded, "(b f) 1 c h w -> b f c h w", f=frames)

    pairs = zip(noisy.chunk(draws, dim=1), sigma.chunk(draws, dim=1), strict=True)
    return torch.cat([velocity(*pair) for pair in pairs], dim=1)


def contexts(
    model: Separated,
    clean: Float[Tensor, "b f c h w"],
    actions: Int[Tensor, "b f"] | None,
    text: TextKeys | None = None,
) -> Float[Tensor, "b n d"]:
    """c_0 ... c_{f-1} of a clip in one causal pass over the start token and all frames but the last."""
    if model.asks:
        return ask_for_clip(model, clean, actions, text)
    if model.start_token is None:
        raise ValueError("this model has no start token, so it cannot read a whole clip: encode frames")
    (batch, frames), n = clean.shape[:2], model.geometry.tokens_per_frame
    start = repeat(model.start_token, "d -> b n d", b=batch, n=n)
    tokens = torch.cat([start, model.encoder.tokens(clean)[:, :-n]], dim=1)
    modulations = model.encoder.modulations(model.clean(batch).expand(-1, frames), actions)
    rope, history = model.encoder.rotation(list(range(frames))), FrameCausal(frames, n, model.config.reach)
    return features_of(model.encoder, model.config, tokens, modulations, rope, history, text)


def _repeat_text(text: TextKeys | None, frames: int) -> TextKeys | None:
    """The prompt's keys and values of each clip, repeated for each of its frames."""
    if text is None:
        return None
    return [(k.repeat_interleave(frames, 0), v.repeat_interleave(frames, 0)) for k, v in text]
