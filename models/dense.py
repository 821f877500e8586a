"""The dense frame-causal diffusion transformer: FAR's network, the paper's "Causal DiT".

    model = dense.build(dense.config("tiny", channels=3, height=20, width=20, conditions=5))
    velocity = model.denoise(x, sigma, model.start(batch=1, cond=actions))

Every denoising step runs all layers over the current frame and the cached past. Clean frames, those of the
past, carry timestep -1; noisy ones 1000 sigma.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framelens.diffusion.layers import LayerInputs
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.parts.cached_stack import CachedStack
from framelens.models.parts.config import (
    LATENT,
    TINY,
    WAN,
    StackConfig,
    check_conditions,
    condition_of,
    conditions_of,
    preset,
)
from framelens.models.parts.contexts import DenseContext
from framelens.models.parts.history import Alone
from framelens.models.parts.stack import CLEAN_TIMESTEP


@dataclass(frozen=True, kw_only=True)
class Config(StackConfig):
    """What a checkpoint needs to be rebuilt; stored beside its weights."""

    layers: int


PRESETS = {
    "tiny": Config(layers=12, **TINY),
    "far-b": Config(layers=12, heads=12, d_model=768, **LATENT),
    "far-m": Config(layers=12, heads=16, d_model=1024, **LATENT),
    "wan-1.3b": Config(layers=30, **WAN),
}


def config(name: str, **changes) -> Config:
    """A preset's configuration with changes; an unknown preset raises ValueError with those that exist."""
    return preset(PRESETS, "dense", name, changes)


def build(config: Config | dict) -> "Dense":
    """The network with freshly initialised weights (adaLN-zero)."""
    return Dense(Config.from_values(config) if isinstance(config, dict) else config)


class Dense(CachedStack):
    """A frame-causal DiT; offers TransformerLens' run_with_cache, hooks and names_filter on `denoise`."""

    def __init__(self, config: Config):
        super().__init__(config, config.layers, unembed=True)
        self.setup()

    def _key_age(self, frame: int, keys: int) -> Int[Tensor, " k"]:
        seen = torch.cat([frame - self.config.reach.past(frame), torch.zeros(1, dtype=torch.long)])
        return seen.repeat_interleave(self.geometry.tokens_per_frame)

    def start(self, batch: int, cond: Tensor | None = None) -> DenseContext:
        """A context in which nothing has been seen; cond is actions [b f], labels [b] or a prompt [b t w]."""
        check_conditions(cond, self.config, batch)
        text = self.text_keys(cond)
        cond = None if self.condition is None or cond is None else cond.to(self.device)
        return DenseContext(0, KVCache(KVStorage(len(self.blocks))), self.rotation([0]), cond, text)

    def encode_by(
        self, x: Float[Tensor, "b 1 c h w"], context: DenseContext, layers: range | None
    ) -> DenseContext:
        """The context with this finished frame's keys and values appended; `layers` run, or all."""
        cache, tokens = context.cache.for_appending(), self.geometry.tokens_per_frame
        clean = x.new_full((len(x), 1), CLEAN_TIMESTEP)
        modulations = self.modulations(clean, condition_of(context.cond, context.frame))
        self.through(self.tokens(x), modulations, context.rope, cache, context.text, layers)
        frame = context.frame + 1
        cache = cache.append(tokens).within(self.config.reach, tokens)
        return DenseContext(frame, cache, self.rotation([frame]), context.cond, context.text)

    def teacher_forced(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b f c h w"],
        sigma: Float[Tensor, "b f"],
        cond: Tensor | None = None,
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity of every noisy frame given its clean past, in one pass over [clean | noisy]."""
        entered, frames = self.enter_clip(clean, noisy, sigma, cond), clean.shape[1]
        tokens = self.through(*entered)
        ours = replace(entered.modulations, final=entered.modulations.final[:, frames:])
        return self.velocity(tokens[:, tokens.shape[1] // 2 :], ours)

    def enter_clip(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b f c h w"],
        sigma: Float[Tensor, "b f"],
        cond: Tensor | None = None,
    ) -> LayerInputs:
        """What the layers are given in a pass over [clean | noisy]; see models/parts/clip_layers.py."""
        check_conditions(cond, self.config, len(clean))
        actions = None if self.condition is None else conditions_of(cond, clean.shape[1])
        return LayerInputs(*self.beside_clean(clean, noisy, sigma, actions), self.text_keys(cond))

    def enter_alone(
        self,
        noisy: Float[Tensor, "b kf c h w"],
        sigma: Float[Tensor, "b kf"],
        frames: int,
        cond: Tensor | None = None,
    ) -> LayerInputs:
        """What the layers are given in a pass over frames that see themselves only."""
        check_conditions(cond, self.config, len(noisy))
        draws = noisy.shape[1] // frames
        actions = None if self.condition is None else conditions_of(cond, frames)
        modulations = self.modulations(1000 * sigma, None if actions is None else actions.repeat(1, draws))
        rope, history = self.rotation([*range(frames)] * draws), Alone(self.geometry.tokens_per_frame)
        return LayerInputs(self.tokens(noisy), modulations, rope, history, self.text_keys(cond))
