"""AttentionTap and Pattern: what a fused attention call attends to, without the map and without a fork.

    def sink(at, name, pattern):
        mass, entropy = pattern.subsample(64, seed=0).statistics()

    with AttentionTap(model.attn_dict, "blocks.*.attn", sink) as tap:
        rollout(model, clip, on_pass=tap.on_pass)

Fused kernels answer every question, so nothing as large as queries by keys is made.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from hooks._instrument import Instrument, outside_graphs
from hooks._pattern import Pattern

__all__ = ["AttentionPoint", "AttentionTap", "Pattern", "self_test"]


@dataclass(frozen=True)
class AttentionPoint:
    """An attention module and how old its keys are.

    `module` calls F.scaled_dot_product_attention once in its forward, on queries
    and keys that are normalised and rotated. `key_age(frame, keys)` gives for
    each of the keys how many frames back it lies while `frame` is processed: 0
    for the frame itself, 1, 2, ... for earlier ones, -1 for what is no frame.
    """

    module: nn.Module
    key_age: Callable[[int, int], Int[Tensor, " k"]]


class AttentionTap(Instrument):
    """Calls `sink(at, name, pattern)` after each attention call inside a watched module.

    The call itself is left alone, so the network's output is bit for bit the
    same. Before the first announced pass `pattern.key_age` is None. ValueError
    for a call with a mask, dropout or shared heads, which a Pattern cannot
    describe, and for a glob without a match; SilentHookError for a compiled
    module, and when a module does not make one call in each announced pass.
    """

    remedy = (
        "a module must call F.scaled_dot_product_attention once in a pass, and a compiled or captured model "
        "hides its calls: run it uncompiled, and announce every forward pass by on_pass"
    )

    def __init__(
        self,
        points: Mapping[str, AttentionPoint],
        patterns: str | Iterable[str],
        sink: Callable[[Any, str, Pattern], None],
    ):
        super().__init__({name: point.module for name, point in points.items()}, patterns)
        self.sink = sink
        self._key_age = {name: points[name].key_age for name in self.points}
        self._inside: list[str] = []

    def __enter__(self) -> "AttentionTap":
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
        """The attention call as it is; one inside a watched module is reported."""
        out = kernel(*args, **kwargs)
        if self._inside and not torch.compiler.is_compiling():
            self._heard(self._inside[-1], _call(*args, **kwargs))
        return out

    def _heard(self, name: str, call: "_Call") -> None:
        self._count(name)
        call.refuse_unknown(name)
        key_age = None if self.at is None else self._key_age[name](self.at.frame, call.k.shape[-2])
        inside, self._inside = self._inside, []  # attention that the sink computes is not the model's
        try:
            with torch.no_grad():
                self.sink(self.at, name, Pattern(call.q, call.k, call.scale, key_age))
        finally:
            self._inside = inside


@dataclass(frozen=True)
class _Call:
    """What one call of F.scaled_dot_product_attention was given."""

    q: Tensor
    k: Tensor
    scale: float | None
    extras: tuple[str, ...]

    def refuse_unknown(self, name: str) -> None:
        if self.extras or self.q.ndim != 4 or self.q.shape[:2] != self.k.shape[:2]:
            raise ValueError(
                f"the attention call in {name!r} has q {tuple(self.q.shape)}, k {tuple(self.k.shape)} and "
                f"{', '.join(self.extras) or 'no mask'}; expected [b h n d] with equal heads and no mask, "
                f"dropout or is_causal: pass only the visible keys, frame by frame"
            )


def _call(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> _Call:
    given = {"attn_mask": attn_mask is not None, "dropout_p": dropout_p > 0, "is_causal": is_causal}
    return _Call(query, key, scale, tuple(name for name in given if given[name]))


def self_test(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
    """Raise RuntimeError if the fused kernels of this device are off, on 64 tokens against float64.

    Log-normalisers differ between kernels and versions (padding, base 2), and a
    wrong one gives wrong masses without any sign.
    """
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 2, 64, 32, generator=generator).to(dtype)
    pattern = Pattern(q.to(device), k.to(device), 0.5, torch.arange(4).repeat_interleave(16))
    q, k = q.double(), k.double()
    score = 0.5 * q @ k.mT
    p = score.softmax(-1)
    exact = {
        "log_normaliser": (pattern.log_normaliser(), score.logsumexp(-1), 1e-3),
        "lag_mass": (pattern.lag_mass(), p.unflatten(-1, (4, 16)).sum(-1), 1e-3),
        "entropy": (pattern.entropy(), -torch.xlogy(p, p).sum(-1), 1e-3),
        "rows": (pattern.rows(0, 64), p, 1e-3),
        # Only an expectation is rounded to the dtype of the call.
        "expect": (pattern.expect(pattern.k), p @ k, max(1e-3, 16 * torch.finfo(dtype).eps)),
    }
    for name, (got, expected, limit) in exact.items():
        error = (got.cpu().double() - expected).abs().max().item()
        if not error <= limit:
            raise RuntimeError(
                f"{name} on {device} in {dtype} is off by {error:.1e}, expected at most {limit:.1e}: "
                f"its attention kernel cannot be trusted with this version of torch"
            )
