"""Contexts of dense and separated models: what each remembers of finished frames. They never change."""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from framelens.diffusion.contract import CausalDiffuser, traits
from framelens.diffusion.sampler import prepare_steps
from framelens.models.parts.blocks import Rope
from framelens.models.parts.cache import KVCache
from framelens.models.parts.stack import Modulations
from framelens.models.parts.text import TextKeys


@dataclass(frozen=True)
class DenseContext:
    """The context of a dense model: number of frames, their keys and values, the clip's conditions."""

    frame: int
    cache: KVCache
    rope: Rope
    cond: Tensor | None
    text: TextKeys | None = None
    modulations: Modulations | None = None
    """Modulations of the current denoising step, if the sampler prepared its steps."""


@dataclass(frozen=True)
class SCDContext:
    """The context of a separated model: the encoder's cache and its features for the next frame.

    The prefix fusion also stores the decoder's keys and values of those features in `prefix`. `features`
    is None before the first frame of a model without a start token.
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
    """Modulations of the current denoising step, if the sampler prepared its steps."""
    last: Float[Tensor, "b n d"] | None = None
    """The last finished frame's embedded tokens, of a network whose query tokens begin as these."""


def widen(context: Any, rows: int) -> Any:
    """A context of one clip for `rows` rows, which share its keys and values in memory.

    None for a context of another class, or one without a finished frame.
    """
    if not isinstance(context, DenseContext | SCDContext) or not context.cache.tokens:
        return None
    wide: dict[str, Any] = {"cache": context.cache.widen(rows), "cond": _rows(context.cond, rows)}
    if isinstance(context, DenseContext):
        return replace(context, **wide, text=_text(context.text, rows))
    prefix = None if context.prefix is None else context.prefix.widen(rows)
    wide |= {"features": _rows(context.features, rows), "prefix": prefix, "last": _rows(context.last, rows)}
    texts = {name: _text(getattr(context, name), rows) for name in ("encoder_text", "decoder_text")}
    return replace(context, **wide, **texts)


def narrow(context: Any, rows: int, room: int) -> Any:
    """A context for the first of its rows, in the same memory, with space for a chunk of `room` tokens.

    One pass of either must end before the next begins. None for a context of another class, or one without a
    finished frame.
    """
    if not isinstance(context, DenseContext) or not context.cache.tokens:
        return None
    cond = None if context.cond is None else context.cond[:rows]
    text = None if context.text is None else [(k[:rows], v[:rows]) for k, v in context.text]
    return replace(context, cache=context.cache.narrow(rows, room), cond=cond, text=text)


def prepare(model: CausalDiffuser, context: Any, sigma: Float[Tensor, "1"]) -> Any:
    """The context for many passes at one noise level, whose modulations are made once.

    A context of another class as it is.
    """
    if not isinstance(context, DenseContext | SCDContext):
        return context
    return next(prepare_steps(traits(model), sigma, context))


def _rows(value: Tensor | None, rows: int) -> Tensor | None:
    return None if value is None else value.expand(rows, *value.shape[1:])


def _text(text: TextKeys | None, rows: int) -> TextKeys | None:
    if text is None:
        return None
    return [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in text]
