"""Passes over a whole clip, with attention chunk by chunk and without a mask.

Each chunk's queries get only the keys that they see, so no tensor of tokens squared exists and any kernel
works.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import Geometry
from framelens.diffusion.layers import LayerInputs
from framelens.models.parts.history import Alone, History, Reach

CLEAN_TIMESTEP = 0.0
"""Timestep at which finished frames are read (Self-Forcing and later models; SkyReels)."""
Span = tuple[int, int]


@dataclass(frozen=True)
class ByChunk:
    """Attention of a pass over several chunks; `seen[i]` are the spans of frames that chunk i sees."""

    frames_per_chunk: int
    tokens_per_frame: int
    seen: tuple[tuple[Span, ...], ...]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d], n = (frame row col)."""
        n, out = self.tokens_per_frame, []
        for queries, spans in zip(q.split(self.frames_per_chunk * n, dim=2), self.seen, strict=True):
            keys, values = (
                torch.cat([part[:, :, first * n : end * n] for first, end in spans], dim=2) for part in (k, v)
            )
            out.append(F.scaled_dot_product_attention(queries, keys, values))
        return torch.cat(out, dim=2)


def causal(frames: int, chunk: int, tokens_per_frame: int, reach: Reach) -> ByChunk:
    """Each chunk sees itself and the chunks before it; ValueError if a clip is not whole chunks."""
    if frames % chunk:
        raise ValueError(f"a clip of {frames} does not fit: its length must be a multiple of {chunk} frames")
    seen = [(*reach.spans(first), (first, first + chunk)) for first in range(0, frames, chunk)]
    return ByChunk(chunk, tokens_per_frame, tuple(seen))


def clean_then_noisy(frames: int, chunk: int, tokens_per_frame: int, reach: Reach) -> ByChunk:
    """Teacher forcing over [clean clip | noisy clip]: a noisy chunk sees the clean past and itself."""
    clean = causal(frames, chunk, tokens_per_frame, reach).seen
    noisy = tuple((*spans, (first + frames, end + frames)) for *spans, (first, end) in clean)
    return ByChunk(chunk, tokens_per_frame, clean + noisy)


class ClipPasses:
    """The passes of a Wan network over whole clips; each chunk sees others as the history says."""

    config: Any
    geometry: Geometry
    null_condition: Tensor
    device: Any
    tokens: Callable[..., Tensor]
    modulations: Callable[..., Any]
    rotation: Callable[..., Any]
    text_keys: Callable[..., Any]
    through: Callable[..., Tensor]
    velocity: Callable[..., Tensor]

    def denoise_clip(
        self, x: Float[Tensor, "b f c h w"], sigma: Float[Tensor, "b f"], cond: Tensor | None = None
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity of a clip in one pass; each chunk sees itself and the earlier chunks of x."""
        frames, g = x.shape[1], self.geometry
        history = causal(frames, g.frames_per_chunk, g.tokens_per_frame, self.config.reach)
        entered = self._enter_frames(x, 1000 * sigma, list(range(frames)), history, cond)
        return self.velocity(self.through(*entered), entered.modulations)

    def teacher_forced(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b f c h w"],
        sigma: Float[Tensor, "b f"],
        cond: Tensor | None = None,
    ) -> Float[Tensor, "b f c h w"]:
        """The velocity of every noisy chunk given its clean past, in one pass over [clean | noisy]."""
        entered = self.enter_clip(clean, noisy, sigma, cond)
        return self.velocity(self.through(*entered), entered.modulations)[:, clean.shape[1] :]

    def enter_clip(
        self,
        clean: Float[Tensor, "b f c h w"],
        noisy: Float[Tensor, "b f c h w"],
        sigma: Float[Tensor, "b f"],
        cond: Tensor | None = None,
    ) -> LayerInputs:
        """What the layers are given in a pass over [clean | noisy]; see models/parts/clip_layers.py."""
        frames, g = clean.shape[1], self.geometry
        history = clean_then_noisy(frames, g.frames_per_chunk, g.tokens_per_frame, self.config.reach)
        timestep = torch.cat([torch.full_like(sigma, CLEAN_TIMESTEP), 1000 * sigma], dim=1)
        x = torch.cat([clean, noisy], dim=1)
        return self._enter_frames(x, timestep, list(range(frames)) * 2, history, cond)

    def enter_alone(
        self,
        noisy: Float[Tensor, "b kf c h w"],
        sigma: Float[Tensor, "b kf"],
        frames: int,
        cond: Tensor | None = None,
    ) -> LayerInputs:
        """What the layers are given in a pass over chunks that see themselves only."""
        g, numbers = self.geometry, list(range(frames)) * (noisy.shape[1] // frames)
        history = Alone(g.frames_per_chunk * g.tokens_per_frame)
        return self._enter_frames(noisy, 1000 * sigma, numbers, history, cond)

    def _enter_frames(
        self, x: Tensor, timestep: Tensor, frames: list[int], history: History, cond: Tensor | None
    ) -> LayerInputs:
        """The tokens of frames x with these numbers, and what the layers are given beside."""
        cond = self.null_condition.expand(len(x), -1, -1) if cond is None else cond
        modulations, text = self.modulations(timestep.to(self.device)), self.text_keys(len(x), cond)
        return LayerInputs(self.tokens(x), modulations, self.rotation(frames), history, text)
