"""Whole clips in one pass, chunk by chunk: who may look at whom, without a mask.

Each chunk's queries are taken with just the keys they see, so that nothing as large as tokens squared is made
and any kernel serves.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from framelens.models.parts.history import Reach

Span = tuple[int, int]


@dataclass(frozen=True)
class ByChunk:
    """Attention of a pass over several chunks; `seen[i]` are the spans of frames that chunk i looks at."""

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
    """A clip in which each chunk sees itself and those before it; ValueError if it is not whole chunks."""
    if frames % chunk:
        raise ValueError(f"the model takes {chunk} frames at a time; a clip of {frames} does not fit")
    seen = [(*reach.spans(first), (first, first + chunk)) for first in range(0, frames, chunk)]
    return ByChunk(chunk, tokens_per_frame, tuple(seen))


def clean_then_noisy(frames: int, chunk: int, tokens_per_frame: int, reach: Reach) -> ByChunk:
    """[clean clip | noisy clip], in which a noisy chunk sees the clean past and itself (teacher forcing)."""
    clean = causal(frames, chunk, tokens_per_frame, reach).seen
    noisy = tuple((*spans, (first + frames, end + frames)) for *spans, (first, end) in clean)
    return ByChunk(chunk, tokens_per_frame, clean + noisy)
