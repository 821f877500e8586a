"""The KV cache of frame-by-frame passes: preallocated, and yet a value."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from models._history import Reach


@dataclass
class KVStorage:
    """Preallocated keys and values of every layer, [b h capacity d]; grows by doubling.

    Owned by the contexts that share it. `written` counts the tokens of the newest of them.
    """

    layers: int
    written: int = 0
    least: int = 0
    """Tokens to have room for from the start."""
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def reserve(self, k: Tensor, tokens: int) -> None:
        """Room for that many tokens, for keys and values shaped like k [b h n d]."""
        capacity = self.keys[0].shape[2] if self.keys else 0
        if capacity >= tokens:
            return
        capacity = max(tokens, 2 * capacity, self.least)
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

    def within(self, reach: Reach, tokens_per_frame: int) -> "KVCache":
        """The cache without what no later frame has in view, so that a bounded history takes bounded room.

        Whoever holds this cache keeps it: what stays is copied to a storage of its own, once per frame.
        """
        if reach.window is None or self.tokens <= (reach.sink + reach.window) * tokens_per_frame:
            return self
        last = self.tokens - reach.window * tokens_per_frame
        kept = [slice(0, reach.sink * tokens_per_frame), slice(last, self.tokens)]
        own = KVStorage(self.storage.layers, (reach.sink + reach.window) * tokens_per_frame)
        for new, old in ((own.keys, self.storage.keys), (own.values, self.storage.values)):
            for tensor in old:
                room = tensor.new_empty(*tensor.shape[:2], own.written + tokens_per_frame, tensor.shape[3])
                room[:, :, : own.written] = torch.cat([tensor[:, :, part] for part in kept], dim=2)
                new.append(room)
        return KVCache(own, own.written)
