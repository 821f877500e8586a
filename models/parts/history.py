"""Which tokens a token may see in a pass over several frames, and how far back a frame sees.

Each class here, like the KV cache of frame-by-frame passes, has `attend(layer, q, k, v)` with [b h n d]
tensors. An attention module works with any of them.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Reach:
    """How far back a frame sees: all of the past, or a sliding window and the first frames (sink)."""

    window: int | None = None
    """Frames before the current one that it sees; None for all."""
    sink: int = 0
    """First frames of the sequence that stay in view; SCD's start token counts as the first."""

    def __post_init__(self):
        if self.window is not None and self.window < 1:
            raise ValueError(
                f"a window must be at least 1 frame, got {self.window}; None sees all of the past"
            )
        if self.sink < 0:
            raise ValueError(f"sink must be 0 or more first frames, got {self.sink}")

    def spans(self, frame: int) -> list[tuple[int, int]]:
        """The past frames that a frame sees, as (first, end) spans in order."""
        if self.window is None:
            return [(0, frame)] if frame else []
        sink = min(self.sink, frame)
        recent = max(sink, frame - self.window)
        spans = [(0, frame)] if recent == sink else [(0, sink), (recent, frame)]
        return [(first, end) for first, end in spans if end > first]

    def past(self, frame: int) -> Int[Tensor, " seen"]:
        """The numbers of the past frames that a frame sees, in order."""
        return torch.tensor(
            [i for first, end in self.spans(frame) for i in range(first, end)], dtype=torch.long
        )

    def sees(self, frames: int, device: torch.device) -> Bool[Tensor, "{frames} {frames}"]:
        """True where a frame (first axis) sees an earlier one (second axis)."""
        order = torch.arange(frames, device=device)
        query, key = order[:, None], order[None]
        if self.window is None:
            return key < query
        return (key < query) & ((key >= query - self.window) | (key < self.sink))


@runtime_checkable
class History(Protocol):
    """What an attention module needs of the past: the attention of one layer's queries."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the current tokens over those they may see."""
        ...


@dataclass(frozen=True)
class CleanThenNoisy:
    """Teacher forcing in one pass over [clean frames | noisy frames]: which frame sees which.

    A clean frame sees the clean frames up to itself; a noisy frame sees the earlier clean ones and itself.
    On a CPU each frame attends separately, to the keys it sees only, and without the fused kernel, whose
    backward pass is slow there on small frames. This takes a third of the time of one masked call. On a GPU
    one masked call is faster.
    """

    frames: int
    tokens_per_frame: int
    reach: Reach = Reach()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d], n = (2 frames tokens_per_frame)."""
        if q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(q.device))
        n, frames, out = self.tokens_per_frame, self.frames, []
        for frame in range(2 * frames):
            spans = [*self.reach.spans(frame % frames), (frame, frame + 1)]
            out.append(_explicit_attention(*_of_frames(q, k, v, frame, spans, n)))
        return torch.cat(out, dim=2)

    def mask(self, device: torch.device) -> Bool[Tensor, "n n"]:
        """True where a query (first axis) sees a key."""
        past, same = self.reach.sees(self.frames, device), torch.eye(self.frames, device=device).bool()
        none = torch.zeros_like(past)
        mask = torch.cat([torch.cat([past | same, none], dim=1), torch.cat([past, same], dim=1)])
        return mask.repeat_interleave(self.tokens_per_frame, 0).repeat_interleave(self.tokens_per_frame, 1)


def _of_frames(
    q: Tensor, k: Tensor, v: Tensor, frame: int, spans: list[tuple[int, int]], n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A frame's queries, and the keys and values of the frames in those spans."""
    merged: list[tuple[int, int]] = []
    for first, end in spans:
        if merged and merged[-1][1] == first:
            first = merged.pop()[0]
        merged.append((first, end))
    seen = [slice(first * n, end * n) for first, end in merged]
    k, v = (part[:, :, seen[0]] if len(seen) == 1 else torch.cat([part[:, :, s] for s in seen], dim=2)
            for part in (k, v))  # fmt: skip
    return q[:, :, frame * n : (frame + 1) * n], k, v


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Fused attention; in training on a CPU explicit attention, as in CleanThenNoisy."""
    if q.device.type == "cpu" and q.requires_grad:
        return _explicit_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return scores.float().softmax(dim=-1).to(v.dtype) @ v


@dataclass(frozen=True)
class FrameCausal:
    """One pass over a clip: each frame sees itself and the frames before it."""

    frames: int
    tokens_per_frame: int
    reach: Reach = Reach()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d]; frame by frame on a CPU, as in CleanThenNoisy."""
        if q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(q.device))
        n, out = self.tokens_per_frame, []
        for frame in range(self.frames):
            spans = [*self.reach.spans(frame), (frame, frame + 1)]
            out.append(_explicit_attention(*_of_frames(q, k, v, frame, spans, n)))
        return torch.cat(out, dim=2)

    def mask(self, device: torch.device) -> Bool[Tensor, "n n"]:
        """True where a query (first axis) sees a key."""
        mask = self.reach.sees(self.frames, device) | torch.eye(self.frames, device=device).bool()
        return mask.repeat_interleave(self.tokens_per_frame, 0).repeat_interleave(self.tokens_per_frame, 1)


@dataclass(frozen=True)
class AllTokens:
    """All tokens of a pass see each other, and nothing else."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d]."""
        return _attention(q, k, v)


@dataclass(frozen=True)
class Alone:
    """The chunks of a pass: the tokens of each see each other, and nothing else."""

    tokens: int
    """Tokens of a chunk."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d], n = (chunk token)."""
        chunks = q.shape[2] // self.tokens
        own = (rearrange(part, "b h (c n) d -> (b c) h n d", c=chunks) for part in (q, k, v))
        return rearrange(_attention(*own), "(b c) h n d -> b h (c n) d", c=chunks)


@dataclass(frozen=True)
class Prefix:
    """Keys and values of context tokens by layer; the tokens of later passes see them.

    It is like a KVCache, but nothing is written in place, so gradients flow through it.
    """

    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def recording(self) -> "PrefixRecording":
        """The history of the pass over the context tokens themselves."""
        return PrefixRecording(self)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the current tokens over the context tokens and themselves."""
        keys, values = self.layers[layer]
        return _attention(q, torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2))


@dataclass(frozen=True)
class PrefixRecording(AllTokens):
    """Tokens that see each other; a Prefix keeps their keys and values."""

    prefix: Prefix

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d]."""
        self.prefix.layers[layer] = (k, v)
        return super().attend(layer, q, k, v)
