"""FAR-Long's network: a causal diffusion transformer over a fine recent and a coarse far past.

The newest `short_frames` frames, the current one included, are patches as in FAR (timestep -1 if finished).
Older frames are patches four times as wide and high, with their own projections (timestep -2). Attention is
frame-causal over both, and positions count fine patches and frames from 0, so a coarse frame's keys and
values never change. Those of the fine frames change each time a frame becomes coarse: `encode` then runs all
fine frames again, as the released code does, and equals that code's pass over all frames.

In such a pass the hook points hold [a coarse frame | fine frames], the current frame last, and instruments
of attention see only the queries of the current frame.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from framelens.models.far_long.blocks import LongBlock, Recoding
from framelens.models.parts.blocks import Rope
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.parts.cached_stack import CachedStack
from framelens.models.parts.config import StackConfig, check_conditions, condition_of
from framelens.models.parts.released import SAMPLING
from framelens.models.parts.stack import CLEAN_TIMESTEP, Modulations, patches

COARSE_TIMESTEP = 2 * CLEAN_TIMESTEP


@dataclass(frozen=True, kw_only=True)
class Config(StackConfig):
    """The settings that rebuild a network; stored beside its weights."""

    layers: int
    context_patch: int = 4
    """Side of a coarse patch, in latent pixels."""
    short_frames: int = 16
    """Number of newest frames at full resolution, the current one included."""

    def __post_init__(self):
        super().__post_init__()
        if self.window is not None or self.sink or self.text_tokens:
            raise ValueError(
                "FAR-Long sees all of the past and no text: it has no window, sink or text_tokens"
            )
        if self.short_frames < 1:
            raise ValueError(f"short_frames must be at least 1, got {self.short_frames}")
        sides = (self.height, self.width)
        if self.context_patch % self.patch or any(side % self.context_patch for side in sides):
            raise ValueError(
                f"coarse patches of {self.context_patch} must be a multiple of patch {self.patch} and divide "
                f"a frame of {self.height} x {self.width}"
            )

    @property
    def coarse_tokens(self) -> int:
        """Number of tokens in a coarse frame."""
        return (self.height // self.context_patch) * (self.width // self.context_patch)


@dataclass(frozen=True)
class LongContext:
    """The context: keys and values as (coarse frames, fine frames), and the frames still fine."""

    frame: int
    cache: KVCache
    rope: Rope
    cond: Tensor | None
    recent: Float[Tensor, "b f c h w"] | None = None
    """The newest finished frames, at most short_frames - 1 of them; None before the first."""
    modulations: Modulations | None = None
    """Modulations of the current denoising step, if the sampler prepared its steps."""
    text: ClassVar[None] = None
    """The network reads no prompt."""


class FarLong(CachedStack):
    """A frame-causal DiT whose recent past is fine and whose far past is coarse."""

    sampling = SAMPLING

    def __init__(self, config: Config):
        super().__init__(config, config.layers, unembed=True)
        self.config: Config = config
        width, inner, last = config.d_model, config.mlp_width or 4 * config.d_model, config.layers - 1
        coarse_values = config.channels * config.context_patch**2
        self.blocks = nn.ModuleList(
            LongBlock(width, config.heads, inner, layer == last) for layer in range(config.layers)
        )
        self.context_embed = nn.Linear(coarse_values, width)
        self.context_unembed = nn.Linear(width, coarse_values)
        """Trained with the rest but not used: nothing needs the velocity of a coarse frame."""
        self._initialise()
        nn.init.zeros_(self.context_unembed.weight)
        self.setup()

    def _key_age(self, frame: int, keys: int) -> Int[Tensor, " k"]:
        """Of frame + 1 frames, of which as many are coarse as the number of keys says."""
        fine, coarse = self.geometry.tokens_per_frame, self.config.coarse_tokens
        missing = (frame + 1) * fine - keys
        far = missing // (fine - coarse) if missing else 0
        tokens = torch.tensor([coarse] * far + [fine] * (frame + 1 - far))
        return torch.arange(frame, -1, -1).repeat_interleave(tokens)

    def start(self, batch: int, cond: Tensor | None = None) -> LongContext:
        """A context in which nothing has been seen; cond is actions [b f]."""
        check_conditions(cond, self.config, batch)
        cond = None if self.condition is None or cond is None else cond.to(self.device)
        return LongContext(0, KVCache(KVStorage(len(self.blocks))), self.rotation([0]), cond)

    def encode_by(
        self, x: Float[Tensor, "b 1 c h w"], context: LongContext, layers: range | None
    ) -> LongContext:
        """The context with this finished frame; if a frame becomes coarse, the fine frames run again.

        `layers` are those that run and remember; None for all.
        """
        frame, past = context.frame + 1, [] if context.recent is None else [context.recent]
        seen = torch.cat([*past, x], dim=1)
        if frame < self.config.short_frames:
            cache = self._append_frame(x, context, layers)
        else:
            cache, seen = self._recode(seen, context, layers), seen[:, 1:]
        return LongContext(frame, cache, self.rotation([frame]), context.cond, seen)

    def _append_frame(
        self, x: Float[Tensor, "b 1 c h w"], context: LongContext, layers: range | None
    ) -> KVCache:
        """The cache with one more fine frame."""
        cache, clean = context.cache.for_appending(), x.new_full((len(x), 1), CLEAN_TIMESTEP)
        modulations = self.modulations(clean, condition_of(context.cond, context.frame))
        self.through(self.tokens(x), modulations, context.rope, cache, None, layers)
        return cache.append(self.geometry.tokens_per_frame)

    def _recode(
        self, seen: Float[Tensor, "b f c h w"], context: LongContext, layers: range | None
    ) -> KVCache:
        """The cache after the first of these frames became coarse and the others were encoded after it."""
        fine, coarse, count = self.geometry.tokens_per_frame, self.config.coarse_tokens, seen.shape[1]
        numbers = list(range(context.frame + 1 - count, context.frame + 1))
        sizes = torch.tensor([coarse] + [fine] * (count - 1))
        far, new = coarse * numbers[0], int(sizes.sum())
        cache = _first_tokens(context.cache, far, room=far + new + fine)
        history = Recoding(cache, tuple(sizes.cumsum(0).tolist()))
        tokens = self.hook_embed(
            torch.cat([self._embed_coarse(seen[:, :1]), self._embed_fine(seen[:, 1:])], dim=1)
        )
        modulations, rope = self._modulations_of(numbers, len(seen), context.cond), self._rotation(numbers)
        owner = torch.arange(count).repeat_interleave(sizes).to(self.device)
        for layer in range(len(self.blocks)) if layers is None else layers:
            one, two = modulations.blocks[layer]
            tokens = self.blocks[layer](tokens, (one[:, owner], two[:, owner]), rope, history, layer)
        return cache.append(new)

    def _modulations_of(self, numbers: list[int], batch: int, cond: Tensor | None) -> Modulations:
        """Modulations of a coarse frame and of the fine frames after it."""
        timestep = torch.full((batch, len(numbers)), CLEAN_TIMESTEP, device=self.device)
        timestep[:, 0] = COARSE_TIMESTEP
        if cond is None:
            return self.modulations(timestep, None)
        each = [condition_of(cond, number) for number in numbers]
        return self.modulations(timestep, torch.cat([own for own in each if own is not None], dim=1))

    def _embed_coarse(self, x: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
        return self.context_embed(patches(x, self.config.context_patch).to(self.dtype))

    def _embed_fine(self, x: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b n d"]:
        return self.embed(patches(x, self.config.patch).to(self.dtype))

    def _rotation(self, numbers: list[int]) -> Rope:
        """RoPE tables of a coarse frame, then fine ones; a coarse token has its first fine patch's place."""
        g, ratio = self.geometry, self.config.context_patch // self.config.patch
        cos, sin = self.rotation(numbers)
        places = torch.arange(len(cos), device=self.device)
        first = places[: g.tokens_per_frame].view(g.rows, g.cols)[::ratio, ::ratio].flatten()
        kept = torch.cat([first, places[g.tokens_per_frame :]])
        return cos[kept], sin[kept]


def _first_tokens(cache: KVCache, tokens: int, room: int) -> KVCache:
    """The first `tokens` tokens of a cache, on a new storage with capacity for `room` tokens."""
    old = cache.storage
    keys, values = ([tensor[:, :, :tokens] for tensor in tensors] for tensors in (old.keys, old.values))
    return KVCache(KVStorage(old.layers, tokens, room, keys, values), tokens)
