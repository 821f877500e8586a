"""What the instruments of attention share: hearing the one kernel call that a watched module makes."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from framelens.hooks._instrument import Instrument, outside_graphs
from framelens.hooks.fold import apart, side_by_side


@dataclass(frozen=True)
class AttentionPoint:
    """An attention module and how old its keys are.

    `module` calls F.scaled_dot_product_attention once in its forward, on queries
    and keys that are normalised and rotated. `key_age(frame, keys)` gives for
    each of the keys how many frames back it lies while `frame` is processed: 0
    for the frame itself, 1, 2, ... for earlier ones, -1 for what is no frame.
    `own_queries` is how many of the queries, the last ones, are of the frame at
    hand; None for all: a decoder may carry context tokens beside them. `fold` is
    how many neighbouring rows of the call's batch axis are of one clip: attention
    along the frames of each place has a row for each place.
    """

    module: nn.Module
    key_age: Callable[[int, int], Int[Tensor, " k"]]
    own_queries: int | None = None
    fold: int = 1


@dataclass(frozen=True)
class AttentionCall:
    """What one call of F.scaled_dot_product_attention was given, [b h n d], and what it returned.

    `key_age` and `fold` as in AttentionPoint; no `key_age` before the first announced pass. With a fold, q, k
    and v have a row for each row of the call, `out` has one for each clip: the queries of its rows are side
    by side.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float | None
    out: Tensor
    key_age: Int[Tensor, " k"] | None
    extras: tuple[str, ...]
    fold: int = 1

    def refuse_unknown(self, name: str) -> None:
        """ValueError for a call with a mask, dropout or shared heads."""
        if self.extras or self.q.ndim != 4 or self.q.shape[:2] != self.k.shape[:2]:
            raise ValueError(
                f"the attention call in {name!r} has q {tuple(self.q.shape)}, k {tuple(self.k.shape)} and "
                f"{', '.join(self.extras) or 'no mask'}; expected [b h n d] with equal heads and no mask, "
                f"dropout or is_causal: pass only the visible keys, frame by frame"
            )


class AttentionInstrument(Instrument):
    """An instrument that hears the attention calls inside watched modules, in `_heard`."""

    remedy = (
        "a module must call F.scaled_dot_product_attention once in a pass, and a compiled or captured model "
        "hides its calls: run it uncompiled, and announce every forward pass by on_pass"
    )

    def __init__(self, points: Mapping[str, AttentionPoint], patterns: str | Iterable[str]):
        super().__init__({name: point.module for name, point in points.items()}, patterns)
        self._points = {name: points[name] for name in self.points}
        self._inside: list[str] = []

    def _heard(self, name: str, call: AttentionCall) -> Tensor:
        """What the call in that module returns to the network."""
        raise NotImplementedError

    def __enter__(self) -> "AttentionInstrument":
        super().__enter__()
        assert self._attached is not None
        # Replacing the function costs nothing at other torch calls, unlike a TorchFunctionMode, which
        # costs a small network 40 %. Code that holds the function under a name of its own is not heard,
        # and the law of firing says so.
        kernel = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = partial(self._listen, kernel)
        self._attached.callback(setattr, F, "scaled_dot_product_attention", kernel)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        # Module hooks do not run on KeyboardInterrupt and its like, so a call may still be open.
        self._inside.clear()
        super().__exit__(kind, error, traceback)

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        enter, leave = (outside_graphs(partial(call, name)) for call in (self._enter, self._leave))
        stack.callback(module.register_forward_pre_hook(enter).remove)
        # always_call: an exception in the forward must not leave the name behind.
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)

    def _notices_hooks(self, module: nn.Module) -> bool:
        return False

    def _enter(self, name: str, *_) -> None:
        self._inside.append(name)

    def _leave(self, name: str, *_) -> None:
        if self._inside and self._inside[-1] == name:
            self._inside.pop()

    def _listen(self, kernel: Callable[..., Tensor], *args, **kwargs) -> Tensor:
        out = kernel(*args, **kwargs)
        if not self._inside or torch.compiler.is_compiling():
            return out
        name = self._inside[-1]
        self._count(name)
        call = _call(out, self.at, self._points[name], *args, **kwargs)
        call.refuse_unknown(name)
        inside, self._inside = self._inside, []  # attention that `_heard` computes is not the model's
        try:
            heard = self._heard(name, call)
        finally:
            self._inside = inside
        return out if heard is call.out else apart(heard, call.fold)


def _call(
    out, at: Any, point: AttentionPoint, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False,
    scale=None, enable_gqa=False,
) -> AttentionCall:  # fmt: skip
    given = {"attn_mask": attn_mask is not None, "dropout_p": dropout_p > 0, "is_causal": is_causal}
    extras = tuple(name for name in given if given[name])
    key_age = None if at is None else point.key_age(at.frame, key.shape[-2])
    out = side_by_side(out, point.fold)
    return AttentionCall(query, key, value, scale, out, key_age, extras, point.fold)
