"""What a token may see: the KV cache of frame-by-frame passes, and the two streams of a training pass.

Both answer `attend(layer, q, k, v)` with [b h n d] tensors; attention itself need not know which it has.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor


@runtime_checkable
class History(Protocol):
    """What attention asks: the result for the queries of one layer, and nothing about who sees whom."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the current tokens over those they may see."""
        ...


@dataclass
class KVStorage:
    """Preallocated keys and values of every layer, [b h capacity d]; grows by doubling.

    Owned by the contexts that share it. `written` counts the tokens of the newest of them.
    """

    layers: int
    written: int = 0
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def reserve(self, k: Tensor, tokens: int) -> None:
        """Room for that many tokens, for keys and values shaped like k [b h n d]."""
        capacity = self.keys[0].shape[2] if self.keys else 0
        if capacity >= tokens:
            return
        capacity = max(tokens, 2 * capacity)
        old = (self.keys, self.values)
        self.keys, self.values = (
            [k.new_empty(*k.shape[:2], capacity, k.shape[3]) for _ in range(self.layers)] for _ in range(2)
        )
        for fresh, stale in zip((self.keys, self.values), old, strict=True):
            for layer, tensor in enumerate(stale):
                fresh[layer][:, :, : self.written] = tensor[:, :, : self.written]


@dataclass(frozen=True)
class KVCache:
    """The first `tokens` keys and values of a storage: a value, whoever else appends to the storage.

    The newest cache of a storage writes the current tokens behind its own in place, so that a denoising
    step copies no history; an older one, whose place is taken, falls back to concatenation.
    """

    storage: KVStorage
    tokens: int = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the current tokens [b h n d] over the history and themselves."""
        return F.scaled_dot_product_attention(q, *self.with_current(layer, k, v))

    def with_current(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [b h k d] of the history followed by the current tokens."""
        end = self.tokens + k.shape[2]
        if self.tokens < self.storage.written:
            past = slice(0, self.tokens)
            keys, values = self.storage.keys[layer][:, :, past], self.storage.values[layer][:, :, past]
            return torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        self.storage.reserve(k, end)
        for store, new in ((self.storage.keys, k), (self.storage.values, v)):
            store[layer][:, :, self.tokens : end] = new
        return self.storage.keys[layer][:, :, :end], self.storage.values[layer][:, :, :end]

    def for_appending(self) -> "KVCache":
        """This cache, on a storage of its own where another has already appended to the shared one."""
        if self.tokens == self.storage.written:
            return self
        own = KVStorage(self.storage.layers, self.tokens)
        own.keys, own.values = (
            [tensor[:, :, : self.tokens].clone() for tensor in tensors]
            for tensors in (self.storage.keys, self.storage.values)
        )
        return KVCache(own, self.tokens)

    def appended(self, tokens: int) -> "KVCache":
        """The cache after a pass wrote that many tokens behind it."""
        self.storage.written = self.tokens + tokens
        return KVCache(self.storage, self.storage.written)


@dataclass(frozen=True)
class CleanThenNoisy:
    """Teacher forcing in one pass over [clean frames | noisy frames]: who may look at whom.

    A clean frame sees the clean frames up to itself; a noisy frame sees the earlier clean ones and itself.
    On a CPU the frames are taken one by one, on just the keys they see and without the fused kernel, whose
    backward pass is slow on small frames there: a third of the time of one masked call. On a GPU one masked
    call is faster.
    """

    frames: int
    tokens_per_frame: int

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d], n = (2 frames tokens_per_frame)."""
        if q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(q.device))
        n, middle, out = self.tokens_per_frame, q.shape[2] // 2, ([], [])
        for start in range(0, middle, n):
            own, noisy = slice(start, start + n), slice(middle + start, middle + start + n)
            upto = slice(0, start + n)
            out[0].append(_explicit_attention(q[:, :, own], k[:, :, upto], v[:, :, upto]))
            seen = (torch.cat([part[:, :, :start], part[:, :, noisy]], dim=2) for part in (k, v))
            out[1].append(_explicit_attention(q[:, :, noisy], *seen))
        return torch.cat(out[0] + out[1], dim=2)

    def mask(self, device: torch.device) -> Bool[Tensor, "n n"]:
        """True where a query (first axis) sees a key."""
        order = torch.arange(self.frames, device=device)
        past, same = order[None] < order[:, None], order[None] == order[:, None]
        nobody = torch.zeros_like(past)
        mask = torch.cat([torch.cat([past | same, nobody], dim=1), torch.cat([past, same], dim=1)])
        return mask.repeat_interleave(self.tokens_per_frame, 0).repeat_interleave(self.tokens_per_frame, 1)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Fused attention; in training on a CPU the explicit one, as in CleanThenNoisy."""
    if q.device.type == "cpu" and q.requires_grad:
        return _explicit_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return scores.float().softmax(dim=-1).to(v.dtype) @ v


@dataclass(frozen=True)
class FrameCausal:
    """A clip in one pass: each frame sees itself and the frames before it."""

    frames: int
    tokens_per_frame: int

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d]; frame by frame on a CPU, as in CleanThenNoisy."""
        if q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask(q.device))
        out = []
        for end in range(self.tokens_per_frame, q.shape[2] + 1, self.tokens_per_frame):
            own = slice(end - self.tokens_per_frame, end)
            out.append(_explicit_attention(q[:, :, own], k[:, :, :end], v[:, :, :end]))
        return torch.cat(out, dim=2)

    def mask(self, device: torch.device) -> Bool[Tensor, "n n"]:
        """True where a query (first axis) sees a key."""
        frame = torch.arange(self.frames, device=device).repeat_interleave(self.tokens_per_frame)
        return frame[None] <= frame[:, None]


@dataclass(frozen=True)
class Together:
    """All tokens of a pass see each other, and nothing else."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d]."""
        return _attention(q, k, v)


@dataclass(frozen=True)
class Prefix:
    """Keys and values of context tokens, layer by layer, seen by the tokens of later passes.

    As a KVCache, but nothing is written in place, so that gradients flow through it.
    """

    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def recording(self) -> "Recording":
        """The history of the pass over the context tokens themselves."""
        return Recording(self)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the current tokens over the context tokens and themselves."""
        keys, values = self.layers[layer]
        return _attention(q, torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2))


@dataclass(frozen=True)
class Recording(Together):
    """Tokens that see each other, and whose keys and values a Prefix keeps."""

    prefix: Prefix

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d]."""
        self.prefix.layers[layer] = (k, v)
        return super().attend(layer, q, k, v)
