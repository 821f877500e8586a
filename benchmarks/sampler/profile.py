"""Where a frame's time goes: operations by kind, and how many are launched.

rows = profile(frames.ours)
rows["matrix products"].share, rows["matrix products"].launches
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity

KINDS = {
    "matrix products": ("addmm", "mm", "bmm", "baddbmm"),
    "attention": (
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math", "_softmax",
    ),
    "norms": ("native_layer_norm", "rsqrt", "mean", "pow"),
    "copies": ("copy_", "cat", "clone", "index_select", "fill_", "zero_"),
}  # fmt: skip
"""The operations of each kind; all others are element by element."""
OTHERS = "element by element"
CALLING = (
    "linear", "matmul", "rms_norm", "_fused_rms_norm", "layer_norm", "scaled_dot_product_attention", "stack",
    "reshape", "contiguous", "clone", "flatten", "repeat_interleave", "to", "_to_copy", "type_as", "zeros",
    "full", "ones", "meshgrid", "softmax", "chunk", "split", "unbind", "repeat", "where",
)  # fmt: skip
"""Operations that compute through others, which are counted instead of them."""
VIEWS = (
    "view", "transpose", "permute", "expand", "slice", "select", "split_with_sizes", "t", "as_strided",
    "unsqueeze", "squeeze", "narrow", "unflatten", "detach", "alias", "resize_", "lift_fresh", "view_as_real",
    "view_as_complex", "_unsafe_view", "result_type", "item", "_local_scalar_dense", "_reshape_alias",
    "resolve_conj", "resolve_neg", "expand_as", "new_empty", "unfold", "empty", "empty_like",
    "empty_strided", "scalar_tensor", "movedim", "numpy_T", "real", "imag",
)  # fmt: skip
"""Operations that make views or reserve memory."""


@dataclass(frozen=True)
class OperationKind:
    """The operations of one kind: how many, their microseconds, and their share of the time of all."""

    launches: int
    microseconds: float
    share: float


def profile(run: Callable[[], Any]) -> dict[str, OperationKind]:
    """The operations of one call of `run` by kind; what Python adds between them is in none.

    What only makes views or reserves memory does not count. On a GPU each operation is at least one kernel.
    """
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        run()
    found: dict[str, list[float]] = {name: [0, 0.0] for name in (*KINDS, OTHERS)}
    roots = [event for event in profiler.events() or () if event.cpu_parent is None]
    for name, event in _operations(roots):
        kind = found[kind_of(name)]
        kind[0] += 1
        kind[1] += event.device_time_total or event.cpu_time_total
    whole = sum(time for _, time in found.values())
    return {name: OperationKind(int(count), time, time / whole) for name, (count, time) in found.items()}


def _operations(events: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """The names and events of the operations that compute, each of them once."""
    for event in events:
        name = event.name.removeprefix("aten::")
        if name == event.name or name in CALLING:
            yield from _operations(event.cpu_children)
        elif name not in VIEWS:
            yield name, event


def kind_of(name: str) -> str:
    """The kind of an operation, from its name without "aten::"."""
    return next((kind for kind, names in KINDS.items() if name in names), OTHERS)
