"""What the attention instruments share: receiving the one kernel call that each watched module makes."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from framelens.hooks._instrument import Instrument, exclude_from_graphs
from framelens.hooks._replace import Replacement
from framelens.hooks.fold import merge_rows, split_rows
from framelens.hooks.kernel import unwatched_attention

Attached = TypeVar("Attached", bound="AttentionInstrument")


@dataclass(frozen=True)
class AttentionPoint:
    """An attention module, and the age of its keys.

    `module` calls F.scaled_dot_product_attention once in its forward, on queries and keys that are normalised
    and rotated. `key_age(frame, keys)` gives one age for each key while `frame` is processed: 0 for the frame
    itself, 1, 2, ... for the number of frames back, -1 for a key that is of no frame (text, a start token).
    `keys` is how many keys the call has; a key_age of another length is refused. The last `own_queries`
    queries are of the current frame (None: all of them); a decoder may have context tokens before them.
    `fold` neighbouring rows of the batch axis belong to one clip, as in attention along time, which has one
    row for each place in the frame.
    """

    module: nn.Module
    key_age: Callable[[int, int], Int[Tensor, " k"]]
    own_queries: int | None = None
    fold: int = 1


@dataclass(frozen=True)
class AttentionCall:
    """The arguments and the result of one call of F.scaled_dot_product_attention.

    `q` [b h q d], `k` and `v` [b h k d] as the kernel received them, with `fold` rows for each clip.
    `key_age` [k] and `fold` as in AttentionPoint; `key_age` is None before the first announced pass. `extras`
    names what instruments refuse: a mask, dropout, is_causal. `kernel` computes the result from q, k and v.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float | None
    key_age: Int[Tensor, " k"] | None
    extras: tuple[str, ...]
    kernel: Callable[[Tensor, Tensor, Tensor], Tensor]
    fold: int = 1

    @cached_property
    def out(self) -> Tensor:
        """The result, one row for each clip, [b / fold, h, fold q, d]; computed where it is read. Read it
        during the pass: the keys are those of the network's memory."""
        return merge_rows(self.kernel(self.q, self.k, self.v), self.fold)

    def of_rows(self, rows: slice) -> "AttentionCall":
        """The call of these rows of the batch alone."""
        return replace(self, q=self.q[rows], k=self.k[rows], v=self.v[rows])

    def refuse_unknown(self, name: str) -> None:
        """ValueError for a call with a mask, dropout or shared heads."""
        if self.extras or self.q.ndim != 4 or self.q.shape[:2] != self.k.shape[:2]:
            raise ValueError(
                f"the attention call in {name!r} has q {tuple(self.q.shape)}, k {tuple(self.k.shape)} and "
                f"{', '.join(self.extras) or 'no mask'}; expected [b h n d] with equal heads and no mask, "
                f"dropout or is_causal: pass only the visible keys, frame by frame"
            )


class AttentionInstrument(Instrument):
    """An instrument that receives the attention calls inside watched modules, in `_on_call`."""

    remedy = (
        "a module must call F.scaled_dot_product_attention once in a pass, and a compiled or captured model "
        "hides its calls: run it uncompiled, and announce every forward pass by on_pass"
    )

    def __init__(self, points: Mapping[str, AttentionPoint], patterns: str | Iterable[str]):
        super().__init__({name: point.module for name, point in points.items()}, patterns)
        self._points = {name: points[name] for name in self.points}
        self._inside: list[str] = []  # watched modules whose forward is running, the innermost last
        self._ages: dict[tuple[str, int, int], Tensor] = {}

    def _on_call(self, name: str, call: AttentionCall) -> Tensor:
        """The result that the network continues with, instead of `call.out`."""
        raise NotImplementedError

    def __enter__(self: Attached) -> Attached:
        super().__enter__()
        assert self._attached is not None
        # Replacing the function costs nothing at other torch calls; a TorchFunctionMode costs a small network
        # 40 %. A module that calls the kernel by another name is not seen, and the count of calls says so.
        replacement = Replacement(F, "scaled_dot_product_attention", self._intercept)
        self._attached.callback(replacement.remove)
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        # Module hooks do not run on KeyboardInterrupt and the like, so a module may still be listed.
        self._inside.clear()
        return super().__exit__(kind, error, traceback)

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        enter, leave = (exclude_from_graphs(partial(call, name)) for call in (self._enter, self._leave))
        stack.callback(module.register_forward_pre_hook(enter).remove)
        # always_call: an exception in the forward must not leave the name on the list.
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)

    def _notices_hooks(self, module: nn.Module) -> bool:
        return False

    def _enter(self, name: str, *_) -> None:
        self._inside.append(name)

    def _leave(self, name: str, *_) -> None:
        if self._inside and self._inside[-1] == name:
            self._inside.pop()

    def _intercept(self, kernel: Callable[..., Tensor], *args, **kwargs) -> Tensor:
        if not self._inside or torch.compiler.is_compiling():
            return kernel(*args, **kwargs)
        name = self._inside[-1]
        self._count(name)
        call = _describe_call(kernel, name, self._points[name], *args, **kwargs)
        if self.at is not None:
            call = replace(call, key_age=self._age_of_keys(name, self.at.frame, call.k.shape[-2]))
        inside, self._inside = self._inside, []  # attention that `_on_call` computes is not the model's
        try:
            if kernel is not unwatched_attention:
                _ = call.out  # other instruments see the call, too
            return split_rows(self._on_call(name, call), call.fold)
        finally:
            self._inside = inside

    def _age_of_keys(self, name: str, frame: int, keys: int) -> Int[Tensor, " k"]:
        """The age of each key, computed once for a frame; ValueError where the model's key_age has another
        length than the call."""
        if (name, frame, keys) not in self._ages:
            ages = self._points[name].key_age(frame, keys)
            if len(ages) != keys:
                raise ValueError(
                    f"attention in {name!r} has {keys} keys at frame {frame}, but key_age gives {len(ages)} "
                    f"ages; key_age must give one age for each key that the module attends to"
                )
            self._ages = {key: kept for key, kept in self._ages.items() if key[1] == frame}
            self._ages[name, frame, keys] = ages
        return self._ages[name, frame, keys]


def _describe_call(
    kernel, name: str, point: AttentionPoint, query, key, value, attn_mask=None, dropout_p=0.0,
    is_causal=False, scale=None, enable_gqa=False,
) -> AttentionCall:  # fmt: skip
    given = {"attn_mask": attn_mask is not None, "dropout_p": dropout_p > 0, "is_causal": is_causal}
    extras = tuple(name for name in given if given[name])
    plain = kernel if scale is None else partial(kernel, scale=scale)
    call = AttentionCall(query, key, value, scale, None, extras, plain, point.fold)
    call.refuse_unknown(name)
    return call
