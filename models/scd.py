"""Separable Causal Diffusion: a causal encoder once per frame, a light decoder at every denoising step.

    model = scd.build(scd.config("tiny", conditions=5, fusion="prefix"))
    context = model.encode(frame, context)              # the encoder, all history in its KV cache
    velocity = model.denoise(x, sigma, context)         # the decoder, on [context tokens | noisy tokens]

c_i = Encoder(x_<i, a_<=i), v_i = Decoder(x_i, sigma, c_i) (Bai et al. 2026, section 5). The encoder reads a
learned start token and then the finished frames, each with the action that leads to the next one, so that
the frame count is right from frame 0 on and nothing of frame i is read before it exists.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from framelens.hooks.attention import AttentionPoint
from framelens.models.parts.asking import Queries, disturb
from framelens.models.parts.blocks import HookedRootModule, Rope
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.parts.config import check_conditions, condition_of, preset
from framelens.models.parts.contexts import SCDContext
from framelens.models.parts.fusion import Join, features_of
from framelens.models.parts.history import AllTokens, Prefix
from framelens.models.parts.scd_asking import ask, query_noise, read, read_and_ask
from framelens.models.parts.scd_config import PRESETS as PRESETS
from framelens.models.parts.scd_config import Config as Config
from framelens.models.parts.scd_parallel import decode_clip, read_clip, teacher_forced
from framelens.models.parts.stack import CLEAN_TIMESTEP, Conditioned, Modulations, Stack
from framelens.models.parts.text import TextKeys


def config(name: str, **changes) -> Config:
    """A preset's configuration with changes; an unknown preset raises ValueError with those that exist."""
    return preset(PRESETS, "scd", name, changes)


def build(config: Config | dict) -> "SCD":
    """The network with freshly initialised weights (adaLN-zero)."""
    return SCD(Config.from_values(config) if isinstance(config, dict) else config)


