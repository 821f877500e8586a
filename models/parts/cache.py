"""The KV cache of frame-by-frame passes: a value, although its memory is preallocated and shared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from framelens.models.parts.history import History, Reach


@dataclass
class KVStorage:
    """Preallocated keys and values of every layer, [b h capacity d]; grows by doubling.

    Each layer's tensors are on that layer's device and in its dtype. Several contexts share one storage;
    `written` counts the tokens of the newest of them.
    """

    layers: int
    written: int = 0
    least: int = 0
    """Least capacity in tokens, reserved from the start."""
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def reserve(self, k: Tensor, tokens: int) -> None:
        """Reserves room for that many tokens in every layer; an empty layer gets tensors like k [b h n d]."""
        for layer in range(self.layers):
            kept = self.keys[layer] if self.keys else k
            self.reserve_layer(layer, kept if kept.shape[2] else k, tokens)

    def reserve_layer(self, layer: int, k: Tensor, tokens: int) -> None:
        """Reserves room for that many tokens in one layer, on k's device, with k's shape [b h n d]."""
        if not self.keys:
            self.keys, self.values = (
                [k.new_empty(*k.shape[:2], 0, k.shape[3])] * self.layers for _ in range(2)
            )
        capacity = self.keys[layer].shape[2]
        if capacity >= tokens:
            return
        capacity = max(tokens, 2 * capacity, self.least)
        for tensors in (self.keys, self.values):
            fresh, stale = k.new_empty(*k.shape[:2], capacity, k.shape[3]), tensors[layer]
            if stale.shape[2]:
                fresh[:, :, : self.written] = stale[:, :, : self.written]
            tensors[layer] = fresh


@dataclass(frozen=True)
class KVCache:
    """The first `tokens` keys and values of a storage; they stay the same when others append to it.

    The newest cache of a storage writes the current tokens in place, after its own, so a denoising step
    copies no history. An older cache, whose next places are in use, concatenates instead.
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
            keys, values = self.past(layer)
            return torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        self.storage.reserve_layer(layer, k, end)
        for store, new in ((self.storage.keys, k), (self.storage.values, v)):
            store[layer][:, :, self.tokens : end] = new
        return self.storage.keys[layer][:, :, :end], self.storage.values[layer][:, :, :end]

    def past(self, layer: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Keys and values [b h k d] of that layer's history from token `first` on."""
        kept = slice(first, self.tokens)
        return self.storage.keys[layer][:, :, kept], self.storage.values[layer][:, :, kept]

    def replace_attention(self, attend: "Attending", cut: int) -> History:
        """The history that attends by `attend` instead; see `Cached`."""
        return attend(self, cut, 0)

    def for_appending(self) -> "KVCache":
        """This cache, on its own storage if another cache has already appended to the shared one."""
        if self.tokens == self.storage.written:
            return self
        own = KVStorage(self.storage.layers, self.tokens)
        own.keys, own.values = (
            [tensor[:, :, : self.tokens].clone() for tensor in tensors]
            for tensors in (self.storage.keys, self.storage.values)
        )
        return KVCache(own, self.tokens)

    def append(self, tokens: int) -> "KVCache":
        """The cache with the tokens that the last pass wrote after it; `tokens` is their number."""
        self.storage.written = self.tokens + tokens
        return KVCache(self.storage, self.storage.written)

    def widen(self, rows: int) -> "KVCache":
        """The cache of one clip for `rows` rows, which share its keys and values without a copy.

        Passes do not write after it: each one concatenates the history, one layer at a time.
        """
        own = KVStorage(self.storage.layers, self.tokens + 1)
        own.keys, own.values = (
            [tensor[:, :, : self.tokens].expand(rows, -1, -1, -1) for tensor in tensors]
            for tensors in (self.storage.keys, self.storage.values)
        )
        return KVCache(own, self.tokens)

    def narrow(self, rows: int, room: int) -> "KVCache":
        """The cache of the first rows in the same memory, with space for `room` tokens after the history.

        Passes of both write there: one must end before the next begins.
        """
        storage = self.for_appending().storage
        storage.reserve(storage.keys[0], self.tokens + room)
        own = KVStorage(storage.layers, self.tokens)
        own.keys, own.values = (
            [tensor[:rows] for tensor in tensors] for tensors in (storage.keys, storage.values)
        )
        return KVCache(own, self.tokens)

    def within(self, reach: Reach, tokens_per_frame: int, room: int | None = None) -> "KVCache":
        """The cache without the frames that no later frame sees, so a bounded history takes bounded memory.

        This cache itself does not change: what remains is copied to a new storage, once per chunk, with
        space for `room` tokens more (default: those of one frame).
        """
        if reach.window is None or self.tokens <= (reach.sink + reach.window) * tokens_per_frame:
            return self
        last = self.tokens - reach.window * tokens_per_frame
        kept = [slice(0, reach.sink * tokens_per_frame), slice(last, self.tokens)]
        own = KVStorage(self.storage.layers, (reach.sink + reach.window) * tokens_per_frame)
        for new, old in ((own.keys, self.storage.keys), (own.values, self.storage.values)):
            for tensor in old:
                if not tensor.shape[2]:  # of a layer that remembers nothing
                    new.append(tensor)
                    continue
                capacity = own.written + (room or tokens_per_frame)
                fresh = tensor.new_empty(*tensor.shape[:2], capacity, tensor.shape[3])
                fresh[:, :, : own.written] = torch.cat([tensor[:, :, part] for part in kept], dim=2)
                new.append(fresh)
        return KVCache(own, own.written)


@dataclass(frozen=True)
class FrameThenQueries:
    """One pass over [a finished frame | query tokens] after a cache's history.

    The frame sees the history and itself. Query tokens see the history with that frame, as far as it
    reaches, and themselves; nothing sees them. In the layer `last`, after which only query tokens are read,
    the frame sees nothing: its attention is 0.
    """

    cache: KVCache
    tokens_per_frame: int
    reach: Reach
    last: int | None
    """None: the frame attends in all layers, which costs what two passes do (residual fusion, as networks of
    other families have it)."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all tokens [b h n d], n = (2 tokens_per_frame)."""
        n, (keys, values) = self.tokens_per_frame, self.cache.with_current(layer, k, v)
        if layer == self.last:
            frame = torch.zeros_like(q[:, :, :n])
        else:
            frame = F.scaled_dot_product_attention(q[:, :, :n], keys[:, :, :-n], values[:, :, :-n])
        keys, values = self._within_reach(keys), self._within_reach(values)
        return torch.cat([frame, F.scaled_dot_product_attention(q[:, :, n:], keys, values)], dim=2)

    def _within_reach(self, keys: Tensor) -> Tensor:
        """Those keys, or values, that the query tokens see."""
        n, reach = self.tokens_per_frame, self.reach
        if reach.window is None or keys.shape[2] <= (reach.sink + reach.window + 1) * n:
            return keys
        recent = keys[:, :, -(reach.window + 1) * n :]
        return torch.cat([keys[:, :, : reach.sink * n], recent], dim=2) if reach.sink else recent


Attending = Callable[[KVCache, int, int], History]
"""Makes a history from a cache, the number of the cache's first layers that read the past, and the number of
its first tokens that are of no frame, which every layer reads."""


@runtime_checkable
class Cached(Protocol):
    """The history of a denoising pass that attends through one KV cache, and could do so in another way."""

    def replace_attention(self, attend: Attending, cut: int) -> Any:
        """The same with the history that `attend` makes of the cache; `cut` counts the network's layers."""
        ...
