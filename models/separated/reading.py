"""How the decoder of a separated network reads the encoder's features: its fusion.

residual: what the encoder's layers after the head add to its stream is added after the decoder's own head.
prefix: the encoder's normed output is a row of tokens whose keys and values each decoder layer computes once
per chunk, as those of a finished chunk; noisy tokens see them beside themselves.
token_concat: the same tokens run beside the noisy ones at every step.
The last two begin a fine-tune as strangers to the decoder: it has never seen such tokens.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.layers import LayerInputs, LayerStack
from framelens.models.parts.cache import Cached, KVCache
from framelens.models.parts.history import AllTokens, Alone, History, Prefix
from framelens.models.parts.two_parts import TwoParts

FUSION = "residual"
FUSIONS = (FUSION, "prefix", "token_concat")
"""What any family's decoder can read without weights of the fusion's own."""
QUERIES = ("noise", "learned")
"""What the tokens begin as with which the encoder asks for the next chunk: noise, or a learned vector."""


@runtime_checkable
class OfOwnTokens(Protocol):
    """A history that counts the tokens of the current chunk, which hook points see."""

    def with_own(self, tokens: int) -> Any:
        """The same for a pass in which that many tokens are the current chunk's."""
        ...


@dataclass(frozen=True)
class HalfStack:
    """A stack as a half of a separated network, with its number of layers; see FUSIONS."""

    stack: LayerStack
    depth: int
    head: int
    fusion: str

    def features(self, entered: LayerInputs) -> Float[Tensor, "b n d"]:
        """Of the encoder: the features of all tokens of this pass."""
        if self.fusion != FUSION:
            after = self.stack.through(*entered, range(self.depth))
            return F.layer_norm(after, after.shape[-1:], eps=1e-6)
        entering = self.stack.through(*entered, range(self.head))
        after = self.stack.through(*entered._replace(tokens=entering), range(self.head, self.depth))
        return after - entering

    def prefix(self, entered: LayerInputs, features: Float[Tensor, "b n d"]) -> Prefix:
        """Of the decoder: keys and values of the features' tokens, from a pass with these inputs."""
        prefix = Prefix()
        history = Recorded(prefix, entered.history)
        if isinstance(entered.history, Cached):
            history = entered.history.replace_attention(
                lambda cache, _, registers: Recorded(prefix, _alone(cache, registers)), 0
            )
        self.stack.through(*entered._replace(tokens=features, history=history), range(self.depth))
        return prefix

    def decode(
        self, entered: LayerInputs, features: Float[Tensor, "b n d"], groups: int
    ) -> Float[Tensor, "b n d"]:
        """Of the decoder: the stream of the noisy tokens after its last layer.

        With token concat, features stand before noisy tokens in each of that many groups of tokens. With the
        prefix, the history that entered has it.
        """
        if self.fusion == "prefix":
            return self.stack.through(*entered, range(self.depth))
        if self.fusion == FUSION:
            tokens = self.stack.through(*entered, range(self.head)) + features
            return self.stack.through(*entered._replace(tokens=tokens), range(self.head, self.depth))
        rope = entered.rope
        turned = tuple(_beside(t, t, 0, groups) for t in ((rope,) if isinstance(rope, Tensor) else rope))
        both = entered._replace(
            tokens=_beside(features, entered.tokens, 1, groups),
            rope=turned[0] if isinstance(rope, Tensor) else turned,
        )
        if isinstance(both.history, OfOwnTokens):
            both = both._replace(history=both.history.with_own(both.tokens.shape[1]))
        out = self.stack.through(*both, range(self.depth))
        return out.unflatten(1, (groups, 2, -1))[:, :, 1].flatten(1, 2)


def _beside(one: Tensor, two: Tensor, axis: int, groups: int) -> Tensor:
    """Each group of the first tensor along that axis, and after it that of the second."""
    parts = [part.unflatten(axis, (groups, -1)) for part in (one, two)]
    return torch.cat(parts, dim=axis + 1).flatten(axis, axis + 1)


@dataclass(frozen=True)
class Recorded:
    """A history whose keys and values a prefix keeps."""

    prefix: Prefix
    own: History

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the tokens to each other."""
        self.prefix.layers[layer] = (k, v)
        return self.own.attend(layer, q, k, v)


@dataclass(frozen=True)
class WithPrefix:
    """A history whose tokens see those of a prefix, too."""

    prefix: Prefix
    own: History

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of the tokens to the prefix and to each other."""
        keys, values = self.prefix.layers[layer]
        return self.own.attend(layer, q, torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2))


@dataclass(frozen=True)
class AloneWithPrefix:
    """Chunks of several draws of a clip; each sees itself and the prefix of its chunk."""

    tokens: int
    """Tokens of a chunk."""
    prefix: Prefix

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [b h n d] of all tokens, n = (draw chunk token)."""
        chunks = q.shape[2] // self.tokens
        q, k, v = (rearrange(part, "b h (c n) d -> (b c) h n d", c=chunks) for part in (q, k, v))
        keys, values = (self._of_chunks(kept, chunks) for kept in self.prefix.layers[layer])
        seen = AllTokens().attend(layer, q, torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2))
        return rearrange(seen, "(b c) h n d -> b h (c n) d", c=chunks)

    def _of_chunks(self, kept: Tensor, chunks: int) -> Tensor:
        own = kept.shape[2] // self.tokens
        kept = rearrange(kept, "b h (c n) d -> b c h n d", c=own).repeat(1, chunks // own, 1, 1, 1)
        return kept.flatten(0, 1)


def without_past(history: Any) -> Any:
    """The same history in which the current chunk sees itself and tokens of no frame only."""
    if not isinstance(history, Cached):
        return history
    return history.replace_attention(lambda cache, _, registers: _alone(cache, registers), 0)


def with_prefix(history: Any, prefix: Prefix) -> Any:
    """The same history in which the current chunk sees itself and the prefix only."""
    if not isinstance(history, Cached):
        return WithPrefix(prefix, history)
    return history.replace_attention(
        lambda cache, _, registers: WithPrefix(prefix, _alone(cache, registers)), 0
    )


def over_clip(history: Alone, fusion: str, prefix: Prefix | None) -> Any:
    """The history of chunks that are alone, as a decoder of that fusion attends."""
    if prefix is not None:
        return AloneWithPrefix(history.tokens, prefix)
    return replace(history, tokens=2 * history.tokens) if fusion == "token_concat" else history


def _alone(cache: KVCache, registers: int) -> TwoParts:
    return TwoParts(cache, 0, registers, "softmax", "whole", {})
