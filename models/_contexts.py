"""What each architecture remembers of finished frames; values, never changed."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from models._blocks import Rope
from models._cache import KVCache
from models._stack import Modulations
from models._text import TextKeys


@dataclass(frozen=True)
class DenseContext:
    """The past of a dense model: how many frames, their keys and values, the conditions of the clip."""

    frame: int
    cache: KVCache
    rope: Rope
    cond: Tensor | None
    text: TextKeys | None = None
    modulations: Modulations | None = None
    """Those of the denoising step at hand, where the sampler prepared its steps."""


@dataclass(frozen=True)
class SCDContext:
    """The past of a separated model: the encoder's cache and its features for the next frame.

    For the prefix fusion also the decoder's keys and values of those features; None as features means that
    nothing has been read yet and there is no start token.
    """

    frame: int
    cache: KVCache
    features: Float[Tensor, "b n d"] | None
    prefix: KVCache | None
    cond: Tensor | None
    place: tuple[Tensor, Tensor]
    """RoPE tables of the decoder's input, the same for every frame."""
    encoder_text: TextKeys | None = None
    decoder_text: TextKeys | None = None
    modulations: Modulations | None = None
    """Those of the denoising step at hand, where the sampler prepared its steps."""
