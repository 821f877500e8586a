"""The dense frame-causal diffusion transformer: FAR's network, the paper's "Causal DiT".

    model = dense.build(dense.config("tiny", channels=3, height=20, width=20, conditions=5))
    velocity = model.denoise(x, sigma, model.start(batch=1, cond=actions))

Every denoising step runs all layers over the current frame and the cached past. Clean frames, those of the
past, carry timestep -1; noisy ones 1000 sigma.
"""

from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.attention import AttentionPoint
from models._blocks import Rope
from models._history import CleanThenNoisy, KVCache, KVStorage
from models._stack import CLEAN_TIMESTEP, Stack, check_conditions, condition_of, conditions_of


@dataclass(frozen=True)
class Config:
    """What a checkpoint needs to be rebuilt; stored beside its weights."""

    channels: int
    height: int
    width: int
    patch: int
    layers: int
    heads: int
    d_model: int
    conditions: int = 0
    """How many actions or labels there are; 0 for an unconditional model."""
    rope_axes: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 10000.0

    def __post_init__(self):
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(
                f"a {self.height} x {self.width} frame does not divide into patches of {self.patch}"
            )
        if self.d_model % self.heads or sum(self.rope_axes) != self.d_model // self.heads:
            raise ValueError(
                f"width {self.d_model} over {self.heads} heads does not match the RoPE axes {self.rope_axes}"
            )


PRESETS = {
    "tiny": Config(3, 20, 20, 4, 12, 4, 128, rope_axes=(8, 12, 12), rope_theta=100.0),
    "far-b": Config(32, 8, 8, 1, 12, 12, 768),
    "far-m": Config(32, 8, 8, 1, 12, 16, 1024),
}


def config(preset: str, **changes) -> Config:
    """A preset's configuration with changes; an unknown preset raises ValueError with those that exist."""
    if preset not in PRESETS:
        raise ValueError(f"no dense preset is called {preset!r}; there are {', '.join(PRESETS)}")
    return replace(PRESETS[preset], **changes)


def build(config: Config | dict) -> "Dense":
    """The network with freshly initialised weights (adaLN-zero)."""
    if isinstance(config, dict):
        config = Config(**{**config, "rope_axes": tuple(config["rope_axes"])})
    return Dense(config)


@dataclass(frozen=True)
class DenseContext:
    """The past of a dense model: how many frames, their keys and values, the conditions of the clip."""

    frame: int
    cache: KVCache
    rope: Rope
    cond: Tensor | None


class Dense(Stack):
    """A frame-causal DiT; offers TransformerLens' run_with_cache, hooks and names_filter on `denoise`."""

    def __init__(self, config: Config):
        super().__init__(config, config.layers, unembed=True)
        self.null_condition = config.conditions if config.conditions else None
        self.setup()

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """Where attention happens; keys lie in frame order, the current frame last."""
        return {
            f"blocks.{layer}.attn": AttentionPoint(self.get_submodule(f"blocks.{layer}.attn"), self._key_age)
            for layer in range(self.config.layers)
        }

    def _key_age(self, frame: int, keys: int) -> Int[Tensor, " {keys}"]:
        return frame - torch.arange(keys) // self.geometry.tokens_per_frame

    def start(self, batch: int, cond: Int[Tensor, "b ..."] | None = None) -> DenseContext:
        """A context in which nothing has been seen; cond is actions [b f] or labels [b]."""
        check_conditions(cond, self.config.conditions, batch)
        cond = None if self.condition is None or cond is None else cond.to(self.device)
        return DenseContext(0, KVCache(KVStorage(self.config.layers)), self.rotation([0]), cond)

    def encode(self, x: Float[Tensor, "b 1 c h w"], context: DenseContext) -> DenseContext:
        """The context with this finished frame's keys and values appended, all layers run once."""
        cache = context.cache.for_appending()
        emb = self.modulation(
            x.new_full((len(x), 1), CLEAN_TIMESTEP), condition_of(context.cond, context.frame)
        )
        self.through(self.tokens(x), emb, context.rope, cache)
        frame = context.frame + 1
        appended = cache.appended(self.geometry.tokens_per_frame)
        return DenseContext(frame, appended, self.rotation([frame]), context.cond)

    def denoise(
        self, x: Float[Tensor, "b 1 c h w"], sigma: Float[Tensor, " b"], context: DenseContext
    ) -> Float[Tensor, "b 1 c h w"]:
        """The velocity of the current frame at noise level sigma, all layers run over the cached past."""
        emb = self.modulation(1000 * sigma[:, None], condition_of(context.cond, context.frame))
        return self.velocity(self.through(self.tokens(x), emb, context.rope, context.cache), emb)

    forward = denoise

    def teacher_forced(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b f c h w"],
        sigma: Float[Tensor, "b f"],
        cond: Int[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity of every noisy frame given its clean past, in one pass over [clean | noisy]."""
        check_conditions(cond, self.config.conditions, len(clean))
        frames = clean.shape[1]
        timestep = torch.cat([torch.full_like(sigma, CLEAN_TIMESTEP), 1000 * sigma], dim=1)
        actions = conditions_of(cond, frames)
        emb = self.modulation(timestep, None if actions is None else torch.cat([actions, actions], dim=1))
        rope = self.rotation(list(range(frames)) * 2)
        history = CleanThenNoisy(frames, self.geometry.tokens_per_frame)
        tokens = self.through(self.tokens(torch.cat([clean, noisy], dim=1)), emb, rope, history)
        return self.velocity(tokens[:, tokens.shape[1] // 2 :], emb[:, frames:])

    def describe(self) -> dict:
        """The configuration as plain values, as it is stored beside the weights."""
        return asdict(self.config)