class SCD(HookedRootModule, Conditioned):
    """A causal encoder and a per-frame decoder; hook names begin with `encoder.` and `decoder.`."""

    denoising_stack = "decoder."
    """The hook points that fire in `denoise`: those of the decoder."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.encoder = Stack(config, config.encoder_layers, unembed=False, final=config.fusion != "residual")
        self.decoder = Stack(config, config.decoder_layers, unembed=True)
        self.geometry, width = config.geometry(config.encoder_layers + config.decoder_layers), config.d_model
        self.start_token = nn.Parameter(0.02 * torch.randn(width)) if config.start_token else None
        self.queries, self.join = Queries(config.query, width), Join(config.fusion, width)
        self.setup()

    @property
    def start_is_pass(self) -> bool:
        """`start` runs the encoder, on the start token or asking for frame 0, which the sampler announces."""
        return self.config.start_token or self.asks

    @property
    def asks(self) -> bool:
        """`encode` is two passes, `read` and `ask`, and the sampler announces both."""
        return self.config.asks

    @property
    def disturbed_is_pass(self) -> bool:
        """`disturbed` runs the decoder on the context tokens, which the sampler announces."""
        return self.config.fusion == "prefix"

    @property
    def attn_dict(self) -> dict[str, AttentionPoint]:
        """The encoder sees the start token, then frames; the decoder the context tokens, then the frame."""
        encoder = ("encoder", self.config.encoder_layers, self._encoder_age, None)
        decoder = ("decoder", self.config.decoder_layers, self._decoder_age, self.geometry.tokens_per_frame)
        points = {}
        for stack, layers, age, own_queries in (encoder, decoder):
            for name in (f"{stack}.blocks.{layer}.attn" for layer in range(layers)):
                points[name] = AttentionPoint(self.get_submodule(name), age, own_queries)
        return points

    def _encoder_age(self, frame: int, keys: int) -> Int[Tensor, " k"]:
        starts = int(self.config.start_token)
        place = torch.cat([self.config.reach.past(frame + starts), torch.tensor([frame + starts])])
        age = torch.where((place == 0) & bool(starts), -1, frame + starts - place)
        return age.repeat_interleave(self.geometry.tokens_per_frame)

    def _decoder_age(self, frame: int, keys: int) -> Int[Tensor, " {keys}"]:
        is_context = torch.arange(keys) < keys - self.geometry.tokens_per_frame
        return torch.where(is_context, 1 if frame > 0 else -1, 0)  # the start token stands before frame 0

    def start(self, batch: int, cond: Tensor | None = None) -> SCDContext:
        """A context in which nothing has been seen: the encoder has read its start token.

        cond is actions [b f], labels [b] or a prompt [b t w].
        """
        check_conditions(cond, self.config, batch)
        cond = None if cond is None else cond.to(self.device)
        texts = (self.encoder.text_keys(cond), self.decoder.text_keys(cond))
        cond = cond if self.config.conditions else None
        cache, (_, place) = KVCache(KVStorage(self.config.encoder_layers)), self.places()
        context = SCDContext(0 if self.start_token is None else -1, cache, None, None, cond, place, *texts)
        if self.start_token is None:
            return self.ask(context, batch) if self.asks else context
        tokens = repeat(self.start_token, "d -> b n d", b=batch, n=self.geometry.tokens_per_frame)
        return self._encode_tokens(self.encoder.hook_embed(tokens), context)

    def encode(self, x: Float[Tensor, "b 1 c h w"], context: SCDContext) -> SCDContext:
        """The context after the encoder has read this finished frame, and the action to the next one."""
        if self.asks:
            return read_and_ask(self, x, context)
        cache = context.cache.for_appending()
        return self._encode_tokens(self.encoder.tokens(x), replace(context, cache=cache, modulations=None))

    def _encode_tokens(self, tokens: Tensor, context: SCDContext) -> SCDContext:
        """The context for the next frame, from the tokens of the one before it."""
        frame, n = context.frame + 1, self.geometry.tokens_per_frame
        inputs = self.inputs(self.clean(len(tokens)), [frame], context)
        features = features_of(self.encoder, self.config, tokens, *inputs)
        cache = context.cache.append(n).within(self.config.reach, n)
        return self.with_features(features, replace(context, frame=frame, cache=cache))

    read, ask, query_noise = read, ask, query_noise

    def inputs(
        self, timestep: Float[Tensor, "b f"], frames: Sequence[int], context: SCDContext
    ) -> tuple[Modulations, Rope, KVCache, TextKeys | None]:
        """What the encoder's blocks are given beside the tokens of these frames."""
        conds = [_within(context.cond, frame) for frame in frames]
        actions = None if context.cond is None else torch.cat([cond for cond in conds if cond is not None], 1)
        rope = self.encoder.rotation([*frames])
        return self.encoder.modulations(timestep, actions), rope, context.cache, context.encoder_text

    def with_features(self, features: Float[Tensor, "b n d"], context: SCDContext) -> SCDContext:
        """The context with these features; for the prefix fusion the decoder reads them, once per frame."""
        prefix = None
        if self.config.fusion == "prefix":
            cache = KVCache(KVStorage(self.config.decoder_layers, least=2 * features.shape[1]))
            action = _within(context.cond, context.frame)
            modulations = self.decoder.modulations(self.clean(len(features)), action)
            self.decoder.through(features, modulations, context.place, cache, context.decoder_text)
            prefix = cache.append(features.shape[1])
        return replace(context, features=features, prefix=prefix)

    def disturbed(self, context: SCDContext, strength: float, generator: torch.Generator) -> SCDContext:
        """The context with noise of that strength on its features: c + eta zeta (Bai et al. 2026, eq. 7).

        As a negative context it guides away from a past that is not quite known.
        """
        if context.features is None:
            return context
        return self.with_features(disturb(context.features, strength, generator), context)

    def at_steps(self, sigmas: Float[Tensor, " s"], context: SCDContext) -> Iterator[SCDContext]:
        """The context at each step of a sampler with these noise levels, all modulated at once."""
        modulations = self.decoder.modulations_of_steps(sigmas, condition_of(context.cond, context.frame))
        return (replace(context, modulations=modulations.at(step)) for step in range(len(sigmas)))

    def denoise(
        self, x: Float[Tensor, "b 1 c h w"], sigma: Float[Tensor, " b"], context: SCDContext
    ) -> Float[Tensor, "b 1 c h w"]:
        """The velocity of the current frame at noise level sigma: the decoder alone."""
        if context.features is None:
            raise ValueError("this model has no start token, so frame 0 cannot be generated: give it")
        action = condition_of(context.cond, context.frame)
        modulations = context.modulations or self.decoder.modulations(1000 * sigma[:, None], action)
        noisy, text = self.decoder.tokens(x), context.decoder_text
        return self.decode(noisy, context.features, modulations, context.place, context.prefix, text)

    forward = denoise

    def decode(
        self,
        noisy: Float[Tensor, "b n d"],
        features: Float[Tensor, "b n d"],
        modulations: Modulations,
        place: tuple[Tensor, Tensor],
        prefix: KVCache | Prefix | None,
        text: TextKeys | None,
    ) -> Float[Tensor, "b 1 c h w"]:
        """The velocity of each frame from its noisy tokens and its context tokens, or their prefix."""
        history, through = AllTokens() if prefix is None else prefix, self.decoder.through
        head = self.config.head if self.config.fusion == "residual" else 0
        tokens = through(noisy, modulations, place, history, text, range(head)) if head else noisy
        tokens = tokens if self.config.fusion == "prefix" else self.join(tokens, features)
        tokens = through(tokens, modulations, place, history, text, range(head, self.config.decoder_layers))
        return self.decoder.velocity(tokens[:, -noisy.shape[1] :], modulations)

    def teacher_forced(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b kf c h w"],
        sigma: Float[Tensor, "b kf"],
        cond: Tensor | None = None,
    ) -> Float[Tensor, "b kf c h w"]:
        """The velocity of every noisy frame given its clean past: encoder once, decoder on each frame.

        `noisy` may hold k noise levels of the clip, one after the other: the encoder still runs once. In
        training mode the features carry noise of strength `context_noise` (equation 7).
        """
        check_conditions(cond, self.config, len(clean))
        return teacher_forced(self, clean, noisy, sigma, cond)

    read_clip, decode_clip = read_clip, decode_clip

    def places(self) -> list[tuple[Tensor, Tensor]]:
        """RoPE tables of the context tokens and of the decoder's input; every frame stands at place 0."""
        alone = self.decoder.rotation([0])
        return [alone, self.join.places(alone)]

    def clean(self, batch: int) -> Float[Tensor, "{batch} 1"]:
        """The timestep of finished frames."""
        return torch.full((batch, 1), CLEAN_TIMESTEP, device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.encoder.dtype


def _within(cond: Tensor | None, frame: int) -> Tensor | None:
    """The condition of a frame. After the last frame, where nothing is generated, that of the last frame."""
    if cond is not None and cond.ndim == 2:
        frame = min(frame, cond.shape[1] - 1)
    return condition_of(cond, frame)
