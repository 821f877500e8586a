"""AnyFlow's context of finished chunks, and the attention of passes that encode a chunk.

The last chunks are stored uncompressed, earlier ones in larger patches. When a chunk becomes compressed, the
keys of all later chunks are computed again, because they had seen its uncompressed form.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from framelens.hooks.kernel import unwatched_attention
from framelens.models.parts.cache import Attending, KVCache, KVStorage
from framelens.models.parts.current_tokens import Turns
from framelens.models.parts.history import History

BLOCK = 128
"""diffusers pads the queries of a denoising pass to a multiple of this, and adds as many keys."""


@dataclass(frozen=True)
class Layout:
    """The order of a chunk and of the chunks before it among the keys of a pass."""

    frames: int
    """Frames in a chunk."""
    tokens: int
    """Tokens in a frame."""
    compressed_tokens: int
    """Tokens in a compressed frame."""
    limit: int
    """Uncompressed chunks that a denoising pass sees, its own included."""

    @property
    def chunk(self) -> int:
        """Tokens of a chunk."""
        return self.frames * self.tokens

    @property
    def phantoms(self) -> int:
        """Number of zero keys in a denoising pass: diffusers' padding, which it does not mask."""
        return -self.chunk % BLOCK

    def key_age(self, frame: int, keys: int) -> Int[Tensor, " {keys}"]:
        """Age of each key in frames before the chunk's first frame; -1 for the phantoms.

        A key of a compressed chunk has the age of its frame. The number of keys shows whether the pass
        denoises or encodes.
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
    """The context of AnyFlow: a value. Keys are in order phantoms, compressed chunks, uncompressed chunks."""

    frame: int
    cache: KVCache
    compressed: int
    """Number of tokens of compressed chunks in the cache."""
    recent: tuple[Float[Tensor, "b f c h w"], ...]
    """The latents of the uncompressed chunks."""
    text: list[tuple[Tensor, Tensor]]
    turns: Turns
    """Rotations of the current chunk."""
    target: Float[Tensor, ""] | None = None
    """The noise level at which the current denoising step ends; None for a step of length 0."""


@dataclass(frozen=True)
class Denoising:
    """A denoising pass: the chunk sees all keys of the cache and its own; nothing is stored."""

    cache: KVCache | History
    own: int
    phantoms: int = 0
    """Number of the cache's first keys that are of no frame."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the chunk's tokens."""
        return self.cache.attend(layer, q, k, v)

    def with_own(self, tokens: int) -> "Denoising":
        """The same for a pass in which that many tokens are the current chunk's."""
        return replace(self, own=tokens)

    def replace_attention(self, attend: Attending, cut: int) -> "Denoising":
        """The same with another way of attending through the cache."""
        assert isinstance(self.cache, KVCache)
        return replace(self, cache=attend(self.cache, cut, self.phantoms))


@dataclass(frozen=True)
class Remembering:
    """An encoding pass: each chunk sees the compressed past, earlier chunks and itself; keys are stored."""

    past: AnyFlowPast
    phantoms: int
    sizes: tuple[int, ...]
    """Tokens of each chunk; the last is the current one."""
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def own(self) -> int:
        """Number of tokens of the current chunk."""
        return self.sizes[-1]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of all tokens; instruments see only the current chunk's."""
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
        """The cache of phantoms and then these keys and values, with room for `room` tokens.

        Layers that did not run have phantoms alone.
        """
        nothing = [kept[:, :, :0] for kept in self.past.cache.storage.keys[len(self.keys) :]]
        return fill_cache([*self.keys, *nothing], [*self.values, *nothing], self.phantoms, room)


def fill_cache(keys: list[Tensor], values: list[Tensor], phantoms: int, room: int) -> KVCache:
    """A cache of `phantoms` zero keys and then these keys [b h k d], with room for `room` tokens."""
    tokens = phantoms + keys[0].shape[2]
    storage = KVStorage(len(keys), tokens)
    storage.keys, storage.values = (
        [F.pad(part, (0, 0, phantoms, room)) for part in parts] for parts in (keys, values)
    )
    return KVCache(storage, tokens)


def turns_of(rope: Any, config: Any, frame: int, compressed: int, full: int, device: torch.device) -> Turns:
    """Rotations, from diffusers, of the tokens of `compressed` frames from `frame` on and `full` after."""
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
