"""Trace: hand every value at the watched hook points to a sink, with its moment and its name.

    norms = []
    with Trace(model.hook_dict, ["hook_embed", "blocks.*.hook_resid_post"],
               lambda at, name, value: norms.append((at.step, name, value.norm()))) as trace:
        rollout(model, clip, on_pass=trace.on_pass)

Statistics feed on such a stream: nothing is collected here.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from framelens.hooks._instrument import Instrument, outside_graphs


class Trace(Instrument):
    """Calls `sink(at, name, value)` each time a point whose name matches a glob fires.

    `value` is detached but not copied: a sink that keeps it must clone it. The
    network's output is bit for bit what it is without the Trace. A glob without
    a match raises ValueError; a point that misses announced passes raises
    SilentHookError when the `with` block ends.
    """

    def __init__(
        self,
        points: Mapping[str, nn.Module],
        patterns: str | Iterable[str],
        sink: Callable[[Any, str, Tensor], None],
    ):
        super().__init__(points, patterns)
        self.sink = sink

    def _attach(self, name: str, module: nn.Module, stack: ExitStack) -> None:
        def hand_over(_module, _inputs, output):
            self._count(name)
            self.sink(self.at, name, tensor_of(name, output).detach())

        stack.callback(module.register_forward_hook(outside_graphs(hand_over)).remove)


def tensor_of(name: str, output: Any) -> Tensor:
    """The output of a hook point, which is one tensor; ValueError if it is anything else."""
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{name!r} gives a {type(output).__name__}, expected one tensor; watch a module inside it instead"
        )
    return output
