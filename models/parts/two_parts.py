"""Attention in two parts, over the past and over the current chunk, of which the past's part can be kept."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from framelens.hooks.kernel import attend, unwatched_attention
from framelens.models.parts.cache import KVCache

MERGES = ("softmax", "sum")
Role = Literal["whole", "fetch", "reuse"]
"""What a step does with the past: reads it and keeps nothing, reads and keeps it, or reuses what was kept."""
Kept = dict[int, tuple[Tensor, ...]]
"""What a step kept of the past, by layer."""


@dataclass(frozen=True)
class TwoParts:
    """Attention over the past, of the first `cut` layers, and over the current chunk, in one step's role."""

    cache: KVCache
    cut: int
    registers: int
    """First tokens of the cache that are of no frame; they count as the chunk's own."""
    merge: str
    role: Role
    kept: Kept

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the current tokens."""
        has_past = self.cache.tokens > self.registers
        if layer < self.cut and (self.role == "whole" or not has_past):
            return self.cache.attend(layer, q, k, v)
        keys, values = self._own(layer, k, v)
        if layer >= self.cut:
            return F.scaled_dot_product_attention(q, keys, values)
        return (self._softmax if self.merge == "softmax" else self._sum)(layer, q, keys, values)

    def _own(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the chunk, after those of no frame."""
        if not self.registers:
            return k, v
        first = KVCache(self.cache.storage, self.registers).past(layer)
        return torch.cat([first[0], k], dim=2), torch.cat([first[1], v], dim=2)

    def _softmax(self, layer: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        scale = q.shape[-1] ** -0.5
        own, own_log = attend(q, keys, values, scale)
        if self.role == "fetch":
            self.kept[layer] = attend(q, *self.cache.past(layer, self.registers), scale)
        past, past_log = self._find_kept(layer, q)
        return torch.lerp(past, own, torch.sigmoid(own_log - past_log)[..., None].to(own.dtype))

    def _sum(self, layer: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        own = unwatched_attention(q, keys, values)
        if self.role == "fetch":
            past = self.cache.past(layer, self.registers)
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
            self.kept[layer] = (unwatched_attention(q, keys, values) - own,)
        return own + self._find_kept(layer, q)[0]

    def _find_kept(self, layer: int, q: Tensor) -> tuple[Tensor, ...]:
        kept = self.kept.get(layer)
        if kept is None or kept[0].shape != q.shape:
            raise ValueError(
                f"layer {layer} has no past that was fetched for queries {tuple(q.shape)}: run the contexts "
                "of at_steps in order, each with the same clips"
            )
        return kept
