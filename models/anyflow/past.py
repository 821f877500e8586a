"""What AnyFlow remembers of finished chunks, and what a pass that takes a chunk into memory may see.

The last chunks are remembered as they are, earlier ones compressed into larger patches; a chunk whose place
changes makes every later one's keys anew, since those had seen it in the other form.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from framelens.hooks.kernel import unwatched_attention
from framelens.models.parts.cache import KVCache, KVStorage
from framelens.models.parts.current_tokens import Turns

BLOCK = 128
"""diffusers fills the queries of a denoising pass up to a multiple of this, and the keys by as many."""


@dataclass(frozen=True)
class Layout:
    """How a chunk and the ones before it lie among the keys of a pass."""

    frames: int
    """In a chunk."""
    tokens: int
    """In a frame."""
    compressed_tokens: int
    """In a frame that is compressed."""
    limit: int
    """Chunks in full that a denoising pass sees, with its own."""

    @property
    def chunk(self) -> int:
        """Tokens of a chunk."""
        return self.frames * self.tokens

    @property
    def phantoms(self) -> int:
        """Keys of zeros that a denoising pass attends to: diffusers' padding, which it does not mask."""
        return -self.chunk % BLOCK

    def key_age(self, frame: int, keys: int) -> Int[Tensor, " {keys}"]:
        """How many frames before the chunk's first one each key lies; -1 for the phantoms.

        A key of a compressed chunk is as old as the frame it is a patch of. The pass, one that denoises or
        one that takes into memory, is known by its number of keys.
        """
        for phantoms, full in ((self.phantoms, self.limit), (0, self.limit - 1)):
            ages = self._ages(frame, phantoms, full)
            if len(ages) == keys:
                return ages
        raise ValueError(f"no pass at frame {frame} has {keys} keys; frames come in chunks of {self.frames}")

    def _ages(self, frame: int, phantoms: int, full: int) -> Int[Tensor, " k"]:
        small = max(0, frame // self.frames + 1 - full) * self.frames
        back = frame - torch.arange(frame)
        parts = (
            torch.full((phantoms,), -1),
            back[:small].repeat_interleave(self.compressed_tokens),
            back[small:].repeat_interleave(self.tokens),
            torch.zeros(self.chunk, dtype=torch.long),
        )
        return torch.cat(parts)


@dataclass(frozen=True)
class AnyFlowPast:
    """The context of AnyFlow: a value. Keys lie as phantoms, compressed chunks, chunks in full."""

    frame: int
    cache: KVCache
    compressed: int
    """Tokens of compressed chunks in the cache."""
    recent: tuple[Float[Tensor, "b f c h w"], ...]
    """The chunks that are remembered in full."""
    text: list[tuple[Tensor, Tensor]]
    turns: Turns
    """Of the chunk at hand."""
    target: Float[Tensor, ""] | None = None
    """The noise level that the denoising step at hand goes to; None for a step of no length."""


@dataclass(frozen=True)
class Denoising:
    """A chunk sees all keys of the cache and its own; writes nothing that stays."""

    cache: KVCache
    own: int

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the chunk's tokens."""
        return self.cache.attend(layer, q, k, v)


@dataclass(frozen=True)
class Remembering:
    """Chunks side by side see the compressed past, the ones before them and themselves; keys are kept."""

    past: AnyFlowPast
    phantoms: int
    sizes: tuple[int, ...]
    """Tokens of each chunk; the last is the one at hand."""
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def own(self) -> int:
        """Tokens of the chunk at hand."""
        return self.sizes[-1]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of all tokens; instruments hear that of the chunk at hand."""
        storage, old = self.past.cache.storage, slice(self.phantoms, self.phantoms + self.past.compressed)
        k, v = (
            torch.cat([kept[layer][:, :, old], new], dim=2)
            for kept, new in ((storage.keys, k), (storage.values, v))
        )
        self.keys.append(k)
        self.values.append(v)
        parts, start = [], 0
        for size in self.sizes[:-1]:
            seen = self.past.compressed + start + size
            parts.append(unwatched_attention(q[:, :, start : start + size], k[:, :, :seen], v[:, :, :seen]))
            start += size
        parts.append(F.scaled_dot_product_attention(q[:, :, start:], k, v))
        return torch.cat(parts, dim=2)

    def cache(self, room: int) -> KVCache:
        """The keys and values behind the phantoms, with room for a chunk."""
        return fill_cache(self.keys, self.values, self.phantoms, room)


def fill_cache(keys: list[Tensor], values: list[Tensor], phantoms: int, room: int) -> KVCache:
    """A cache of that many keys of zeros and these keys, with room behind."""
    tokens = phantoms + keys[0].shape[2]
    storage = KVStorage(len(keys), tokens)
    storage.keys, storage.values = (
        [F.pad(part, (0, 0, phantoms, room)) for part in parts] for parts in (keys, values)
    )
    return KVCache(storage, tokens)


def turns_of(rope: Any, config: Any, frame: int, compressed: int, full: int, device: torch.device) -> Turns:
    """Rotations of the tokens of `compressed` frames from `frame` on, then of `full` frames, by diffusers."""
    patches = [(config.height // patch, config.width // patch) for patch in (config.patch, config.far_patch)]
    first = frame + compressed
    layout = {
        "total_frames": first + full,
        "num_compressed_frames": first,
        "full_frame_shape": patches[0],
        "compressed_frame_shape": patches[1],
    }
    turns = rope(far_cfg=layout, device=device)["query"][0, 0].to(torch.complex64)
    return turns[frame * patches[1][0] * patches[1][1] :]
