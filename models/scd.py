"""Separable Causal Diffusion: a causal encoder once per frame, a light decoder at every denoising step.

    model = scd.build(scd.config("tiny", conditions=5, fusion="prefix"))
    context = model.encode(frame, context)              # the encoder, all history in its KV cache
    velocity = model.denoise(x, sigma, context)         # the decoder, on [context tokens | noisy tokens]

c_i = Encoder(x_<i, a_<=i), v_i = Decoder(x_i, sigma, c_i) (Bai et al. 2026, section 5). The encoder reads a
learned start token and then the finished frames, each with the action that leads to the next one, so that
the frame count is right from frame 0 on and nothing of frame i is read before it exists.
"""

from dataclasses import asdict, dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion.sampler import Geometry
from hooks.attention import AttentionPoint
from models._blocks import HookedRootModule
from models._fusion import FUSIONS, Join
from models._history import FrameCausal, KVCache, KVStorage, Prefix, Together
from models._stack import CLEAN_TIMESTEP, Stack, check_conditions, condition_of, conditions_of


@dataclass(frozen=True)
class Config:
    """What a checkpoint needs to be rebuilt; stored beside its weights."""

    channels: int
    height: int
    width: int
    patch: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    d_model: int
    conditions: int = 0
    """How many actions or labels there are; 0 for an unconditional model."""
    rope_axes: tuple[int, int, int] = (16, 24, 24)
    rope_theta: float = 10000.0
    fusion: str = "token_concat"
    context_noise: float = 0.05
    """eta of equation 7: noise added to c in training, against exposure bias."""

    def __post_init__(self):
        if self.fusion not in FUSIONS:
            raise ValueError(f"no fusion is called {self.fusion!r}; there are {', '.join(FUSIONS)}")
        if min(self.encoder_layers, self.decoder_layers) < 1:
            raise ValueError(
                f"an encoder and a decoder need at least one layer each, got {self.encoder_layers} and "
                f"{self.decoder_layers}"
            )


PRESETS = {
    "tiny": Config(3, 20, 20, 4, 8, 4, 4, 128, rope_axes=(8, 12, 12), rope_theta=100.0),
    "scd-b": Config(32, 8, 8, 1, 8, 4, 12, 768),
    "scd-m": Config(32, 8, 8, 1, 8, 4, 16, 1024),
}


def config(preset: str, **changes) -> Config:
    """A preset's configuration with changes; an unknown preset raises ValueError with those that exist."""
    if preset not in PRESETS:
        raise ValueError(f"no scd preset is called {preset!r}; there are {', '.join(PRESETS)}")
    return replace(PRESETS[preset], **changes)


def build(config: Config | dict) -> "SCD":
    """The network with freshly initialised weights (adaLN-zero)."""
    if isinstance(config, dict):
        config = Config(**{**config, "rope_axes": tuple(config["rope_axes"])})
    return SCD(config)


@dataclass(frozen=True)
class SCDContext:
    """The past of a separated model: the encoder's cache, its features for the next frame, and for the
    prefix fusion the decoder's keys and values of them."""

    frame: int
    cache: KVCache
    features: Float[Tensor, "b n d"]
    prefix: KVCache | None
    cond: Tensor | None


