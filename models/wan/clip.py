"""Attention in one pass over a whole clip, chunk by chunk, without a mask.

Each chunk's queries get only the keys that they see, so no tensor of tokens squared exists and any kernel
works.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from framelens.models.parts.history import Reach

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
