"""What each architecture remembers of finished frames; values, never changed."""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from framelens.models.parts.blocks import Rope
from framelens.models.parts.cache import KVCache
from framelens.models.parts.stack import Modulations
from framelens.models.parts.text import TextKeys


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


def widen(context: Any, rows: int) -> Any:
    """A context of one clip for so many rows of it, with its keys and values in memory once; None where it is
    of another kind, or of no finished frame."""
    if not isinstance(context, DenseContext | SCDContext) or not context.cache.tokens:
        return None
    wide: dict[str, Any] = {"cache": context.cache.widen(rows), "cond": _rows(context.cond, rows)}
    if isinstance(context, DenseContext):
        return replace(context, **wide, text=_text(context.text, rows))
    prefix = None if context.prefix is None else context.prefix.widen(rows)
    wide |= {"features": _rows(context.features, rows), "prefix": prefix}
    texts = {name: _text(getattr(context, name), rows) for name in ("encoder_text", "decoder_text")}
    return replace(context, **wide, **texts)


def _rows(value: Tensor | None, rows: int) -> Tensor | None:
    return None if value is None else value.expand(rows, *value.shape[1:])


def _text(text: TextKeys | None, rows: int) -> TextKeys | None:
    if text is None:
        return None
    return [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in text]
