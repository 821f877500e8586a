"""The dense frame-causal diffusion transformer: FAR's network, the paper's "Causal DiT".

    model = dense.build(dense.config("tiny", channels=3, height=20, width=20, conditions=5))
    velocity = model.denoise(x, sigma, model.start(batch=1, cond=actions))

Every denoising step runs all layers over the current frame and the cached past. Clean frames, those of the
past, carry timestep -1; noisy ones 1000 sigma.
"""

from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion.sampler import Geometry
from hooks.attention import AttentionPoint
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
from models._history import CleanThenNoisy, KVCache, KVStorage

CLEAN_TIMESTEP = -1.0
"""How a finished frame is told apart from a noisy one (FAR, and SCD's encoder)."""


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


class Dense(HookedRootModule):
    """A frame-causal DiT; offers TransformerLens' run_with_cache, hooks and names_filter on `denoise`."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.geometry = Geometry(
            1,
            config.channels,
            config.height,
            config.width,
            config.patch,
            config.layers,
            config.heads,
            config.d_model,
        )
        self.null_condition = config.conditions if config.conditions else None
        values, width = config.channels * config.patch**2, config.d_model
        self.embed = nn.Linear(values, width)
        self.time = TimeEmbedding(width)
        self.condition = nn.Embedding(config.conditions + 1, width) if config.conditions else None
        self.rope = AxialRope(config.rope_axes, self.geometry.rows, self.geometry.cols, config.rope_theta)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm_out = nn.Linear(width, 2 * width)
        self.unembed = nn.Linear(width, values)
        self.hook_embed = GuardedHookPoint()
        self._initialise()
        self.setup()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        gates = [module.linear for module in self.modules() if isinstance(module, AdaNorm)]
        for linear in (*gates, self.norm_out, self.unembed):
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
        if self.condition is not None and cond is None:
            raise ValueError(
                f"this model is conditional ({self.config.conditions} actions or labels); give cond"
            )
        if cond is not None and len(cond) != batch:
            raise ValueError(f"cond is for {len(cond)} clips, the batch has {batch}")
        device = self.embed.weight.device
        cond = None if self.condition is None or cond is None else cond.to(device)
        return DenseContext(0, KVCache(KVStorage(self.config.layers)), self._rope([0]), cond)

    def encode(self, x: Float[Tensor, "b 1 c h w"], context: DenseContext) -> DenseContext:
        """The context with this finished frame's keys and values appended, all layers run once."""
        cache = context.cache.for_appending()
        timestep = x.new_full((len(x), 1), CLEAN_TIMESTEP)
        self._through(x, self._time(timestep, self._current(context)), context.rope, cache)
        frame = context.frame + 1
        appended = cache.appended(self.geometry.tokens_per_frame)
        return DenseContext(frame, appended, self._rope([frame]), context.cond)

    def denoise(
        self, x: Float[Tensor, "b 1 c h w"], sigma: Float[Tensor, " b"], context: DenseContext
    ) -> Tensor:
        """The velocity of the current frame at noise level sigma, all layers run over the cached past."""
        emb = self._time(1000 * sigma[:, None], self._current(context))
        return self._velocity(self._through(x, emb, context.rope, context.cache), emb)

    forward = denoise

    def teacher_forced(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b f c h w"],
        sigma: Float[Tensor, "b f"],
        cond: Int[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity of every noisy frame given its clean past, in one pass over [clean | noisy]."""
        frames = clean.shape[1]
        timestep = torch.cat([torch.full_like(sigma, CLEAN_TIMESTEP), 1000 * sigma], dim=1)
        emb = self._time(timestep, self._clip_conditions(cond, frames))
        rope = self._rope(list(range(frames)) * 2)
        history = CleanThenNoisy(frames, self.geometry.tokens_per_frame)
        x = self._through(torch.cat([clean, noisy], dim=1), emb, rope, history)
        return self._velocity(x[:, x.shape[1] // 2 :], emb[:, frames:])

    def _rope(self, frames: list[int]) -> Rope:
        return self.rope(torch.tensor(frames, device=self.embed.weight.device))

    def _current(self, context: DenseContext) -> Int[Tensor, "b 1"] | None:
        """The condition of the frame that comes next."""
        if context.cond is None:
            return None
        if context.cond.ndim == 1:
            return context.cond[:, None]
        if context.frame >= context.cond.shape[1]:
            raise ValueError(
                f"actions are given for {context.cond.shape[1]} frames; frame {context.frame} has none"
            )
        return context.cond[:, context.frame : context.frame + 1]

    def _clip_conditions(self, cond: Tensor | None, frames: int) -> Int[Tensor, "b two_f"] | None:
        """The conditions of [clean | noisy] frames."""
        if self.condition is None or cond is None:
            return None
        per_frame = cond[:, None].expand(-1, frames) if cond.ndim == 1 else cond[:, :frames]
        return torch.cat([per_frame, per_frame], dim=1)

    def _time(
        self, timestep: Float[Tensor, "b f"], cond: Int[Tensor, "b f"] | None
    ) -> Float[Tensor, "b f d"]:
        """SiLU of the time embedding plus the condition's: what every modulation is computed from."""
        emb = self.time(timestep)
        return F.silu(emb if cond is None or self.condition is None else emb + self.condition(cond))

    def _through(
        self, x: Tensor, emb: Tensor, rope: Rope, history: KVCache | CleanThenNoisy
    ) -> Float[Tensor, "b n d"]:
        patches = rearrange(
            x, "b f c (h p) (w q) -> b (f h w) (c p q)", p=self.config.patch, q=self.config.patch
        )
        tokens = self.hook_embed(self.embed(patches.to(self.embed.weight.dtype)))
        for layer, block in enumerate(self.blocks):
            tokens = block(tokens, emb, rope, history, layer)
        return tokens

    def _velocity(
        self, tokens: Float[Tensor, "b n d"], emb: Float[Tensor, "b f d"]
    ) -> Float[Tensor, "b f c h w"]:
        scale, shift = (per_frame(part, tokens.shape[1]) for part in self.norm_out(emb).chunk(2, dim=-1))
        patches = self.unembed(F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        g = self.geometry
        return rearrange(
            patches,
            "b (f h w) (c p q) -> b f c (h p) (w q)",
            f=emb.shape[1], h=g.rows, w=g.cols, p=g.patch, q=g.patch,
        )  # fmt: skip

    def describe(self) -> dict:
        """The configuration as plain values, as it is stored beside the weights."""
        return asdict(self.config)