class SCD(HookedRootModule):
    """A causal encoder and a per-frame decoder; hook names begin with `encoder.` and `decoder.`."""

    start_is_pass = True
    """`start` runs the encoder on the start token, which the sampler announces."""

    denoising_stack = "decoder."
    """The hook points that fire in `denoise`: those of the decoder."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.encoder = Stack(config, config.encoder_layers, unembed=False)
        self.decoder = Stack(config, config.decoder_layers, unembed=True)
        width, layers = config.d_model, config.encoder_layers + config.decoder_layers
        self.geometry = Geometry(
            1, config.channels, config.height, config.width, config.patch, layers, config.heads, width
        )
        self.null_condition = config.conditions if config.conditions else None
        self.start_token = nn.Parameter(0.02 * torch.randn(width))
        self.join = Join(config.fusion, width)
        self.setup()

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """The encoder sees the start token, then frames; the decoder the context tokens, then the frame."""
        age = {"encoder": self._encoder_age, "decoder": self._decoder_age}
        depth = {"encoder": self.config.encoder_layers, "decoder": self.config.decoder_layers}
        names = [f"{stack}.blocks.{layer}.attn" for stack in depth for layer in range(depth[stack])]
        return {name: AttentionPoint(self.get_submodule(name), age[name.split(".")[0]]) for name in names}

    def _encoder_age(self, frame: int, keys: int) -> Int[Tensor, " {keys}"]:
        place = torch.arange(keys) // self.geometry.tokens_per_frame
        return torch.where(place == 0, -1, frame + 1 - place)

    def _decoder_age(self, frame: int, keys: int) -> Int[Tensor, " {keys}"]:
        return (torch.arange(keys) < keys - self.geometry.tokens_per_frame).long()

    def start(self, batch: int, cond: Int[Tensor, "b ..."] | None = None) -> SCDContext:
        """A context in which nothing has been seen: the encoder has read its start token."""
        check_conditions(cond, self.config.conditions, batch)
        cond = None if self.null_condition is None or cond is None else cond.to(self.start_token.device)
        tokens = repeat(self.start_token, "d -> b n d", b=batch, n=self.geometry.tokens_per_frame)
        cache = KVCache(KVStorage(self.config.encoder_layers))
        return self._encoded(self.encoder.hook_embed(tokens), cache, 0, cond)

    def encode(self, x: Float[Tensor, "b 1 c h w"], context: SCDContext) -> SCDContext:
        """The context after the encoder has read this finished frame, and the action to the next one."""
        tokens = self.encoder.tokens(x)
        return self._encoded(tokens, context.cache.for_appending(), context.frame + 1, context.cond)

    def _encoded(self, tokens: Tensor, cache: KVCache, frame: int, cond: Tensor | None) -> SCDContext:
        """The context for `frame`, from the tokens of the frame before it."""
        action = _within(cond, frame)
        emb = self.encoder.modulation(self._clean(len(tokens)), action)
        tokens = self.encoder.through(tokens, emb, self.encoder.rotation([frame]), cache)
        features = self.encoder.normed(tokens, emb)
        prefix = self._prefix(features, action) if self.config.fusion == "prefix" else None
        appended = cache.appended(self.geometry.tokens_per_frame)
        return SCDContext(frame, appended, features, prefix, cond)

    def _prefix(self, features: Tensor, action: Tensor | None) -> KVCache:
        """The decoder's keys and values of the context tokens, which attend only to each other."""
        cache = KVCache(KVStorage(self.config.decoder_layers))
        emb = self.decoder.modulation(self._clean(len(features)), action)
        self.decoder.through(features, emb, self.decoder.rotation([0]), cache)
        return cache.appended(features.shape[1])

    def _clean(self, batch: int) -> Tensor:
        return torch.full((batch, 1), CLEAN_TIMESTEP, device=self.start_token.device)

    def denoise(
        self, x: Float[Tensor, "b 1 c h w"], sigma: Float[Tensor, " b"], context: SCDContext
    ) -> Float[Tensor, "b 1 c h w"]:
        """The velocity of the current frame at noise level sigma: the decoder alone."""
        emb = self.decoder.modulation(1000 * sigma[:, None], condition_of(context.cond, context.frame))
        return self._decoded(self.decoder.tokens(x), context.features, emb, context.prefix)

    forward = denoise

    def _decoded(
        self, noisy: Tensor, features: Tensor, emb: Tensor, prefix: KVCache | Prefix | None
    ) -> Float[Tensor, "b 1 c h w"]:
        """The velocity of each frame from its noisy tokens and its context tokens [b n d]."""
        rope = self.decoder.rotation([0])
        if prefix is not None:
            return self.decoder.velocity(self.decoder.through(noisy, emb, rope, prefix), emb)
        tokens, rope = self.join(noisy, features, rope)
        tokens = self.decoder.through(tokens, emb, rope, Together())
        return self.decoder.velocity(tokens[:, -noisy.shape[1] :], emb)

    def teacher_forced(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b kf c h w"],
        sigma: Float[Tensor, "b kf"],
        cond: Int[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b kf c h w"]:
        """The velocity of every noisy frame given its clean past: encoder once, decoder on each frame.

        `noisy` may hold k noise levels of the clip, one after the other: the encoder still runs once. In
        training mode the features carry noise of strength `context_noise` (equation 7).
        """
        check_conditions(cond, self.config.conditions, len(clean))
        frames, draws = clean.shape[1], noisy.shape[1] // clean.shape[1]
        actions = conditions_of(cond, frames)
        features = self.contexts(clean, actions)
        if self.training and self.config.context_noise:
            features = features + self.config.context_noise * torch.randn_like(features)
        features = rearrange(features, "b (f n) d -> (b f) n d", f=frames)
        each = None if actions is None else rearrange(actions, "b f -> (b f) 1")
        prefix = self._prefix_in_training(features, each) if self.config.fusion == "prefix" else None
        velocities = [
            self._decoded_frames(x, s, features, each, prefix)
            for x, s in zip(noisy.chunk(draws, dim=1), sigma.chunk(draws, dim=1), strict=True)
        ]
        return torch.cat(velocities, dim=1)

    def contexts(
        self, clean: Float[Tensor, "b f c h w"], actions: Int[Tensor, "b f"] | None
    ) -> Float[Tensor, "b n d"]:
        """c_0 ... c_{f-1} of a clip in one causal pass over the start token and all frames but the last."""
        batch, frames = clean.shape[:2]
        start = repeat(self.start_token, "d -> b n d", b=batch, n=self.geometry.tokens_per_frame)
        tokens = torch.cat([start, self.encoder.tokens(clean)[:, : -start.shape[1]]], dim=1)
        emb = self.encoder.modulation(self._clean(batch).expand(-1, frames), actions)
        rope, history = self.encoder.rotation(list(range(frames))), FrameCausal(frames, start.shape[1])
        return self.encoder.normed(self.encoder.through(tokens, emb, rope, history), emb)

    def _prefix_in_training(self, features: Tensor, action: Tensor | None) -> Prefix:
        prefix = Prefix()
        emb = self.decoder.modulation(self._clean(len(features)), action)
        self.decoder.through(features, emb, self.decoder.rotation([0]), prefix.recording())
        return prefix

    def _decoded_frames(self, noisy, sigma, features, actions, prefix) -> Float[Tensor, "b f c h w"]:
        x = rearrange(noisy, "b f c h w -> (b f) 1 c h w")
        emb = self.decoder.modulation(1000 * rearrange(sigma, "b f -> (b f) 1"), actions)
        velocity = self._decoded(self.decoder.tokens(x), features, emb, prefix)
        return rearrange(velocity, "(b f) 1 c h w -> b f c h w", b=len(noisy))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.start_token.dtype

    def describe(self) -> dict:
        """The configuration as plain values, as it is stored beside the weights."""
        return asdict(self.config)


def _within(cond: Tensor | None, frame: int) -> Tensor | None:
    """The condition of a frame; behind the last one, where nothing will be generated, the last one's."""
    if cond is not None and cond.ndim == 2:
        frame = min(frame, cond.shape[1] - 1)
    return condition_of(cond, frame)
